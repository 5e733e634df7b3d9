"""ROAR and KAR, a whole table: accuracy after retraining by attribution, share of pixels and seed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Annotated, ClassVar, Literal

import pandas as pd
from pydantic import AfterValidator, Field

from cpath.errors import InputError
from cpath.evaluation import accuracy
from cpath.viz import Drawing, in_order
from experiments.engine import fields
from experiments.engine.config import default_of
from experiments.engine.devices import device_of
from experiments.engine.job import Job
from experiments.engine.metric_entry import Metric
from experiments.engine.table import Row, write_table
from experiments.engine.training import pretrained_weights
from experiments.figures.findings import roar_findings
from experiments.figures.roar import roar_figures
from experiments.metrics import pick
from experiments.paper.published import has_published_schedule, published, published_rows
from experiments.roar.base import RoarExperiment
from experiments.roar.cells import Cell, History, Mode
from experiments.roar.curves import Curves, Plan, prediction_reach
from experiments.roar.ranks import Ranks
from experiments.roar.workers import Speed, process_count, train_cells

_LOG = logging.getLogger(__name__)
_PUBLISHED = {"test_accuracy_percent": "roar_accuracy"}
CELLS = "cells.csv"


BaseSeeds = Annotated[list[fields.Seed], Field(min_length=2), AfterValidator(fields.distinct)]
"""Seeds of several explained networks."""


class RoarTable(RoarExperiment):
    """Retrains the network for every attribution, share of pixels and seed, and compares the attributions."""

    title: ClassVar[str] = "ROAR: retraining without the relevant pixels"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("test_accuracy", "untouched_accuracy", "within_interval_of_untouched"),
        *("roar_area", "kar_area", "roar_rank_agreement", "roar_accuracy", "kar_accuracy"),
        *("roar_difference", "kar_difference"),
    )

    base_seed: fields.Seed | BaseSeeds
    percent: fields.Ascending[Annotated[fields.Number, Field(gt=0, le=100)]]
    keep: fields.Distinct[bool]
    seeds: fields.Distinct[fields.Seed]
    side_by_side: Annotated[fields.Count | Literal["auto"], fields.NOT_KEYED]
    stacked: Annotated[fields.Count, fields.NOT_KEYED]  # like the device, it changes nothing but rounding

    @property
    def bases(self) -> list[int]:
        """Seed of every network that is explained."""
        return [self.base_seed] if isinstance(self.base_seed, int) else self.base_seed

    @property
    def loses_every_pixel(self) -> bool:
        """True if the images of some cells keep no pixel."""
        return 100 in self.percent and False in self.keep

    def check(self, job: Job) -> None:
        """Refuse a seed that would change nothing, and what no retraining can be made with.

        Raises:
            InputError: if the job has a seed of its own or several processes with trainer=ddp, if several networks
                are to be explained and weights are given, or as `RoarExperiment.check`.
        """
        if job.config.seed not in (default_of("seed"), *self.bases):
            raise InputError(
                f"seed={job.config.seed} would change nothing in a table: experiment.seeds=[…] are those of the "
                "retrainings, over which its intervals are, and experiment.base_seed=… is that of the network that "
                "is explained."
            )
        process_count(job.config, self.side_by_side)
        super().check(job)
        if len(self.bases) > 1 and (job.config.checkpoint or pretrained_weights(job.config, job.data)):
            raise InputError(
                f"experiment.base_seed={self.bases} trains {len(self.bases)} networks to explain, but the weights "
                "of the only one are given (checkpoint=… or model.weights=…): leave out one of the two."
            )

    def run(self, job: Job) -> Iterable[Row]:
        """Train the explained networks, rank the pixels, and train all cells, each unless that was done before."""
        hits: dict[int, list[float]] = {}
        found: dict[int, dict[Cell, History]] = {}
        speeds: list[Speed] = []
        processes = process_count(job.config, self.side_by_side)
        for seed in self.bases:
            explained = self.explained(job, seed)
            hits[seed] = (100.0 * accuracy(explained.model, job.data.test, device_of(job.config)).double()).tolist()
            ranks = self.rank(explained)
            plan = self._plan(ranks)
            found[seed], speed = train_cells(self.retrainings(job, ranks), plan.cells(), processes, self.stacked)
            speeds.append(speed)
        speed = Speed.of(speeds)
        job.notes.update(
            cells=len(found) * len(plan.cells()), side_by_side=processes, stacked=self.stacked, speed=speed.noted
        )
        if speed.cells_trained:
            _LOG.info("trained %d cells, %.0f images/s", speed.cells_trained, speed.images_per_second)
        write_table(_cells_table(found), job.folder / CELLS)
        accuracies = [{cell: history.accuracy for cell, history in cells.items()} for cells in found.values()]
        curves = Curves(plan, accuracies)
        control = curves.control(hits)
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

    def _plan(self, ranks: Mapping[str, Ranks]) -> Plan:
        """The cells of each explained network."""
        modes = tuple(Mode(keep) for keep in self.keep)
        return Plan(modes, tuple(self.percent), tuple(self.seeds), tuple(in_order(ranks)))

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

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return roar_findings(table)


def _warn_of(control: list[Row]) -> None:
    """Warn if the untouched retrainings do not agree with the explained network."""
    rows = {row.metric: row for row in control}
    inside = rows.get("within_interval_of_untouched")
    if inside is not None and not inside.value:
        untouched = rows["untouched_accuracy"]
        explained = [f"{row.value:.2f}" for row in control if row.metric == "test_accuracy"]
        _LOG.warning(
            "control failed: the explained network has %s %% test accuracy, its retrainings on untouched images "
            "%.2f ± %.2f %%",
            ", ".join(explained),
            untouched.value,
            prediction_reach(untouched),
        )


def _cells_table(found: Mapping[int, Mapping[Cell, History]]) -> pd.DataFrame:
    """Table of all cells by the seed of the explained network, for paired comparisons and analyses of one's own.

    Retrainings on untouched images have no explained network: they are the same for each.
    """
    return pd.DataFrame(
        {
            **vars(cell),
            "base_seed": base_seed,
            "test_accuracy": history.accuracy,
            "val_accuracy": history.val_accuracy,
            "best_epoch": history.best_epoch,
        }
        for base_seed, cells in found.items()
        for cell, history in cells.items()
    )
