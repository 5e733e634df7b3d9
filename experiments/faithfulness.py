"""Faithfulness: the part of the network's answer that the best units recover, and that is lost without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pandas as pd
import torch
from pydantic import Field
from torch import Tensor, nn

import cpath
from cpath.evaluation import COPIES
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.scoring import Scoring, Search, plan_searches
from experiments.engine.table import Measure, PseudoMethod, Row
from experiments.faithfulness_controls import OTHER, RANDOM, Controls, controlled, random_network
from experiments.figures.faithfulness import faithfulness_figures
from experiments.figures.findings import faithfulness_findings
from experiments.metrics import pick

_ALWAYS = ("random", "active")
TRANSFER = "transfer"
"""Mean over all copies."""


class Faithfulness(Experiment):
    """Measures sufficiency and necessity of the units that each method puts first, at several sizes."""

    title: ClassVar[str] = "Faithfulness: what the best units carry"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("sufficiency", "necessity", "cpr", "cmd", "necessity_cpr", "necessity_cmd"),
        *("units_kept", "no_rise", "answer", "cmd_rise"),
    )

    explains_with = ("method",)
    asks = ("unit", "baseline", "target")
    any_input = True

    keep: fields.Ascending[Annotated[fields.Number, Field(gt=0, le=100)]]
    images: fields.Images
    batch: fields.Batch
    max_batch: fields.MaxBatch
    keep_scores_gb: fields.Gigabytes
    controls: Controls

    def run(self, job: Job) -> Iterable[Row]:
        """Measure the methods on every input, with random units and the active ones beside them."""
        images = job.sample(self.images)
        methods = beside_controls(job)
        searches = plan_searches(methods, [100 - share for share in self.keep])
        scoring = Scoring.planned(job, images, searches, max_batch=self.max_batch, keep_gb=self.keep_scores_gb)
        controls = self.controls.names(job)
        network = random_network(job) if RANDOM in controls else job.model
        found = PerImage()
        for batch in job.batches(images, self.batch, "measuring faithfulness"):
            with job.part(batch, "measures", *methods.values()) as part:
                if part.missing:
                    measures = self._measure(job, batch, searches, scoring)
                    measures.update(self._control(job, batch, searches, scoring, controls, network, measures))
                    write_measures(part.folder, measures)
            found.add(batch, read_measures(part.folder))
        found.write(job.folder)
        return found.means()

    def _measure(
        self, job: Job, batch: Batch, searches: Sequence[Search], scoring: Scoring
    ) -> dict[Measure, Tensor]:
        """Numbers of the inputs of one batch, without the controls."""
        columns: dict[str, dict[float, _Column]] = {}
        measures: dict[Measure, Tensor] = {}
        target = job.question.arguments(batch)["target"]
        for search in searches:
            found = cpath.faithfulness(
                job.model,
                batch.inputs,
                scoring.scores(batch, search),
                target if callable(target) else None,
                keep=self._sizes(search),
                max_batch=self.max_batch,
            )
            of_method = columns.setdefault(search.name, {})
            for share, number in self._shares(search):
                of_method[share] = _Column.of(found, number)
            if not measures:  # the same for every method
                measures[Measure(PseudoMethod.NETWORK, "no_rise")] = 100 * found.undefined.double()
                measures[Measure(PseudoMethod.NETWORK, "answer")] = found.whole
                measures[Measure(PseudoMethod.NETWORK, "answer/empty")] = found.empty
        for name, by_share in columns.items():
            measures.update(_of_method(name, {share: by_share[share] for share in self.keep}))
        return measures

    def _control(
        self,
        job: Job,
        batch: Batch,
        searches: Sequence[Search],
        scoring: Scoring,
        names: Sequence[str],
        network: nn.Module,
        own: Mapping[Measure, Tensor],
    ) -> dict[Measure, Tensor]:
        """CMD (B,) of the controls of every method, NaN for the inputs that they are not measured on."""
        some = self.controls.on(batch)
        distances: dict[str, dict[str, list[Tensor]]] = {}
        for search in searches:
            of_method = distances.setdefault(search.name, {name: [] for name in names})
            if some is None or not names:
                continue
            scores = scoring.scores(batch, search)[: len(some)]
            sizes = self._sizes(search)
            for name, found in controlled(job, some, search.method, scores, names, sizes, network, self.max_batch):
                distance = (1 - found.sufficiency).abs()
                of_method[name] += [distance[:, number] for _, number in self._shares(search)]
        measures: dict[Measure, Tensor] = {}
        for method, by_control in distances.items():
            cmd = {name: _padded(columns, len(batch)) for name, columns in by_control.items()}
            copies = [values for name, values in cmd.items() if name in COPIES]
            if copies:
                cmd[TRANSFER] = torch.stack(copies).nanmean(0)
            for name, values in cmd.items():
                measures[Measure(method, f"cmd/{name}")] = values
                if name in (TRANSFER, OTHER):
                    measures[Measure(method, f"cmd_rise/{name}")] = values - own[Measure(method, "cmd")].to(values)
        return measures

    def _sizes(self, search: Search) -> list[float]:
        """Sizes at which a search is measured; scores that do not rank are one set of units, whatever the size."""
        return [share for share, _ in self._shares(search)] if search.method.graded else [100]

    def _shares(self, search: Search) -> list[tuple[float, int]]:
        """Sizes that a search serves, each with its place among those at which it is measured."""
        shares = [share for share in self.keep if 100 - share in search.sparsities]
        return [(share, number if search.method.graded else 0) for number, share in enumerate(shares)]

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the curves of the methods, and one number for each."""
        return faithfulness_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return faithfulness_findings(table)


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


def _padded(columns: Sequence[Tensor], count: int) -> Tensor:
    """Mean over the sizes (count,), NaN for inputs behind those that were measured."""
    found = torch.full((count,), torch.nan, dtype=torch.float64, device="cpu")
    if columns:
        found[: len(columns[0])] = torch.stack(list(columns)).mean(0).cpu().double()
    return found


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
