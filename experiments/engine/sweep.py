"""A sweep: its jobs, which of them are finished, and how the others are run."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from copy import deepcopy
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict

from cpath.errors import CpathError, InputError
from experiments.engine.cache import digest, is_being_made, is_complete, mark_failed, slug, write_json, writing_to
from experiments.engine.config import parse
from experiments.engine.job import Job
from experiments.engine.provenance import command_line, read_manifest

_LOG = logging.getLogger(__name__)
_LISTING = "sweep.json"

FINISHED, FAILED, RUNNING, STOPPED, WAITING = "finished", "failed", "running", "stopped", "waiting"


def status_of(folder: Path) -> str:
    """Status of a job.

    Args:
        folder: of the job, which may not exist yet.

    Returns:
        ``finished``, ``failed``, ``running``, ``stopped`` (its process ended before the job did), or ``waiting``.
    """
    noted = read_manifest(folder).get("status")
    if noted == FAILED or is_complete(folder):
        return str(noted)
    if is_being_made(folder):
        return RUNNING
    if (now := read_manifest(folder).get("status")) != noted:  # it began or ended between the two looks
        return RUNNING if now == RUNNING else status_of(folder)
    return STOPPED if noted else WAITING


@dataclass(frozen=True)
class SweepJob:
    """One combination of a sweep's values."""

    overrides: tuple[str, ...]
    """Settings of the job as on the command line, those included that all jobs have in common."""
    folder: Path
    """Folder of the job, which may not be made yet."""

    @property
    def status(self) -> str:
        """Status of the job, as `status_of` has it."""
        return status_of(self.folder)


def run_sweep(
    config: DictConfig,
    combinations: Sequence[Sequence[str]],
    loader: ConfigLoader,
    launcher: Launcher,
    at_most: int | None = None,
) -> tuple[Path, list[JobReturn]]:
    """Run the jobs of a sweep that are not finished.

    Args:
        config: configuration of the sweep, with the node ``hydra``.
        combinations: overrides of each job.
        loader: composes the configuration of a job.
        launcher: runs jobs.
        at_most: number of jobs that are given to the launcher at a time; None for all.

    Returns:
        Folder of the sweep, and how each job ended that was run.

    Raises:
        SystemExit: if a job cannot be configured, or the sweep is stopped by hand.
    """
    try:
        jobs, redo = _jobs(config, combinations, loader)
        with writing_to(_outputs(jobs)):
            folder = _sweep_folder(config, jobs)
            _list_jobs(folder, jobs)
            return folder, _run(folder, jobs, redo, launcher, at_most)
    except CpathError as error:
        sys.exit(f"error: {error}")
    except (KeyboardInterrupt, SystemExit):
        _LOG.error("stopped; the same command continues from here")
        sys.exit(130)


def read_sweep(folder: Path) -> list[SweepJob]:
    """Read the jobs of a sweep.

    Args:
        folder: of the sweep.

    Returns:
        The jobs, in the order in which the sweep numbers them.

    Raises:
        InputError: if it is not the folder of a sweep.
    """
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


def _run(
    folder: Path, jobs: Sequence[SweepJob], redo: bool, launcher: Launcher, at_most: int | None
) -> list[JobReturn]:
    left = [job for job in jobs if redo or not is_complete(job.folder)]
    _LOG.info(
        "sweep %s: %d jobs, %d already finished, %d to run", folder, len(jobs), len(jobs) - len(left), len(left)
    )
    returned: list[JobReturn] = []
    size = at_most or max(1, len(left))
    for start in range(0, len(left), size):
        returned.extend(_launch(left[start : start + size], launcher, start))
    return returned


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
        found = Job(parse(cfg))
        if (experiment := found.config.experiment).runs_jobs:
            raise InputError(f"experiment={experiment.name} is many jobs already: run it without -m.")
        redo = redo or found.config.redo
        jobs.setdefault(found.folder, SweepJob(tuple(overrides), found.folder))
    return list(jobs.values()), redo


def _outputs(jobs: Sequence[SweepJob]) -> Path:
    return jobs[0].folder.parents[2]


def _sweep_folder(config: DictConfig, jobs: Sequence[SweepJob]) -> Path:
    """Folder of the sweep, which follows from its jobs unless the command line names one; launchers are told."""
    overrides = config.hydra.overrides.hydra
    named = any(str(override).startswith("hydra.sweep.dir=") for override in overrides)
    if not named:
        experiments = "+".join(dict.fromkeys(job.folder.parent.name for job in jobs))
        key = sorted(f"{job.folder.parent.name}/{job.folder.name}" for job in jobs)
        folder = _outputs(jobs) / "sweeps" / f"{slug(experiments)}-{digest(key)}"
        OmegaConf.set_readonly(config, False)
        OmegaConf.set_readonly(config.hydra, False)
        with open_dict(config):
            config.hydra.sweep.dir = str(folder)
            # Every job composes its configuration again, from these.
            quoted = str(folder).replace("'", "\\'")
            config.hydra.overrides.hydra = [*overrides, f"hydra.sweep.dir='{quoted}'"]
    return Path(str(config.hydra.sweep.dir))


def _list_jobs(folder: Path, jobs: Sequence[SweepJob]) -> None:
    listing = [{"overrides": job.overrides, "folder": os.path.relpath(job.folder, folder)} for job in jobs]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / _LISTING, {"command": command_line(), "jobs": listing})


def _launch(jobs: Sequence[SweepJob], launcher: Launcher, first: int) -> list[JobReturn]:
    """Run jobs, which are numbered from ``first``.

    When a worker dies, and the launcher with it, the others are launched again. It is not known which of the jobs
    that were running took the worker down: each of them runs once more, alone.
    """
    numbers = {job: first + place for place, job in enumerate(jobs)}
    waiting: list[list[SweepJob]] = [list(jobs)]
    returned: list[JobReturn] = []
    while waiting:
        group = waiting.pop(0)
        before = {job: read_manifest(job.folder) for job in group}
        try:
            overrides = [list(job.overrides) for job in group]
            results = list(launcher.launch(overrides, initial_job_idx=numbers[group[0]]))
        except Exception as error:
            begun = [job for job in group if read_manifest(job.folder) != before[job]]
            left = [job for job in group if job not in begun]
            suspects = [job for job in begun if job.status == STOPPED]
            if len(group) == 1 or not begun:
                for job in group:
                    mark_failed(job.folder, f"its process ended without an error message: {_shortened(error)}")
                continue
            _LOG.warning("a worker was lost (%s); the jobs that are left are launched again", _shortened(error))
            waiting = [*([left] if left else []), *([job] for job in suspects), *waiting]
            continue
        for job, result in zip(group, results, strict=True):
            if result.status == JobStatus.FAILED and job.status in (STOPPED, WAITING):
                mark_failed(job.folder, _shortened(_error_of(result)))
        returned.extend(results)
    return returned


def _error_of(result: JobReturn) -> Any:
    try:
        with redirect_stderr(StringIO()):  # it prints before it raises
            return result.return_value
    except Exception as error:
        return error


def _shortened(error: object) -> str:
    text = str(error).strip() or repr(error)
    return text if len(text) < 500 else f"{text[:500]} …"
