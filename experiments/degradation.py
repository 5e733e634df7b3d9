"""Input degradation (paper, section 4): remove the pixels that an attribution ranks last, or first, and measure."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

import cpath
from cpath.attribution import RANK_BY
from cpath.evaluation import NoisyLinear, area_under_curve, degrade
from cpath.evaluation.removal import Fill
from cpath.response import check_logits, predicted
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.provenance import read_manifest
from experiments.engine.settings import Settings
from experiments.engine.stopwatch import Stopwatch
from experiments.engine.table import Measure, Row, rows_of_means
from experiments.figures.degradation import degradation_figures
from experiments.figures.findings import degradation_findings
from experiments.metrics import pick
from experiments.paper.published import published, published_rows
from experiments.rank_agreement import agreement_rows

_CRITERIA = {"least": "lerf", "most": "morf"}  # by order of removal
_PAPERS_RANGE = 10.0  # per cent: where the curves of the paper's figure end
_SECONDS = "seconds_by_step"  # in the manifest of a part

Curves = Mapping[Measure, Sequence[float]]
"""Change of the probability of every image, by method, criterion and per cent."""


class Road(Settings):
    """A second fill, noisy linear imputation: ``experiment.road.…``."""

    images: fields.Natural
    percent: fields.Percents
    noise: fields.NonNegative


@dataclass(frozen=True)
class _Criterion:
    """An order of removal with a fill, and the images and shares that it is measured on."""

    order: str
    fill_name: str
    fill: Fill
    percent: list[float]
    images: int | None
    """The first ones only; None for all."""

    @property
    def name(self) -> str:
        """Name of the order that it puts the methods into: ``lerf``, ``lerf_road``, …."""
        return self.named(_CRITERIA[self.order])

    @property
    def change(self) -> str:
        """Metric of its curve."""
        return self.named(f"{_CRITERIA[self.order]}_change")

    @property
    def area(self) -> str:
        """Metric of the area under its curve."""
        return self.named(f"{_CRITERIA[self.order]}_area")

    def named(self, name: str) -> str:
        """``name`` with the fill, unless that is the mean colour."""
        return name if self.fill_name == "mean" else f"{name}_{self.fill_name}"


class Degradation(Experiment):
    """Compares attributions by what removing the pixels that they rank last, or first, does to the response."""

    title: ClassVar[str] = "Input degradation: are the removed pixels the relevant ones?"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("lerf_change", "morf_change", "lerf_area", "morf_area"),
        *("lerf_change_road", "morf_change_road", "lerf_area_road", "morf_area_road"),
        "rank_agreement",
    )
    explains_with = ("attribution",)

    percent: fields.Percents
    images: fields.Images
    batch: fields.Batch
    max_batch: fields.MaxBatch
    orders: Annotated[
        list[Annotated[str, fields.one_of(_CRITERIA)]], Field(min_length=1), AfterValidator(fields.distinct)
    ]
    rank_by: Annotated[str, fields.one_of(RANK_BY)]
    fill: fields.Number
    road: Road

    def run(self, job: Job) -> Iterable[Row]:
        """Degrade every image by every attribution and criterion, and compare the attributions."""
        images = job.sample(self.images)
        criteria = self._criteria(job.config.seed)
        found, seconds = PerImage(), Counter[str]()
        for batch in job.batches(images, self.batch, "removing pixels"):
            with job.part(batch, "measures", *job.attributions.values()) as part:
                if part.missing:
                    watch = Stopwatch(images.device)
                    write_measures(part.folder, self._measure(job, batch, criteria, watch))
                    part.provenance.notes[_SECONDS] = dict(watch.seconds)
            found.add(batch, read_measures(part.folder))
            seconds.update(read_manifest(part.folder)[_SECONDS])
        job.notes["time"] = _time_spent(seconds)
        found.write(job.folder)
        methods = list(job.attributions)
        return [
            *rows_of_means(_areas(found.values, methods, criteria)),
            *_agreements(found.values, methods, criteria),
            *found.means(),
            *self._published(job),
        ]

    def _published(self, job: Job) -> list[Row]:
        """The paper's curves; none where pixels are filled with anything but the mean colour."""
        if self.fill != 0:
            return []
        metrics = {"absolute_fractional_output_change": "lerf_change"}
        return published_rows(published("lerf", job.config), metrics, job.attributions)

    def _criteria(self, seed: int) -> list[_Criterion]:
        """Every fill with every order."""
        found = [_Criterion(order, "mean", self.fill, self.percent, None) for order in self.orders]
        if self.road.images:
            noisy = NoisyLinear(noise=self.road.noise, seed=seed)
            found += [
                _Criterion(order, "road", noisy, self.road.percent, self.road.images) for order in self.orders
            ]
        return found

    def _measure(
        self, job: Job, batch: Batch, criteria: Sequence[_Criterion], watch: Stopwatch
    ) -> dict[Measure, Tensor]:
        """The change of every image of a batch; one map of each method serves all criteria."""
        with torch.no_grad():
            output = job.model(batch.images.clone())  # it may change its input in place
        target = predicted(check_logits(output, len(batch)))
        measures: dict[Measure, Tensor] = {}
        for method, attribution in job.attributions.items():
            with watch.measuring("maps"):
                maps = cpath.attribute(
                    job.model,
                    batch.images,
                    attribution,
                    target,
                    sites=job.config.sites,
                    max_batch=self.max_batch,
                )
            for criterion in criteria:
                change = self._change(job, batch, maps, target, criterion, watch)
                for place, percent in enumerate(criterion.percent):
                    measures[Measure(method, criterion.change, "percent_removed", percent)] = change[:, place]
        return measures

    def _change(
        self, job: Job, batch: Batch, maps: Tensor, target: Tensor, criterion: _Criterion, watch: Stopwatch
    ) -> Tensor:
        """(B, percent) change of the probability; NaN for images that the criterion leaves out."""
        change = torch.full((len(batch), len(criterion.percent)), torch.nan, dtype=torch.float64)
        count = len(batch)
        if criterion.images is not None:
            count = max(0, min(count, criterion.images - batch.where.start))
        if count == 0:
            return change
        step = criterion.fill_name
        with watch.measuring(step), watch.measuring_forward(job.model, f"{step}_forward"):
            found = degrade(
                job.model,
                batch.images[:count],
                maps[:count],
                target[:count],
                order=criterion.order,
                percent=criterion.percent,
                fill=criterion.fill,
                rank_by=self.rank_by,
                seed=job.config.seed,
                max_batch=self.max_batch,
            )
        change[:count] = found.change.cpu()
        return change

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the curves, the areas under them, and the agreement of the criteria."""
        return degradation_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return degradation_findings(table)


def _time_spent(seconds: Mapping[str, float]) -> dict[str, float]:
    """Seconds by step, and the share of the forward passes in the time of each fill, in per cent."""
    shares = {
        f"percent_in_forward_passes_{fill}": round(100 * seconds[f"{fill}_forward"] / seconds[fill], 2)
        for fill in ("mean", "road")
        if seconds.get(fill)
    }
    return {**{f"seconds_{step}": round(spent, 2) for step, spent in seconds.items()}, **shares}


def _ranges(percent: Sequence[float]) -> Iterator[list[float]]:
    """The shares up to 10 %, as in the paper's figure, and all."""
    first = [share for share in percent if share <= _PAPERS_RANGE]
    if 1 < len(first) < len(percent):
        yield first
    yield list(percent)


