"""ROAR and KAR, a whole table: accuracy after retraining by attribution, share of pixels and seed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

import pandas as pd
from pydantic import Field

from cpath.errors import InputError
from cpath.evaluation import accuracy
from cpath.viz import Drawing, in_order
from experiments.engine import fields
from experiments.engine.config import default_of
from experiments.engine.devices import device_of
from experiments.engine.job import Job
from experiments.engine.metric_entry import Metric
from experiments.engine.table import Row, write_table
from experiments.figures.roar import roar_figures
from experiments.metrics import pick
from experiments.paper.published import has_published_schedule, published, published_rows
from experiments.roar.base import RoarExperiment
from experiments.roar.cells import Cell, History, Mode
from experiments.roar.curves import Curves, Plan, prediction_reach
from experiments.roar.workers import process_count, train_cells

_LOG = logging.getLogger(__name__)
_PUBLISHED = {"test_accuracy_percent": "roar_accuracy"}
CELLS = "cells.csv"


class RoarTable(RoarExperiment):
    """Retrains the network for every attribution, share of pixels and seed, and compares the attributions."""

    title: ClassVar[str] = "ROAR: retraining without the relevant pixels"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("test_accuracy", "untouched_accuracy", "within_interval_of_untouched"),
        *("roar_area", "kar_area", "roar_rank_agreement", "roar_accuracy", "kar_accuracy"),
        *("roar_difference", "kar_difference"),
    )

    percent: fields.Ascending[Annotated[fields.Number, Field(gt=0, le=100)]]
    keep: fields.Distinct[bool]
    seeds: fields.Distinct[fields.Seed]
    side_by_side: Annotated[fields.Count | Literal["auto"], fields.NOT_KEYED]

    def check(self, job: Job) -> None:
        """Refuse a seed that would change nothing, and what no retraining can be made with.

        Raises:
            InputError: if the job has a seed of its own or several processes with trainer=ddp, or as
                `RoarExperiment.check`.
        """
        if job.config.seed not in (default_of("seed"), self.base_seed):
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
        theirs = self._published(job)
        return [
            *control,
            *curves.areas(),
            *curves.agreements(theirs),
            *curves.rows(),
            *curves.comparisons(),
            *published_rows(theirs, _PUBLISHED, plan.methods),
        ]

    def _published(self, job: Job) -> pd.DataFrame:
        """The paper's curves; none with another fill, or where CIFAR-10's networks are trained in another way."""
        rows = published("roar", job.config)
        as_published = (rows.dataset != "cifar10").all() or has_published_schedule(job.config)
        return rows if as_published and self.fill == 0 else rows.iloc[:0]

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
