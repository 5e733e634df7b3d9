"""The life of a job: its folder, whether it is done already, its results, figures and manifest."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import cpath
from cpath.checks import within_memory
from cpath.viz import Drawing, save_drawings
from experiments.framework.devices import check_trainer, device_of, use_threads
from experiments.framework.identity import job_key
from experiments.framework.memory import keep_freed_memory
from experiments.framework.results import Row, read_table, table, write_table
from experiments.framework.store import (
    ArtifactStore,
    clear_partials,
    digest,
    file_checksum,
    slug,
    write_json,
    write_text,
    writing_to,
)
from experiments.framework.tracker import Tracker
from experiments.framework.values import check_values

_LOG = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_RESULTS = "results.csv"


@dataclass
class Job:
    """One run of an experiment; its folder follows from the configuration, and the files and code that it names."""

    cfg: DictConfig
    folder: Path
    store: ArtifactStore
    tracker: Tracker
    notes: dict[str, Any] = field(default_factory=dict)
    """Further facts for the manifest."""
    pictures: list[Drawing] = field(default_factory=list)
    """Figures of images and maps, which no table can hold: saved with those that are drawn from the table."""


def job_folder(cfg: DictConfig) -> Path:
    """Where a configuration's results are, or will be."""
    name = f"{cfg.dataset.name}-{cfg.model.name}-{digest(job_key(cfg))[:8]}"
    return Path(str(cfg.outputs)) / "runs" / str(cfg.experiment.name) / slug(name)


def run_job(
    cfg: DictConfig,
    compute: Callable[[Job], Iterable[Row]],
    draw: Callable[[pd.DataFrame], Iterable[Drawing]],
) -> pd.DataFrame:
    """Runs ``compute`` unless the job is finished already; leaves table, figures, manifest; returns the table.

    The figures are drawn from the table alone, but for the job's pictures. A failed or stopped job leaves a
    manifest that says so. Of two processes that want the same job one waits for the other, and then finds it
    finished.
    """
    check_values(cfg)
    check_trainer(cfg)
    folder = job_folder(cfg)
    asked = time.time()
    if is_finished(folder) and not cfg.redo:  # nothing is written then: the folder may be read-only
        return _finished_before(folder)
    with (
        writing_to(Path(cfg.outputs)),
        _alone(folder),
        within_memory("lower experiment.max_batch, or ask for less"),
    ):
        made_meanwhile = is_finished(folder) and (folder / _MANIFEST).stat().st_mtime > asked
        if made_meanwhile or (is_finished(folder) and not cfg.redo):
            return _finished_before(folder)
        if read_manifest(folder).get("status") == "finished" and not cfg.redo:
            _LOG.warning("%s is damaged and is made again", folder / _RESULTS)
        _run(cfg, folder, compute, draw)
        return read_table(folder / _RESULTS)


def _finished_before(folder: Path) -> pd.DataFrame:
    _LOG.info("finished before: %s (redo=true does it again)", folder)
    return read_table(folder / _RESULTS)


def _run(
    cfg: DictConfig,
    folder: Path,
    compute: Callable[[Job], Iterable[Row]],
    draw: Callable[[pd.DataFrame], Iterable[Drawing]],
) -> None:
    use_threads(cfg)
    if device_of(cfg).type == "cpu":
        keep_freed_memory()
    tracker: Tracker = instantiate(cfg.tracker)
    folder.mkdir(parents=True, exist_ok=True)
    clear_partials(folder)
    begun = {"status": "running", "started": _now(), "process": os.getpid(), "host": socket.gethostname()}
    write_json(folder / _MANIFEST, begun)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    job = Job(cfg, folder, ArtifactStore(Path(cfg.outputs) / "artifacts"), tracker)
    started, failed = time.perf_counter(), True
    try:
        tracker.start(cfg, folder)
        frame = table(compute(job), cfg)
        write_table(frame, folder / _RESULTS)
        save_drawings([*draw(read_table(folder / _RESULTS)), *job.pictures], folder / "figures")
        tracker.results(frame, folder)
        failed = False
    except Exception as error:
        wrong = {"error": str(error) or repr(error), "traceback": traceback.format_exc()}
        write_json(folder / _MANIFEST, _manifest(job, started, "failed", wrong))
        raise
    except BaseException:  # Ctrl-C, or a cluster that wants its node back and queues the job again: not its fault
        write_json(folder / _MANIFEST, _manifest(job, started, "stopped"))
        raise
    finally:
        tracker.finish(failed)
    job.notes["results"] = file_checksum(folder / _RESULTS)
    write_json(folder / _MANIFEST, _manifest(job, started, "finished"))
    _LOG.info("results: %s", folder)


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f".{folder.name}.lock"))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process works on the job of this folder meanwhile; the system lifts the lock of one that dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _LOG.info("waiting for another process that runs %s", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_running(folder: Path) -> bool:
    """Whether a process is at work on the job of this folder now."""
    if not folder.parent.is_dir():
        return False
    lock = _lock(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def mark_failed(folder: Path, error: str) -> None:
    """Notes for a job that could not do it itself that it failed, unless it is finished."""
    folder.mkdir(parents=True, exist_ok=True)
    if not is_finished(folder):
        write_json(folder / _MANIFEST, {"status": "failed", "error": error, "finished": _now()})


def redraw(folder: Path, draw: Callable[[pd.DataFrame], Iterable[Drawing]]) -> None:
    """Makes the figures of a finished job again, from its table; its pictures stay as they are."""
    captions = folder / "figures" / "captions.json"
    before: dict[str, str] = json.loads(captions.read_text()) if captions.exists() else {}
    save_drawings(draw(read_table(folder / "results.csv")), folder / "figures")
    write_json(captions, {**before, **json.loads(captions.read_text())})


def is_finished(folder: Path) -> bool:
    """Whether the job of this folder ran to its end, and its results are still what they were."""
    manifest, results = read_manifest(folder), folder / _RESULTS
    if manifest.get("status") != "finished" or not results.is_file():
        return False
    return manifest.get("results") in (None, file_checksum(results))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a job left about itself; empty where it left nothing readable."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _manifest(job: Job, started: float, status: str, wrong: dict[str, str] | None = None) -> dict[str, Any]:
    packages = ("torch", "torchvision", "numpy", "hydra-core", "pytorch-lightning", "captum", "scipy")
    device = device_of(job.cfg)
    return {
        "status": status,
        **(wrong or {}),
        "finished": _now(),
        "seconds": round(time.perf_counter() - started, 2),
        "seed": job.cfg.seed,
        "command": " ".join(Path(part).name if part == sys.argv[0] else part for part in sys.argv),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "git": git_revision(),
        "versions": {
            "cpath": cpath.__version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in packages},
        },
        **job.notes,
    }


def git_revision() -> str | None:
    """Revision of the code, with a mark when it was changed since; None outside a checkout."""
    here = Path(__file__).parent
    try:
        revision = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return revision.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]} ({len(names)} cores)" if names else platform.machine()
