"""ROAR and KAR, one cell: one retraining without the pixels that an attribution ranks first, or on them alone.

Cells that a table trained are found again, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import pandas as pd
from pydantic import BeforeValidator, Field

from cpath.errors import InputError
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.job import Job
from experiments.engine.metric_entry import Metric
from experiments.engine.table import Row
from experiments.engine.training import epoch_rows
from experiments.figures.roar import roar_cell_figures
from experiments.metrics import pick
from experiments.roar.base import RoarExperiment
from experiments.roar.cells import UNTOUCHED, Cell, History, Mode
from experiments.roar.ranks import Ranks


def _one(keep: Any) -> Any:
    if not isinstance(keep, bool):
        raise ValueError(
            "must be false (ROAR) or true (KAR), as one cell removes pixels or keeps them; both are a sweep "
            "(-m keep=false,true), or experiment=roar_table in one job"
        )
    return keep


class RoarCell(RoarExperiment):
    """Retrains the network once."""

    title: ClassVar[str] = "ROAR: one retraining"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("roar_accuracy", "kar_accuracy", "roar_val_accuracy", "kar_val_accuracy"),
        *("untouched_accuracy", "val_accuracy", "loss", "val_loss"),
    )

    base_seed: fields.Seed
    percent: Annotated[fields.Number, Field(ge=0, le=100)]
    keep: Annotated[bool, BeforeValidator(_one)]

    @property
    def loses_every_pixel(self) -> bool:
        """True if the images keep no pixel."""
        return self.percent == 100 and not self.keep

    def check(self, job: Job) -> None:
        """Refuse more than one attribution.

        Raises:
            InputError: if several attributions are named, or as `RoarExperiment.check`.
        """
        super().check(job)
        if self.percent > 0 and len(job.attributions) > 1:
            raise InputError(
                f"one cell has one attribution, not {len(job.attributions)}: attribution=gradcam, a sweep over "
                "several (-m attribution=gradcam,random), or experiment=roar_table for all of them in one job."
            )

    def run(self, job: Job) -> Iterable[Row]:
        """Train the network that is explained, rank the pixels, and retrain; each unless that was done before."""
        ranks: dict[str, Ranks] = {}
        name = UNTOUCHED
        if self.percent > 0:
            ranks = self.rank(self.explained(job, self.base_seed))
            (name,) = ranks
        cell = Cell(name, self.percent, self.keep, job.config.seed)
        history = self.retrainings(job, ranks).history(cell)
        job.notes["best_epoch"] = history.best_epoch
        return [*_rows(cell, history), *epoch_rows(name, vars(history))]

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw loss and accuracy by epoch."""
        return roar_cell_figures(table)


def _rows(cell: Cell, history: History) -> list[Row]:
    """Rows of a cell as a table has them: untouched images are no place of KAR's curve."""
    if cell.percent == 0:
        return [
            Row(UNTOUCHED, "untouched_accuracy", history.accuracy),
            Row(UNTOUCHED, "val_accuracy", history.val_accuracy),
        ]
    mode = Mode(cell.keep)
    return [
        Row(cell.attribution, f"{mode.name}_accuracy", history.accuracy, mode.x_name, cell.percent),
        Row(cell.attribution, f"{mode.name}_val_accuracy", history.val_accuracy, mode.x_name, cell.percent),
    ]
