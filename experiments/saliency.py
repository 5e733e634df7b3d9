"""Saliency maps as pictures (paper, section 4): attributions beside each other, and pathways over sparsities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from pydantic import AfterValidator
from torch import Tensor

import cpath
from cpath.attribution import Attribution, PathwayGradient, single_channel
from cpath.evaluation import Comparison
from cpath.storage import read_tensors, write_tensors
from cpath.viz import Drawing, map_grid, sparsity_grid
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.predictions import Predictions, predictions
from experiments.engine.progress import progress
from experiments.engine.scoring import Search, plan_searches
from experiments.engine.table import Measure, PseudoMethod, Row, rows_of_means
from experiments.figures.findings import saliency_findings
from experiments.figures.saliency import saliency_figures
from experiments.metrics import pick

_FILE, _KIND, _FORMAT = "maps.safetensors", "maps", 2
_PROBABILITY = Measure(PseudoMethod.NETWORK, "class_probability")

Maps = dict[str, Tensor]
"""Maps by attribution."""


class Saliency(Experiment):
    """Shows the maps of all attributions, and pathway gradients from sparsity to sparsity."""

    title: ClassVar[str] = "Pathways as saliency maps"
    metrics: ClassVar[tuple[Metric, ...]] = pick("class_probability", "similarity_to_gradient")
    explains_with = ("attribution",)

    sparsity: Annotated[fields.Sparsities, AfterValidator(fields.ascending)]
    images: fields.Images
    batch: fields.Batch
    max_batch: fields.MaxBatch
    sparsity_images: fields.Natural

    def run(self, job: Job) -> Iterable[Row]:
        """Explain every image by every attribution, and show the maps."""
        images = job.sample(self.images)
        found, pixels, titles = PerImage(), [], []
        shown: dict[str, list[Tensor]] = {name: [] for name in job.attributions}
        over_sparsity: list[Drawing] = []
        for batch in job.batches(images, self.batch, "explaining"):
            seen = predictions(job.model, batch)
            maps = self._maps(job, batch, seen)
            gradients = self._pathway_gradients(job, batch, seen)
            with job.part(batch, "measures", *job.attributions.values()) as part:
                if part.missing:
                    write_measures(part.folder, self._measure(job, batch, seen, gradients))
            found.add(batch, read_measures(part.folder))
            pixels.append(batch.pixels)
            titles += seen.titles
            for name, values in maps.items():
                shown[name].append(single_channel(values).squeeze(1))
            over_sparsity += self._sparsity_grids(batch, seen, gradients)
        found.write(job.folder)
        single = {name: torch.cat(parts) for name, parts in shown.items()}
        job.drawings += [
            *(map_grid(np.concatenate(pixels), titles, single, overlay=overlay) for overlay in (False, True)),
            *over_sparsity,
        ]
        return _rows(found)

    def _maps(self, job: Job, batch: Batch, seen: Predictions) -> Maps:
        """(B, C or 1, H, W) maps of every attribution for the predicted classes."""
        found: Maps = {}
        for name, attribution in progress(job.attributions.items(), "maps", "attribution", leave=False):
            with job.part(batch, f"maps-{name}", attribution) as part:
                if part.missing:
                    _write_maps(part.folder, batch, self._attribute(job, batch, attribution, seen))
            found[name] = _read_maps(part.folder)
        return found

    def _attribute(self, job: Job, batch: Batch, attribution: Attribution, seen: Predictions) -> Tensor:
        return cpath.attribute(job.model, batch.images, attribution, seen.target, **self._settings(job))

    def _pathway_gradients(self, job: Job, batch: Batch, seen: Predictions) -> Maps:
        """(sparsities, B, C, H, W) gradients of the networks that are restricted to each method's pathways."""
        found: Maps = {}
        for name, method in _graded_methods(job.attributions).items():
            with job.part(batch, f"sparsities-{name}", method) as part:
                if part.missing:
                    by_sparsity: dict[float, Tensor] = {}
                    for search in plan_searches({name: method}, self.sparsity):
                        by_sparsity |= self._gradients_of(job, batch, search, seen)
                    gradients = torch.stack([by_sparsity[sparsity] for sparsity in self.sparsity])
                    _write_maps(part.folder, batch, gradients)
            found[name] = _read_maps(part.folder)
        return found

    def _gradients_of(self, job: Job, batch: Batch, search: Search, seen: Predictions) -> dict[float, Tensor]:
        """(B, C, H, W) gradients by sparsity, of the pathways that follow from one scoring."""
        scores = cpath.score(job.model, batch.images, search.method, seen.target, **self._settings(job))
        return {
            sparsity: cpath.pathway_gradient(job.model, batch.images, pathway, max_batch=self.max_batch)
            for sparsity, pathway in search.pathways(scores)
        }

    def _measure(self, job: Job, batch: Batch, seen: Predictions, gradients: Maps) -> dict[Measure, Tensor]:
        """The network's certainty, and how alike the pathway gradients and its own gradient rank the pixels."""
        measures = {_PROBABILITY: seen.probability}
        if not gradients:
            return measures
        whole = Comparison(self._attribute(job, batch, cpath.attribution.get("gradients"), seen), ("spearman_abs",))
        for method, by_sparsity in gradients.items():
            for sparsity, of_pathway in zip(self.sparsity, by_sparsity, strict=True):
                similarity = torch.from_numpy(whole.to(of_pathway)["spearman_abs"])
                measures[Measure(method, "similarity_to_gradient", "sparsity", sparsity)] = similarity
        return measures

    def _sparsity_grids(self, batch: Batch, seen: Predictions, gradients: Maps) -> list[Drawing]:
        """Pictures of those images of a batch that are to be shown from sparsity to sparsity."""
        first = batch.where.start
        count = max(0, min(len(batch), self.sparsity_images - first)) if gradients else 0
        return [
            sparsity_grid(
                f"sparsities_{first + number + 1}",
                batch.pixels[number],
                seen.titles[number],
                {method: single_channel(maps[:, number]).squeeze(1) for method, maps in gradients.items()},
                self.sparsity,
            )
            for number in range(count)
        ]

    def _settings(self, job: Job) -> dict[str, Any]:
        return {"sites": job.config.sites, "max_batch": self.max_batch}

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the similarity of the pathway gradients to the gradient."""
        return saliency_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return saliency_findings(table)


def _graded_methods(attributions: Mapping[str, Attribution]) -> dict[str, cpath.Method]:
    """The extraction methods behind pathway gradients, of those that give a pathway for each sparsity."""
    found: dict[str, cpath.Method] = {}
    for name, attribution in attributions.items():
        if isinstance(attribution, PathwayGradient):
            method = attribution.method
            found[name] = cpath.methods.get(method) if isinstance(method, str) else method
    return {name: method for name, method in found.items() if method.graded}


def _write_maps(folder: Path, batch: Batch, maps: Tensor) -> None:
    write_tensors(folder / _FILE, {"maps": maps}, {"kind": _KIND, "format": _FORMAT, "images": batch.ids})


def _read_maps(folder: Path) -> Tensor:
    return read_tensors(folder / _FILE, _KIND, _FORMAT)[0]["maps"]


def _rows(found: PerImage) -> list[Row]:
    """The certainty of each image, and means over images of everything else."""
    certainty = [
        Row(*_PROBABILITY[:2], probability, "image", image)
        for image, probability in zip(found.ids, found.values[_PROBABILITY], strict=True)
    ]
    others: Mapping[Measure, Sequence[float]] = {
        measure: values for measure, values in found.values.items() if measure != _PROBABILITY
    }
    return [*certainty, *rows_of_means(others)]