def _area(curves: Curves, method: str, metric: str, percent: Sequence[float]) -> np.ndarray:
    """(images,) area under the curves of a method, from 0 to the last share."""
    columns = [curves[Measure(method, metric, "percent_removed", share)] for share in percent]
    return area_under_curve(percent, np.array(columns).T)


def _areas(
    curves: Curves, methods: Sequence[str], criteria: Sequence[_Criterion]
) -> dict[Measure, Sequence[float]]:
    """Area under each curve, image by image, for each range of shares."""
    return {
        Measure(method, criterion.area, "up_to_percent", percent[-1]): _area(
            curves, method, criterion.change, percent
        ).tolist()
        for criterion in criteria
        for percent in _ranges(criterion.percent)
        for method in methods
    }


def _agreements(curves: Curves, methods: Sequence[str], criteria: Sequence[_Criterion]) -> list[Row]:
    """Agreement of each two criteria on the order of the methods, on images and at shares that both have."""
    rows: list[Row] = []
    for one, other in itertools.combinations(criteria, 2):
        shared = [share for share in one.percent if share in other.percent]
        for percent in _ranges(shared) if shared else ():
            first, second = (
                {method: _area(curves, method, criterion.change, percent) for method in methods}
                for criterion in (one, other)
            )
            rows += agreement_rows((one.name, other.name), (first, second), percent[-1])
    return rows
