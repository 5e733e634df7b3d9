"""Trackers: where a job's results go besides its folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import OmegaConf

from cpath.errors import InputError, unknown_name
from experiments.engine.config import Config


class Tracker(Protocol):
    """Follows one job from start to end."""

    def start(self, config: Config, folder: Path) -> None:
        """The job begins."""

    def results(self, frame: pd.DataFrame, folder: Path) -> None:
        """The tidy table and the folder with the figures."""

    def finish(self, failed: bool) -> None:
        """The job ends, whether or not it failed."""


class CSVTracker:
    """Nothing beside the job's folder, which holds the table and the figures anyway."""

    def start(self, config: Config, folder: Path) -> None:
        """Nothing to do."""

    def results(self, frame: pd.DataFrame, folder: Path) -> None:
        """Nothing to do."""

    def finish(self, failed: bool) -> None:
        """Nothing to do."""


class WandbTracker:
    """A wandb run per job; offline, so that nothing leaves the machine, unless ``mode=online`` is asked for."""

    def __init__(self, mode: str = "offline", project: str = "cpath", group: str | None = None) -> None:
        if mode not in ("offline", "online"):
            raise unknown_name("wandb mode", mode, ("offline", "online"))
        self.mode, self.project, self.group = mode, project, group
        self.names: set[str] = set()
        self.run: Any = None

    def start(self, config: Config, folder: Path) -> None:
        """Opens the run, with the resolved configuration."""
        self.names = {str(name) for name in (*config.method, *config.attribution)}
        base = Path(config.outputs).resolve() / "wandb"
        for variable in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            # wandb would write to the home folder otherwise.
            os.environ.setdefault(variable, str(base))
        base.mkdir(parents=True, exist_ok=True)
        if self.mode == "offline":
            os.environ.update(WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                "tracker=wandb needs the package wandb: pip install 'critical-pathways[experiments]'."
            ) from error
        self.run = wandb.init(
            project=self.project,
            group=self.group or _sweep(),
            job_type=config.experiment.name,
            name=folder.name,
            dir=str(base),
            mode=self.mode,
            config=OmegaConf.to_container(config.composed, resolve=True),
        )

    def results(self, frame: pd.DataFrame, folder: Path) -> None:
        """Logs the whole-network means as scalars and curves, the table and the figures; keeps the files.

        The methods that the table is about are noted in the run's configuration, to group runs by.
        """
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
        """``metric/method`` over the quantity that the table calls ``x_name``, where that is a number."""
        curves = scalars.assign(at=pd.to_numeric(scalars.x, errors="coerce")).dropna(subset=["at"])
        curves = curves.assign(key=curves.metric + "/" + curves.method)
        for key, x_name in curves[["key", "x_name"]].drop_duplicates().itertuples(index=False):
            self.run.define_metric(key, step_metric=x_name, summary="none")  # the summary has them already, as @x
        for (x_name, at), part in curves.groupby(["x_name", "at"]):
            self.run.log({x_name: at, **dict(zip(part.key, part.value.astype(float), strict=True))})

    def finish(self, failed: bool) -> None:
        """Closes the run, so that the next job of a sweep opens its own."""
        if self.run is not None:
            self.run.finish(exit_code=1 if failed else 0)
            self.run = None


def _sweep() -> str | None:
    """Name of the sweep that this job is part of, by which its runs are grouped."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name
