"""Local linearity: how far an image can move before the restricted network stops being affine, by sparsity."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import pandas as pd
import torch
from torch import Tensor, nn

import cpath
from cpath.analysis import affine_radius, check_piecewise_affine
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.scoring import Search, plan_searches
from experiments.engine.table import Measure, Row
from experiments.figures.findings import linearity_findings
from experiments.figures.linearity import linearity_figures
from experiments.metrics import pick


class Linearity(Experiment):
    """Measures the ball around each image in which the network restricted to a pathway is affine."""

    title: ClassVar[str] = "Local linearity of the restricted networks"
    metrics: ClassVar[tuple[Metric, ...]] = pick("affine_radius", "affine_everywhere")

    asks = ("unit", "baseline", "target")

    sparsity: fields.Sparsities
    images: fields.Images
    batch: fields.Batch
    neurons: fields.Count | None

    def check(self, job: Job) -> None:
        """Refuse a network that is affine nowhere, and sites that have no pre-activation.

        Raises:
            SiteError: if the network calls a curved function, such as GELU, or a site is no activation.
        """
        with cpath.sites.evaluating(job.untrained):
            check_piecewise_affine(job.untrained, torch.zeros(1, *job.data.shape), job.config.sites)

    def run(self, job: Job) -> Iterable[Row]:
        """Measure the pathways of every image by every method."""
        images = job.sample(self.images)
        searches = plan_searches(job.methods, self.sparsity)
        # The nearest pre-activation is a small difference of larger numbers.
        precise = copy.deepcopy(job.model).double()
        found = PerImage()
        for batch in job.batches(images, self.batch, "measuring linear regions"):
            with job.part(batch, "measures", *job.methods.values()) as part:
                if part.missing:
                    write_measures(part.folder, self._measure(job, batch, searches, precise))
            found.add(batch, read_measures(part.folder))
        found.write(job.folder)
        return found.means()

    def _measure(
        self, job: Job, batch: Batch, searches: Sequence[Search], precise: nn.Module
    ) -> dict[Measure, Tensor]:
        """Radii of the images of one batch; ``precise`` is the model in float64."""
        measures: dict[Measure, Tensor] = {}
        for search in searches:
            scores = cpath.score(
                job.model,
                batch.images,
                search.method,
                **job.question.arguments(batch),
            )
            for sparsity, pathway in search.pathways(scores):
                radius = affine_radius(precise, batch.images.double(), pathway, neurons=self.neurons)
                # A ball without an end is counted, and left out of the mean.
                unbounded = radius.isinf()
                bounded = radius.masked_fill(unbounded, float("nan"))
                measures[Measure(search.name, "affine_radius", "sparsity", sparsity)] = bounded
                measures[Measure(search.name, "affine_everywhere", "sparsity", sparsity)] = 100 * unbounded.double()
        return measures

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the radius against sparsity."""
        return linearity_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return linearity_findings(table)
