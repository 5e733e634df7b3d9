"""Sweeps over seeds without Hydra's command line, with launchers that do as they are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from cpath.errors import InputError
from experiments.engine import sweep, sweep_results
from experiments.engine.cache import write_json
from experiments.engine.config import parse
from experiments.engine.job import Job, run
from experiments.engine.table import Row
from experiments.path_analysis import PathAnalysis

Configure = Callable[..., DictConfig]


class Composing:
    """Stands for Hydra's loader: composes the configuration of a job."""

    def __init__(self, configure: Configure) -> None:
        self.configure = configure

    def load_sweep_config(self, config: DictConfig, overrides: list[str]) -> DictConfig:
        cfg = self.configure(*overrides)
        OmegaConf.set_struct(cfg, False)
        cfg.hydra = {}
        return cfg


class Launcher:
    """Runs jobs here, each in no time; as told, a job fails, or takes the launcher down with it."""

    def __init__(
        self, configure: Configure, fails: Sequence[str] = (), kills: Sequence[str] = (), together: int = 1
    ) -> None:
        self.configure, self.fails, self.kills, self.together = configure, fails, kills, together
        self.launched: list[list[str]] = []
        self.first: list[int] = []

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        self.launched.append([overrides[-1] for overrides in job_overrides])
        self.first.append(initial_job_idx)
        returned = []
        for start in range(0, len(job_overrides), self.together):
            running = job_overrides[start : start + self.together]
            lost = [overrides for overrides in running if overrides[-1] in self.kills]
            for overrides in running:
                folder = Job(parse(self.configure(*overrides))).folder
                if lost:
                    write_json(folder / "manifest.json", {"status": "running", "started": time.time_ns()})
                    continue
                returned.append(self._run(overrides))
            if lost:
                raise RuntimeError("a worker was killed")
        return returned

    def _run(self, overrides: list[str]) -> JobReturn:
        result = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
        seed = int(overrides[-1].partition("=")[2])

        def compute(experiment: PathAnalysis, job: Job) -> list[Row]:
            if overrides[-1] in self.fails:
                raise InputError("this one fails on purpose")
            return [Row("random", "class_kept", float(seed), "sparsity", 90.0, n=8)]

        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(PathAnalysis, "run", compute)
                patch.setattr(PathAnalysis, "figures", lambda experiment, table: [])  # of so few numbers
                run(self.configure(*overrides))
        except Exception as error:
            result.status = JobStatus.FAILED
            result.return_value = error
        return result


class Sweep:
    """Runs sweeps over seeds."""

    def __init__(self, configure: Configure) -> None:
        self.configure = configure

    def __call__(
        self,
        launcher: Launcher,
        seeds: Sequence[int] = (0, 1, 2, 3),
        common: Sequence[str] = (),
        at_most: int | None = None,
        hydra: Sequence[str] = (),
        folder: Path = Path("unnamed"),
    ) -> tuple[Path, int | str | None]:
        """Folder of the sweep, and the exit code."""
        config = OmegaConf.create({"hydra": {"sweep": {"dir": str(folder)}, "overrides": {"hydra": list(hydra)}}})
        jobs = [[*common, f"seed={seed}"] for seed in seeds]
        try:
            folder, _ = sweep.run_sweep(config, jobs, Composing(self.configure), launcher, at_most)
            assert folder == Path(config.hydra.sweep.dir)
            return folder, 0 if sweep_results.finish_sweep(folder) else 1
        except SystemExit as stop:
            return Path(config.hydra.sweep.dir), stop.code


def summary_of(folder: Path) -> pd.DataFrame:
    """The summary of a sweep."""
    return pd.read_csv(folder / "summary.csv")
