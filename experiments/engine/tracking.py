"""Trackers: where a job's results go besides its folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from cpath.errors import InputError, unknown_name
from experiments.engine.config import Config

_LOG = logging.getLogger(__name__)


class Tracker(Protocol):
    """Follows one job from start to end."""

    def start(self, config: Config, folder: Path) -> None:
        """Begin to follow a job.

        Args:
            config: of the job.
            folder: of the job.
        """

    def results(self, frame: pd.DataFrame, folder: Path) -> None:
        """Take the results of a job that ran to its end.

        Args:
            frame: its tidy table.
            folder: of the job, with the table, the configuration and the figures.
        """

    def finish(self, failed: bool) -> None:
        """End, also after a job that failed before it began to be followed.

        Args:
            failed: true if the job did not run to its end.
        """


class CSVTracker:
    """Tracker that keeps nothing beside the job's folder, which holds the table and the figures anyway."""

    def start(self, config: Config, folder: Path) -> None:
        """Do nothing.

        Args:
            config: not used.
            folder: not used.
        """

    def results(self, frame: pd.DataFrame, folder: Path) -> None:
        """Do nothing.

        Args:
            frame: not used.
            folder: not used.
        """

    def finish(self, failed: bool) -> None:
        """Do nothing.

        Args:
            failed: not used.
        """


_MODES = ("offline", "online", "disabled")
_OTHER_MODES = {"dryrun": "offline", "run": "online"}  # wandb's earlier names, which it still takes
_OF_ONE_RUN = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME")
"""Variables that are of one run: several jobs would be one run, or look like it."""
_FOLDERS = ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR")


class WandbTracker:
    """Tracker that keeps a wandb run for each job. Nothing leaves the machine unless ``online`` is asked for.

    What is None is taken from wandb's variables in the environment, like all else that they can set. When a command
    runs several jobs, the variables that name a single run are ignored.

    Args:
        mode: ``offline``, ``online`` or ``disabled``; None for ``WANDB_MODE``, or else ``offline``.
        project: None for ``WANDB_PROJECT``, or else ``cpath``.
        group: None for ``WANDB_RUN_GROUP``, or else the sweep's name.

    Raises:
        UnknownNameError: if there is no such mode.
    """

    def __init__(self, mode: str | None = None, project: str | None = None, group: str | None = None) -> None:
        named = mode or os.environ.get("WANDB_MODE") or "offline"
        self.mode = _OTHER_MODES.get(named, named)
        if self.mode not in _MODES:
            kind = "wandb mode" if mode else "wandb mode (of WANDB_MODE in the environment)"
            raise unknown_name(kind, named, _MODES)
        self.project = project or os.environ.get("WANDB_PROJECT") or "cpath"
        self.group = group or os.environ.get("WANDB_RUN_GROUP")
        self.names: set[str] = set()
        self.run: Any = None
        self._environment = ExitStack()

    def start(self, config: Config, folder: Path) -> None:
        """Open the run, with the resolved configuration.

        Args:
            config: of the job; names its methods, and holds the outputs folder, where an offline run is kept.
            folder: of the job; its name is the run's.

        Raises:
            InputError: if wandb is not installed.
        """
        if self.mode == "disabled":
            return
        self.names = {str(name) for name in (*config.method, *config.attribution)}
        base = Path(config.outputs).resolve() / "wandb"
        base.mkdir(parents=True, exist_ok=True)
        # wandb would write to the home folder otherwise.
        unless_set = dict.fromkeys(_FOLDERS, str(base))
        if self.mode == "offline":
            unless_set |= {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
        self._environment.enter_context(_environment(unless_set))
        if _of_several():
            _ignore(_OF_ONE_RUN)
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                "tracker=wandb needs the package wandb: pip install 'critical-pathways[experiments]'."
            ) from error
        self.run = wandb.init(
            project=self.project,
            group=self.group or _sweep(),
            job_type=os.environ.get("WANDB_JOB_TYPE") or config.experiment.name,
            name=os.environ.get("WANDB_NAME") or folder.name,
            dir=os.environ["WANDB_DIR"],
            mode=self.mode,
            config=OmegaConf.to_container(config.composed, resolve=True),
        )

    def results(self, frame: pd.DataFrame, folder: Path) -> None:
        """Log the whole-network means as scalars and curves, the table and the figures; keep the files.

        The methods that the table is about are noted in the run's configuration, to group runs by.

        Args:
            frame: tidy table of the job.
            folder: of the job, with the table, the configuration and the figures.
        """
        if self.run is None:
            return
        import wandb
        from PIL import Image

        scalars = frame[~frame.metric.str.startswith("site_")]
        names = (scalars.metric + "/" + scalars.method + "@" + scalars.x.astype(str)).str.strip("@")
        self.run.summary.update(dict(zip(names, scalars.value.astype(float), strict=True)))
        found = list(dict.fromkeys(frame.method))
        self.run.config.update({"methods": " ".join([name for name in found if name in self.names] or found)})
        self._log_curves(scalars)
        self.run.log({"results": wandb.Table(dataframe=frame.astype({"x": str}))})
        for file in sorted((folder / "figures").glob("*.png")):
            with Image.open(file) as picture:  # uint8: wandb saves floats in [0, 1] black
                pixels = np.asarray(picture.convert("RGB"), dtype=np.uint8)
            self.run.log({f"figures/{file.stem}": wandb.Image(pixels)})
        artifact = wandb.Artifact(f"results-{folder.name}", type="results")
        for name in ("results.csv", "config.yaml"):
            artifact.add_file(str(folder / name))
        self.run.log_artifact(artifact)

    def _log_curves(self, scalars: pd.DataFrame) -> None:
        """Log ``metric/method`` over the quantity that the table calls ``x_name``, where that is a number."""
        curves = scalars.assign(at=pd.to_numeric(scalars.x, errors="coerce")).dropna(subset=["at"])
        curves = curves.assign(key=curves.metric + "/" + curves.method)
        for key, x_name in curves[["key", "x_name"]].drop_duplicates().itertuples(index=False):
            self.run.define_metric(key, step_metric=x_name, summary="none")  # the summary has them already, as @x
        for (x_name, at), part in curves.groupby(["x_name", "at"]):
            self.run.log({x_name: at, **dict(zip(part.key, part.value.astype(float), strict=True))})

    def finish(self, failed: bool) -> None:
        """Close the run, so that the next job of a sweep opens its own.

        Args:
            failed: true if the job did not run to its end; the run is then marked as failed.
        """
        if self.run is not None:
            self.run.finish(exit_code=1 if failed else 0)
            self.run = None
        self._environment.close()


@contextmanager
def _environment(unless_set: Mapping[str, str]) -> Iterator[None]:
    """Set variables of the environment that the user did not set, for the length of a job: the next may differ."""
    ours = {name: value for name, value in unless_set.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _ignore(variables: Iterable[str]) -> None:
    """Take variables out of the environment, also for the jobs that follow in this process."""
    found = [name for name in variables if os.environ.pop(name, None) is not None]
    if found:
        _LOG.warning(
            "ignored: %s in the environment; every job of this command has a wandb run of its own", ", ".join(found)
        )


def _of_several() -> bool:
    """Tell if the command runs several jobs: a sweep, or the stages of a paper."""
    if not HydraConfig.initialized():
        return False
    hydra = HydraConfig.get()
    return hydra.mode == RunMode.MULTIRUN or hydra.runtime.choices.get("experiment") == "reproduce_paper"


def _sweep() -> str | None:
    """Name of the sweep that this job is part of, by which its runs are grouped."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name
