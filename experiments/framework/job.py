"""The life of a job: its folder, whether it is done already, its results, figures and manifest."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from cpath.plots import Drawing, save_drawings
from experiments.framework.devices import check_trainer, device_of
from experiments.framework.results import Row, read_table, table, write_table
from experiments.framework.store import ArtifactStore, digest, slug, write_json, write_text
from experiments.framework.tracker import Tracker

_LOG = logging.getLogger(__name__)

# What does not change a job's results is not part of its identity.
_INCIDENTAL = ("outputs", "redo", "tracker", "device", "paper")


@dataclass
class Job:
    """One run of an experiment; its folder follows from the configuration alone."""

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
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    key = {"cpath": importlib.metadata.version("cpath")} | {
        str(name): value for name, value in resolved.items() if name not in _INCIDENTAL
    }
    name = f"{cfg.dataset.name}-{cfg.model.name}-{digest(key)[:8]}"
    return Path(str(cfg.outputs)) / "runs" / str(cfg.experiment.name) / slug(name)


def run_job(
    cfg: DictConfig,
    compute: Callable[[Job], Iterable[Row]],
    draw: Callable[[pd.DataFrame], Iterable[Drawing]],
) -> pd.DataFrame:
    """Runs ``compute`` unless the job is finished already; leaves table, figures, manifest; returns the table.

    The figures are drawn from the table alone, but for the job's pictures. A failed job leaves a manifest that
    says so.
    """
    check_trainer(cfg)
    folder = job_folder(cfg)
    if is_finished(folder) and not cfg.redo:
        _LOG.info("finished before: %s (redo=true does it again)", folder)
        return read_table(folder / "results.csv")
    tracker: Tracker = instantiate(cfg.tracker)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg, resolve=True))
    job = Job(cfg, folder, ArtifactStore(Path(cfg.outputs) / "artifacts"), tracker)
    started, failed = time.perf_counter(), True
    tracker.start(cfg, folder)
    try:
        frame = table(compute(job), cfg)
        write_table(frame, folder / "results.csv")
        save_drawings([*draw(read_table(folder / "results.csv")), *job.pictures], folder / "figures")
        tracker.results(frame, folder)
        failed = False
    except BaseException as error:
        write_json(folder / "manifest.json", _manifest(job, started, "failed", repr(error)))
        raise
    finally:
        tracker.finish(failed)
    write_json(folder / "manifest.json", _manifest(job, started, "finished"))
    _LOG.info("results: %s", folder)
    return read_table(folder / "results.csv")


def redraw(folder: Path, draw: Callable[[pd.DataFrame], Iterable[Drawing]]) -> None:
    """Makes the figures of a finished job again, from its table; its pictures stay as they are."""
    captions = folder / "figures" / "captions.json"
    before: dict[str, str] = json.loads(captions.read_text()) if captions.exists() else {}
    save_drawings(draw(read_table(folder / "results.csv")), folder / "figures")
    write_json(captions, {**before, **json.loads(captions.read_text())})


def is_finished(folder: Path) -> bool:
    """Whether the job of this folder ran to its end."""
    try:
        return bool(json.loads((folder / "manifest.json").read_text())["status"] == "finished")
    except (OSError, ValueError, KeyError):
        return False


def _manifest(job: Job, started: float, status: str, error: str | None = None) -> dict[str, Any]:
    packages = ("torch", "torchvision", "numpy", "hydra-core", "pytorch-lightning", "captum", "scipy")
    device = device_of(job.cfg)
    return {
        "status": status,
        **({} if error is None else {"error": error}),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 2),
        "seed": job.cfg.seed,
        "command": " ".join(Path(part).name if part == sys.argv[0] else part for part in sys.argv),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "git": git_revision(),
        "versions": {
            "cpath": importlib.metadata.version("cpath"),
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


def code_digest(*objects: object) -> str:
    """Short hash of the source of ``objects``: an artifact made by a user's own code depends on it."""
    import inspect

    sources = []
    for thing in objects:
        try:
            sources.append(inspect.getsource(thing))  # type: ignore[arg-type]
        except (OSError, TypeError):
            sources.append(repr(thing))
    return hashlib.sha256("".join(sources).encode()).hexdigest()[:12]


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
