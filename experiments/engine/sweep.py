"""A sweep: its jobs, which of them are finished, how the others are run, and what became of each."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from cpath.errors import CpathError, InputError
from experiments.framework.job import is_finished, is_running, job_folder, mark_failed, read_manifest
from experiments.framework.store import digest, slug, write_json, writing_to

_LOG = logging.getLogger(__name__)
_LISTING = "sweep.json"

FINISHED, FAILED, RUNNING, STOPPED, WAITING = "finished", "failed", "running", "stopped", "waiting"


@dataclass(frozen=True)
class SweepJob:
    """One combination of a sweep's values."""

    overrides: tuple[str, ...]
    """What distinguishes it from the other jobs, and what all have in common, as on the command line."""
    folder: Path

    @property
    def status(self) -> str:
        """``finished``, ``failed``, ``running``, ``stopped`` (its process ended before it did), or ``waiting``."""
        noted = read_manifest(self.folder).get("status")
        if noted == FAILED or is_finished(self.folder):
            return str(noted)
        if is_running(self.folder):
            return RUNNING
        return STOPPED if noted else WAITING


def run_sweep(
    config: DictConfig,
    combinations: Sequence[Sequence[str]],
    loader: ConfigLoader,
    launcher: Launcher,
    at_most: int | None = None,
) -> list[JobReturn]:
    """Runs the jobs that are not finished, then summarises and collects; exits with 1 if one is left unfinished.

    ``config`` is that of the sweep, with the node hydra; ``combinations`` hold the overrides of each job. At most
    ``at_most`` jobs are given to the launcher at a time.
    """
    try:
        jobs, redo = _jobs(config, combinations, loader)
        with writing_to(jobs[0].folder.parents[2]):
            returned, finished = _run(config, jobs, redo, launcher, at_most)
    except CpathError as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, SystemExit):
        _LOG.error("stopped; the same command goes on from here")
        sys.exit(130)
    if not finished:
        sys.exit(1)
    return returned


def _run(
    config: DictConfig, jobs: Sequence[SweepJob], redo: bool, launcher: Launcher, at_most: int | None
) -> tuple[list[JobReturn], bool]:
    """How the jobs ended that had to run, and whether all are finished now."""
    from experiments.framework.collect import collect_sweep  # imports pandas and matplotlib

    folder = _sweep_folder(config, jobs)
    _list_jobs(folder, jobs)
    todo = [job for job in jobs if redo or not is_finished(job.folder)]
    _LOG.info(
        "sweep %s: %d jobs, %d finished before, %d to do", folder, len(jobs), len(jobs) - len(todo), len(todo)
    )
    returned: list[JobReturn] = []
    size = at_most or max(1, len(todo))
    for start in range(0, len(todo), size):
        returned.extend(_launch(todo[start : start + size], launcher))
    return returned, collect_sweep(folder)


def read_sweep(folder: Path) -> list[SweepJob]:
    """The jobs of the sweep in ``folder``; raises `InputError` where there is none."""
    try:
        listing = json.loads((folder / _LISTING).read_text())
    except (OSError, ValueError):
        raise InputError(
            f"{folder} is not the folder of a sweep: it has no readable {_LISTING}. "
            "Sweeps are in OUTPUTS/sweeps/EXPERIMENT-HASH."
        ) from None
    return [
        SweepJob(tuple(job["overrides"]), Path(os.path.normpath(folder / job["folder"]))) for job in listing["jobs"]
    ]


def _jobs(
    config: DictConfig, combinations: Sequence[Sequence[str]], loader: ConfigLoader
) -> tuple[list[SweepJob], bool]:
    """The jobs without repetitions, and whether finished ones are to be run again."""
    jobs: dict[Path, SweepJob] = {}
    redo = False
    for overrides in combinations:
        cfg = deepcopy(loader.load_sweep_config(config, list(overrides)))
        OmegaConf.set_readonly(cfg, False)
        with open_dict(cfg):
            del cfg["hydra"]
        if cfg.experiment.name == "reproduce_paper":
            raise InputError("experiment=reproduce_paper is many jobs already: run it without -m.")
        redo = redo or bool(cfg.redo)
        job = SweepJob(tuple(overrides), job_folder(cfg))
        jobs.setdefault(job.folder, job)
    return list(jobs.values()), redo


def _sweep_folder(config: DictConfig, jobs: Sequence[SweepJob]) -> Path:
    """The sweep's folder, which follows from its jobs unless the command line names one; launchers are told."""
    told = config.hydra.overrides.hydra
    named = any(str(override).startswith("hydra.sweep.dir=") for override in told)
    if not named:
        outputs = jobs[0].folder.parents[2]
        experiments = "+".join(dict.fromkeys(job.folder.parent.name for job in jobs))
        key = {"jobs": sorted(f"{job.folder.parent.name}/{job.folder.name}" for job in jobs)}
        folder = outputs / "sweeps" / slug(f"{experiments}-{digest(key)[:8]}")
        OmegaConf.set_readonly(config, False)
        OmegaConf.set_readonly(config.hydra, False)
        with open_dict(config):
            config.hydra.sweep.dir = str(folder)
            # Every job composes its configuration again, from these.
            config.hydra.overrides.hydra = [*told, f"hydra.sweep.dir='{folder}'"]
    return Path(str(config.hydra.sweep.dir))


def _list_jobs(folder: Path, jobs: Sequence[SweepJob]) -> None:
    command = " ".join(["python -m experiments", *sys.argv[1:]])
    listing = [{"overrides": job.overrides, "folder": os.path.relpath(job.folder, folder)} for job in jobs]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _LISTING, {"command": command, "jobs": listing})


def _launch(jobs: Sequence[SweepJob], launcher: Launcher) -> list[JobReturn]:
    """Has the jobs run. When a worker dies, and the launcher with it, the others are launched again.

    Which of the jobs that were running took the worker down is not known: each of them runs once more, alone.
    """
    waiting: list[list[SweepJob]] = [list(jobs)]
    returned: list[JobReturn] = []
    while waiting:
        group = waiting.pop(0)
        before = {job: read_manifest(job.folder) for job in group}
        try:
            results = list(launcher.launch([list(job.overrides) for job in group], initial_job_idx=len(returned)))
        except Exception as error:
            begun = [job for job in group if read_manifest(job.folder) != before[job]]
            left = [job for job in group if job not in begun]
            suspects = [job for job in begun if job.status == STOPPED]
            if len(group) == 1 or not begun:
                for job in group:
                    mark_failed(job.folder, f"its process ended without a word: {_first_line(error)}")
                continue
            _LOG.warning("a worker was lost (%s); what it left is launched again", _first_line(error))
            waiting = [*([left] if left else []), *([job] for job in suspects), *waiting]
            continue
        for job, result in zip(group, results, strict=True):
            if result.status == JobStatus.FAILED and job.status in (STOPPED, WAITING):
                mark_failed(job.folder, _first_line(_error_of(result)))
        returned.extend(results)
    return returned


def _error_of(result: JobReturn) -> Any:
    return result._return_value  # the property raises it


def _first_line(error: object) -> str:
    text = str(error).strip() or repr(error)
    return text if len(text) < 500 else f"{text[:500]} …"
