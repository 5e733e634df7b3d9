"""Node rules of `neuron_intgrad` compared: how complete they are, and whether they find the exact pathway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import pandas as pd
import torch
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor

import cpath
from cpath.methods import NeuronIntGrad
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.table import Measure, Row
from experiments.figures.findings import quadrature_findings
from experiments.figures.quadrature import quadrature_figures
from experiments.metrics import pick


def _as_pair(value: Any) -> tuple[str, int]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be [rule, nodes], such as [midpoint, 9]")
    return tuple(value)


def _usable(rule: tuple[str, int]) -> tuple[str, int]:
    NeuronIntGrad(rule=rule[0], nodes=rule[1])  # raises for an unknown rule, and for too few nodes
    return rule


Rule = Annotated[tuple[str, fields.Count], BeforeValidator(_as_pair), AfterValidator(_usable)]
"""Name of a quadrature rule, and its number of nodes."""


class Quadrature(Experiment):
    """Compares node rules of NeuronIntGrad with a fine reference."""

    title: ClassVar[str] = "Node rules of NeuronIntGrad"
    metrics: ClassVar[tuple[Metric, ...]] = pick("residual", "jaccard_with_reference")

    explains_with = ()  # it compares one method with itself
    asks = ("unit", "baseline", "target")

    sparsity: fields.Sparsities
    images: fields.Images
    batch: fields.Batch
    reference: Rule
    rules: Annotated[list[Rule], Field(min_length=1), AfterValidator(fields.distinct)]

    def run(self, job: Job) -> Iterable[Row]:
        """Score every image by every rule, and compare the pathways with those of the reference."""
        images = job.sample(self.images)
        reference, *rules = (NeuronIntGrad(rule=rule, nodes=nodes) for rule, nodes in (self.reference, *self.rules))
        if reference not in rules:
            rules.append(reference)
        found = PerImage()
        for batch in job.batches(images, self.batch, "comparing node rules"):
            with job.part(batch, "measures", *rules) as part:
                if part.missing:
                    write_measures(part.folder, self._measure(job, batch, rules, reference))
            found.add(batch, read_measures(part.folder))
        found.write(job.folder)
        return found.means()

    def _measure(
        self, job: Job, batch: Batch, rules: Sequence[NeuronIntGrad], reference: NeuronIntGrad
    ) -> dict[Measure, Tensor]:
        """Residual and overlap of the images of one batch."""
        exact = cpath.score(job.model, batch.images, reference, **job.question.arguments(batch))
        measures: dict[Measure, Tensor] = {}
        for rule in rules:
            scores = exact
            if rule != reference:
                scores = cpath.score(
                    job.model,
                    batch.images,
                    rule,
                    **job.question.arguments(batch),
                )
            assert scores.residual is not None
            name = f"{rule.rule}, {rule.nodes} nodes"
            # The mean over sites of each image; a site that the response does not depend on has none.
            residual = torch.stack(list(scores.residual.values()), 1).double().nanmean(1)
            measures[Measure(name, "residual")] = residual
            for sparsity in self.sparsity:
                overlap = scores.pathway(sparsity).jaccard(exact.pathway(sparsity))
                measures[Measure(name, "jaccard_with_reference", "sparsity", sparsity)] = overlap
        return measures

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw residual and overlap of each rule."""
        return quadrature_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return quadrature_findings(table)
