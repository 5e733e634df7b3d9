"""Faithfulness: the part of the network's answer that the best units recover, and that is lost without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

import cpath
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.scoring import Scoring, Search, plan_searches
from experiments.engine.table import Measure, PseudoMethod, Row
from experiments.figures.faithfulness import faithfulness_figures
from experiments.metrics import pick

_ALWAYS = ("random", "active")


class Faithfulness(Experiment):
    """Measures sufficiency and necessity of the units that each method puts first, at several sizes."""

    title: ClassVar[str] = "Faithfulness: what the best units carry"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("sufficiency", "necessity", "cpr", "cmd", "necessity_cpr", "necessity_cmd"),
        *("units_kept", "no_rise", "answer"),
    )

    explains_with = ("method",)
    asks = ("unit", "baseline", "target")
    any_input = True

    keep: fields.Ascending[Annotated[fields.Number, Field(gt=0, le=100)]]
    images: fields.Images
    batch: fields.Batch
    max_batch: fields.MaxBatch
    keep_scores_gb: fields.Gigabytes

    def run(self, job: Job) -> Iterable[Row]:
        """Measure the methods on every input, with random units and the active ones beside them."""
        images = job.sample(self.images)
        methods = beside_controls(job)
        searches = plan_searches(methods, [100 - share for share in self.keep])
        scoring = Scoring.planned(job, images, searches, max_batch=self.max_batch, keep_gb=self.keep_scores_gb)
        found = PerImage()
        for batch in job.batches(images, self.batch, "measuring faithfulness"):
            with job.part(batch, "measures", *methods.values()) as part:
                if part.missing:
                    write_measures(part.folder, self._measure(job, batch, searches, scoring))
            found.add(batch, read_measures(part.folder))
        found.write(job.folder)
        return found.means()

    def _measure(
        self, job: Job, batch: Batch, searches: Sequence[Search], scoring: Scoring
    ) -> dict[Measure, Tensor]:
        """All numbers of the inputs of one batch."""
        columns: dict[str, dict[float, _Column]] = {}
        measures: dict[Measure, Tensor] = {}
        for search in searches:
            found = self._faithfulness(job, batch, search, scoring.scores(batch, search))
            of_method = columns.setdefault(search.name, {})
            for number, share in enumerate(self._shares(search)):
                # Scores that do not rank are one set of units, whatever the size asked for.
                of_method[share] = _Column.of(found, number if search.method.graded else 0)
            if not measures:  # the same for every method
                measures[Measure(PseudoMethod.NETWORK, "no_rise")] = 100 * found.undefined.double()
                measures[Measure(PseudoMethod.NETWORK, "answer")] = found.whole
                measures[Measure(PseudoMethod.NETWORK, "answer/empty")] = found.empty
        for name, by_share in columns.items():
            measures.update(_of_method(name, {share: by_share[share] for share in self.keep}))
        return measures

    def _shares(self, search: Search) -> list[float]:
        """Sizes that a search serves."""
        return [share for share in self.keep if 100 - share in search.sparsities]

    def _faithfulness(self, job: Job, batch: Batch, search: Search, scores: cpath.Scores) -> cpath.Faithfulness:
        target = job.question.arguments(batch)["target"]
        return cpath.faithfulness(
            job.model,
            batch.inputs,
            scores,
            target if callable(target) else None,
            keep=self._shares(search) if search.method.graded else [100],
            max_batch=self.max_batch,
        )

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the curves of the methods, and one number for each."""
        return faithfulness_figures(table)


def beside_controls(job: Job) -> dict[str, cpath.Method]:
    """Methods of a job with random units and the active subnetwork, which are always measured.

    Args:
        job: the job.

    Returns:
        Methods by name.
    """
    controls = {"random": cpath.methods.Random(seed=job.config.seed), "active": cpath.methods.Active()}
    return {**job.methods, **{name: controls[name] for name in _ALWAYS if name not in job.methods}}


@dataclass(frozen=True)
class _Column:
    """Numbers (B,) of one method at one size."""

    sufficiency: Tensor
    necessity: Tensor
    kept: Tensor

    @classmethod
    def of(cls, found: cpath.Faithfulness, number: int) -> _Column:
        return cls(found.sufficiency[:, number], found.necessity[:, number], found.kept[:, number])


def _of_method(name: str, columns: Mapping[float, _Column]) -> dict[Measure, Tensor]:
    """Numbers of a method from those at each size."""
    measures: dict[Measure, Tensor] = {}
    for share, column in columns.items():
        measures[Measure(name, "sufficiency", "keep", share)] = column.sufficiency
        measures[Measure(name, "necessity", "keep", share)] = column.necessity
        measures[Measure(name, "units_kept", "keep", share)] = column.kept
    for metric, prefix in (("sufficiency", ""), ("necessity", "necessity_")):
        curve = torch.stack([getattr(column, metric) for column in columns.values()], 1)
        measures[Measure(name, f"{prefix}cpr")] = curve.mean(1)
        measures[Measure(name, f"{prefix}cmd")] = (1 - curve).abs().mean(1)
    return measures
