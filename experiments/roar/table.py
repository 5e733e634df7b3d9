"""ROAR and KAR, a whole table: accuracy after retraining by attribution, share of pixels and seed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import pandas as pd
from pydantic import Field, field_validator

from cpath.errors import InputError
from cpath.evaluation import accuracy
from cpath.viz import Drawing, in_order
from experiments.engine import fields
from experiments.engine.devices import device_of
from experiments.engine.job import Job
from experiments.engine.metrics import Metric
from experiments.engine.table import Row, write_table
from experiments.figures.roar import roar_figures
from experiments.metrics import pick
from experiments.paper.published import published, published_rows
from experiments.roar.base import RoarExperiment
from experiments.roar.cells import Cell, History, Mode
from experiments.roar.curves import Curves, Plan, prediction_reach
from experiments.roar.workers import process_count, train_cells

_LOG = logging.getLogger(__name__)
_PUBLISHED = {"test_accuracy_percent": "roar_accuracy"}
_DEFAULT_SEED = 0  # that of conf/config.yaml
CELLS = "cells.csv"


class RoarTable(RoarExperiment):
    """Retrains the network for every attribution, share of pixels and seed, and compares the attributions."""

    title: ClassVar[str] = "ROAR: retraining without the relevant pixels"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("test_accuracy", "untouched_accuracy", "within_interval_of_untouched"),
        *("roar_area", "kar_area", "roar_rank_agreement", "roar_accuracy", "kar_accuracy"),
        *("roar_difference", "kar_difference"),
    )

    percent: Annotated[list[Annotated[fields.Number, Field(gt=0, le=100)]], Field(min_length=1)]
    keep: Annotated[list[bool], Field(min_length=1)]
    seeds: Annotated[list[fields.Seed], Field(min_length=1)]
    side_by_side: Annotated[fields.Count | Literal["auto"], fields.NOT_KEYED]

    @field_validator("percent", "keep", "seeds", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]

    @field_validator("percent")
    @classmethod
    def _ascends(cls, percent: list[float]) -> list[float]:
        if percent != sorted(set(percent)):
            raise ValueError("must ascend")
        return percent

    @field_validator("keep", "seeds")
    @classmethod
    def _differ(cls, values: list[Any]) -> list[Any]:
        if len(set(values)) != len(values):
            raise ValueError("must be different values")
        return values

    def check(self, job: Job) -> None:
        """Refuse a seed that would change nothing, and what no retraining can be made with.

        Raises:
            InputError: if the job has a seed of its own or several processes with trainer=ddp, or as
                `RoarExperiment.check`.
        """
        if job.config.seed not in (_DEFAULT_SEED, self.base_seed):
            raise InputError(
                f"seed={job.config.seed} would change nothing in a table: experiment.seeds=[…] are those of the "
                "retrainings, over which its intervals are, and experiment.base_seed=… is that of the network that "
                "is explained."
            )
        process_count(job.config, self.side_by_side)
        super().check(job)

    def run(self, job: Job) -> Iterable[Row]:
        """Train the explained network, rank the pixels, and train all cells, each unless that was done before."""
        explained = self.explained(job)
        hits = 100.0 * accuracy(explained.model, job.data.test, device_of(job.config)).double()
        ranks = self.rank(explained)
        plan = Plan(
            tuple(Mode(keep) for keep in self.keep), tuple(self.percent), tuple(self.seeds), tuple(in_order(ranks))
        )
        processes = process_count(job.config, self.side_by_side)
        found, speed = train_cells(self.retrainings(job, ranks), plan.cells(), processes)
        job.notes.update(cells=len(found), side_by_side=processes, speed=speed)
        if speed["cells_trained"]:
            _LOG.info("trained %(cells_trained)d cells, %(training_images_per_second).0f images/s", speed)
        write_table(_cells_table(found), job.folder / CELLS)
        curves = Curves(plan, {cell: history.accuracy for cell, history in found.items()})
        control = curves.control(hits.tolist())
        _warn_of(control)
        return [
            *control,
            *curves.areas(),
            *curves.agreements(published("roar", job.config)),
            *curves.rows(),
            *curves.comparisons(),
            *published_rows("roar", job.config, _PUBLISHED, plan.methods),
        ]

    def heading(self, table: pd.DataFrame) -> str:
        """Heading in a report, which says whether pixels were removed, or kept alone, or both."""
        if not (table.metric == "kar_accuracy").any():
            return self.title
        if not (table.metric == "roar_accuracy").any():
            return "KAR: retraining on the relevant pixels alone"
        return "ROAR and KAR: retraining without the relevant pixels, and on them alone"

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the curves and areas, every method against every other, the agreement of orders, and the published
        curves.
        """
        return roar_figures(table)


def _warn_of(control: list[Row]) -> None:
    """Warn if the untouched retrainings do not agree with the explained network."""
    rows = {row.metric: row for row in control}
    inside = rows.get("within_interval_of_untouched")
    if inside is not None and not inside.value:
        untouched = rows["untouched_accuracy"]
        _LOG.warning(
            "control failed: the explained network has %.2f %% test accuracy, its retrainings on untouched images "
            "%.2f ± %.2f %%",
            rows["test_accuracy"].value,
            untouched.value,
            prediction_reach(untouched),
        )


def _cells_table(found: Mapping[Cell, History]) -> pd.DataFrame:
    """Table of all cells, for analyses of one's own."""
    return pd.DataFrame(
        {
            **vars(cell),
            "test_accuracy": history.accuracy,
            "val_accuracy": history.val_accuracy,
            "best_epoch": history.best_epoch,
        }
        for cell, history in found.items()
    )
