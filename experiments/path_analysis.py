"""Path analysis (paper, section 3): overlap of pathways, dead neurons in them, responses that they preserve."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import cpath
from cpath.analysis import compare_pathways, response_preservation
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric, base_name
from experiments.engine.pathway_metric import Measured, values_of
from experiments.engine.question import explains_a_class, is_usual
from experiments.engine.scoring import Scoring, Search, plan_searches
from experiments.engine.table import Measure, PseudoMethod, Row
from experiments.figures.findings import path_analysis_findings
from experiments.figures.path_analysis import path_analysis_figures
from experiments.metrics import pick
from experiments.paper.greedy import AS_PUBLISHED
from experiments.paper.published import published_pathways

_FRACTIONS = ("dead_share", "site_dead_share")  # of the library; tables hold per cent


class PathAnalysis(Experiment):
    """Compares the pathways that several methods find on the same test images."""

    title: ClassVar[str] = "Critical pathways: overlap, dead neurons, responses"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *(
            "base_sparsity",
            "realised_sparsity",
            "empty_pathways",
            "dead_share",
            "jaccard",
            "self_overlap",
            "response_change",
            "class_kept",
            "residual",
        ),
        *("site_kept", "site_dead_share", "site_jaccard"),
    )

    explains_with = ("method", "metric")
    asks = ("unit", "baseline", "target")
    any_input = True

    sparsity: fields.Sparsities
    images: fields.Images
    batch: fields.Batch
    max_batch: fields.MaxBatch
    by_site: bool
    self_overlap: fields.Natural
    keep_scores_gb: fields.Gigabytes

    def run(self, job: Job) -> Iterable[Row]:
        """Find the pathways of every image by every method, and compare them."""
        images = job.sample(self.images)
        searches = plan_searches(job.methods, self.sparsity)
        scoring = Scoring.planned(job, images, searches, max_batch=self.max_batch, keep_gb=self.keep_scores_gb)
        found = PerImage()
        for batch in job.batches(images, self.batch, "comparing pathways"):
            with job.part(batch, "measures", *job.methods.values(), *job.metrics) as part:
                if part.missing:
                    write_measures(part.folder, self._measure(job, batch, searches, scoring))
            found.add(batch, read_measures(part.folder))
        found.write(job.folder)
        return [*found.means(), *_empty_pathways(found), *self._published(job)]

    def _published(self, job: Job) -> list[Row]:
        """The paper's numbers; none where the sites are not its ReLUs, or the question or the call is another."""
        if list(job.config.sites) != ["relu"] or not is_usual(job.config):
            return []
        released = AS_PUBLISHED.name
        alike = [name for name, method in job.methods.items() if name != released or method == AS_PUBLISHED]
        return published_pathways(job.config, alike, self.sparsity)

    def _measure(
        self, job: Job, batch: Batch, searches: Sequence[Search], scoring: Scoring
    ) -> dict[Measure, Tensor]:
        """All numbers of the images of one batch."""
        pathways: dict[float, dict[str, cpath.Pathway]] = {sparsity: {} for sparsity in self.sparsity}
        measures: dict[Measure, Tensor] = {}
        for search in searches:
            # Scores take four times the memory of masks: only one method's are there at a time.
            scores = scoring.scores(batch, search)
            for sparsity, pathway in search.pathways(scores):
                pathways[sparsity][search.name] = pathway
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said of the same method and images when they were scored
                self_overlap = self._self_overlap(job, batch, search, scores)
            for sparsity, values in self_overlap.items():
                measures[Measure(search.name, "self_overlap", "sparsity", sparsity)] = values
            for site, residual in (scores.residual or {}).items():
                measures[Measure(search.name, f"residual/{site}")] = residual
        with torch.no_grad(), cpath.observe(job.model, sites=job.config.sites) as seen:
            output = batch.inputs.clone().call(job.model)  # a model may change its input in place
        of_class = explains_a_class(job.config)
        any_pathway = next(iter(pathways[self.sparsity[0]].values()))
        measures[Measure(PseudoMethod.NETWORK, "base_sparsity")] = _base_sparsity(any_pathway, seen.activations)
        for sparsity, by_method in pathways.items():
            compared = compare_pathways(by_method, seen.activations, by_site=self.by_site)
            for (method, metric), values in compared.items():
                factor = 100 if base_name(metric) in _FRACTIONS else 1
                measures[Measure(method, metric, "sparsity", sparsity)] = factor * values
            for method, pathway in by_method.items():
                if of_class:
                    change, kept = response_preservation(job.model, batch.inputs, pathway, output)
                    measures[Measure(method, "response_change", "sparsity", sparsity)] = change
                    measures[Measure(method, "class_kept", "sparsity", sparsity)] = 100 * kept.double()
                measured = Measured(job.model, batch.inputs, seen.activations, output, pathway)
                for further in job.metrics:
                    at = Measure(method, further.metric.name, "sparsity", sparsity)
                    measures[at] = values_of(further, measured)
        return measures

    def _self_overlap(self, job: Job, batch: Batch, search: Search, scores: cpath.Scores) -> dict[float, Tensor]:
        """Overlap (B,) of the pathways with those of the same images changed by one rounding, by sparsity.

        It is NaN for images that come after the number that is asked for, and nothing if none is, or if the inputs
        are whole numbers, which have no roundings.
        """
        if not self.self_overlap or not batch.inputs.sources:
            return {}
        overlap = {sparsity: torch.full((len(batch),), torch.nan) for sparsity in search.sparsities}
        count = min(max(self.self_overlap - batch.where.start, 0), len(batch))
        if count:
            # The smallest change that every pixel feels: one unit in the last place.
            asked = job.question.arguments(batch.first(count))
            if scores.target is not None:
                asked["target"] = scores.target[:count]  # the nudged images may have another predicted class
            nudged = batch.inputs[:count].nudged()
            again = cpath.score(
                job.model,
                nudged,
                search.method,
                **asked,
                max_batch=self.max_batch,
            )
            pathways = zip(search.pathways(scores[:count]), search.pathways(again), strict=True)
            for (sparsity, pathway), (_, other) in pathways:
                overlap[sparsity][:count] = pathway.jaccard(other)
        return overlap

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw overlap, dead share and responses, for the network and site by site, and the published numbers."""
        return path_analysis_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return path_analysis_findings(table)


def _empty_pathways(found: PerImage) -> list[Row]:
    """Per cent of the images whose pathway has no neuron, and so no share of dead ones."""
    return [
        Row(
            measure.method,
            "empty_pathways",
            100 * float(np.isnan(shares).mean()),
            measure.x_name,
            measure.x,
            n=len(shares),
        )
        for measure, shares in found.values.items()
        if measure.metric == "dead_share"
    ]


def _base_sparsity(pathway: cpath.Pathway, activations: Mapping[str, Tensor]) -> Tensor:
    """(B,) per cent of the units that are dead, of those that a pathway has a mask for."""
    dead = pathway.dead(activations)
    return 100 * dead.sum(1).double() / dead.shape[1]
