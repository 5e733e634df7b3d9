"""Hydra finds its plugins here: the sweeper that resumes, and submitit launchers that survive a lost job."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher
except ImportError:  # an optional part: the other launchers work without it
    BaseSubmititLauncher = Launcher


class ResumingSweeper(Sweeper):
    """All combinations of the values, as Hydra's own sweeper, without those that are finished already.

    Args:
        max_batch_size: most jobs that are launched at a time; None for all.
        params: values to sweep over by setting, as on the command line, which adds to them.
    """

    def __init__(self, max_batch_size: int | None = None, params: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.max_batch_size = max_batch_size
        self.params = dict(params or {})

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Make the launcher that the configuration names."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Launch what is not finished, write the sweep's summary and results; exit with 1 if a job failed."""
        # Plugins are imported at every start: keep that quick.
        from experiments.engine.sweep import run_sweep
        from experiments.engine.sweep_results import finish_sweep

        assert self.config is not None
        assert self.launcher is not None
        assert self.hydra_context is not None
        loader = self.hydra_context.config_loader
        settings = [*(f"{name}={values}" for name, values in self.params.items()), *arguments]
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(settings)
        folder, returned = run_sweep(
            self.config, combinations(overrides), loader, self.launcher, self.max_batch_size
        )
        if not finish_sweep(folder):
            sys.exit(1)
        return returned


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """Overrides of each job of a sweep.

    Args:
        overrides: as on the command line; of a setting that is there twice the last one counts.

    Returns:
        Every combination of the values.

    Raises:
        HydraException: for a range of values that are not named one by one.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        name = override.get_key_element()
        if not override.is_sweep_override():
            values[name] = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            values[name] = list(override.sweep_string_iterator())
        else:
            raise HydraException(f"{override.input_line}: a sweep needs its values one by one, as in {name}=1,2,3.")
    return [list(one) for one in product(*([f"{name}={value}" for value in values[name]] for name in values))]


class _PatientLauncher(BaseSubmititLauncher):  # type: ignore[misc]
    """Submits jobs and waits for each; one that is lost counts as failed and leaves the others alone."""

    cluster: str
    """Name of submitit's executor."""

    def __init__(self, at_once: int | None = None, **params: Any) -> None:
        super().__init__(**params)
        self.at_once = at_once

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the jobs; return how each ended, in the same order."""
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
        made_with = {f"{self.cluster}_{name}": own.pop(name) for name in ("max_num_timeout",) if name in own}
        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster, **made_with)
        shared = {"timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes", "name"}
        shared.add("stderr_to_stdout")
        executor.update_parameters(
            **{name if name in shared else f"{self.cluster}_{name}": value for name, value in own.items()}
        )
        return executor


class SlurmJobs(_PatientLauncher):
    """Jobs as one Slurm array."""

    cluster = "slurm"


class LocalJobs(_PatientLauncher):
    """The same with processes of this machine, to try it without a cluster."""

    cluster = "local"


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
