"""Hydra finds its plugins here: the sweeper that resumes, and submitit launchers that survive a lost job."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher

try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
except ImportError:  # an optional part: the other launchers work without it
    BaseSubmititLauncher = Launcher


class ResumingSweeper(BasicSweeper):
    """All combinations of the values, as Hydra's own sweeper, without those that are finished already."""

    def sweep(self, arguments: list[str]) -> Any:
        """Launches what is not finished, writes the sweep's summary and results; exits with 1 if a job failed."""
        # Plugins are imported at every start: keep that quick.
        from experiments.engine.collect import collect_sweep
        from experiments.engine.sweep import run_sweep

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(
            [*self._parse_config(), *arguments]
        )
        batches = self.split_arguments(overrides, None)
        combinations = [list(combination) for batch in batches for combination in batch]
        folder, returned = run_sweep(self.config, combinations, loader, self.launcher, self.max_batch_size)
        if not collect_sweep(folder):
            sys.exit(1)
        return returned


class _PatientLauncher(BaseSubmititLauncher):  # type: ignore[misc]
    """Submits jobs and waits for each; one that is lost counts as failed and leaves the others alone."""

    def __init__(self, at_once: int | None = None, **params: Any) -> None:
        super().__init__(**params)
        self.at_once = at_once

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs and returns how each ended, in the same order."""
        executor = self._executor()
        calls = [
            (list(overrides), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
            for number, overrides in enumerate(job_overrides, initial_job_idx)
        ]
        jobs: list[Any] = []
        try:
            if self.at_once is None:
                jobs.extend(executor.map_array(self, *zip(*calls, strict=True)))
            else:
                for call in calls:
                    _wait_for_a_place(jobs, self.at_once)
                    jobs.append(executor.submit(self, *call))
            return [_ended(job, overrides) for job, overrides in zip(jobs, job_overrides, strict=True)]
        except BaseException:
            for job in jobs:  # stopped by hand: nothing is left behind in the queue
                job.cancel()
            raise

    def _executor(self) -> Any:
        import submitit

        own = {name: value for name, value in self.params.items() if value is not None}
        assert self.config is not None
        # The sweep's folder is known only now; %j is submitit's number of the job.
        folder = own.pop("submitit_folder", f"{self.config.hydra.sweep.dir}/.submitit/%j")
        made_with = {f"{self._EXECUTOR}_{name}": own.pop(name) for name in ("max_num_timeout",) if name in own}
        executor = submitit.AutoExecutor(folder=folder, cluster=self._EXECUTOR, **made_with)
        shared = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
        shared.add("stderr_to_stdout")
        executor.update_parameters(
            **{name if name in shared else f"{self._EXECUTOR}_{name}": value for name, value in own.items()}
        )
        return executor


class SlurmJobs(_PatientLauncher):
    """Jobs as one Slurm array."""

    _EXECUTOR = "slurm"


class LocalJobs(_PatientLauncher):
    """The same with processes of this machine, to try it without a cluster."""

    _EXECUTOR = "local"


def _wait_for_a_place(jobs: Sequence[Any], at_once: int) -> None:
    while sum(not job.done() for job in jobs) >= at_once:
        time.sleep(0.05)


def _ended(job: Any, overrides: Sequence[str]) -> JobReturn:
    try:
        result: JobReturn = job.result()
    except Exception as error:
        result = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
        result.return_value = RuntimeError(" ".join(_lines(str(error))) or repr(error))
    return result


def _lines(text: str) -> Iterator[str]:
    return (line.strip() for line in text.splitlines() if line.strip(" -\t"))
