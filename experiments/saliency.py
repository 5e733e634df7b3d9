"""Saliency maps as pictures (paper, section 4): methods beside each other, pathways over sparsities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import cpath
from cpath.attribution import Attribution, PathwayGradient, single_channel
from cpath.errors import InputError
from cpath.evaluation import Comparison
from cpath.storage import kept_tensors, write_tensors
from cpath.threshold import check_sparsity
from cpath.viz import Drawing, Maps, map_grid, sparsity_grid
from experiments.figures.saliency import saliency_figures
from experiments.framework.job import Job, run_job
from experiments.framework.pictures import Predictions, pixels_of, predictions
from experiments.framework.results import Key, Row, rows_of_means
from experiments.framework.scored import progress
from experiments.framework.searches import searches
from experiments.framework.subject import (
    Images,
    Origin,
    attributions_of,
    load_data,
    load_images,
    origin_of,
    trained_model,
)

_FORMAT = 1


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, saliency_figures)


def _compute(job: Job) -> list[Row]:
    cfg = job.cfg
    attributions = attributions_of(cfg)
    sparsities = [check_sparsity(sparsity) for sparsity in cfg.experiment.sparsities]
    if sparsities != sorted(set(sparsities)):
        raise InputError("experiment.sparsities must ascend.")
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, job.store)
    job.notes["images"] = images.ids
    seen = predictions(model, images, len(images))
    origin = origin_of(cfg, model, images, attributions.values())
    explained = _Explained(job, model, images, origin, seen)
    if job.cfg.redo:
        for old in (job.folder / "maps").glob("*.safetensors"):
            old.unlink()
    names = list(attributions)
    maps = {
        names[number]: explained.maps(names[number], attributions[names[number]])
        for number in progress(range(len(names)), "explaining", "method")
    }
    single = {name: single_channel(values).squeeze(1) for name, values in maps.items()}
    pixels = pixels_of(images, len(images))
    job.pictures += [map_grid(Maps(pixels, seen.titles, single), overlay) for overlay in (False, True)]
    methods = {name: _method(one) for name, one in attributions.items() if isinstance(one, PathwayGradient)}
    pruned = {
        name: explained.sparsities(name, method, sparsities)
        for name, method in methods.items()
        if sparsities and method.graded
    }
    job.pictures += _sparsity_grids(job, pixels, seen, pruned, sparsities)
    return [*explained.certainty(), *explained.similarity(pruned, sparsities)]


def _method(attribution: PathwayGradient) -> cpath.Method:
    method = attribution.method
    return cpath.methods.get(method) if isinstance(method, str) else method


@dataclass(frozen=True)
class _Explained:
    """The model and the images that a job explains. Maps, once they are made, are kept in the job's folder."""

    job: Job
    model: nn.Module
    images: Images
    origin: Origin
    seen: Predictions

    def maps(self, name: str, attribution: Attribution) -> Tensor:
        """(B, C or 1, H, W) of all images."""
        return self._kept(name, lambda: self._attribute(attribution))

    def sparsities(self, name: str, method: cpath.Method, sparsities: list[float]) -> Tensor:
        """(S, B, C, H, W) pathway gradients of all images."""

        def make() -> Tensor:
            by_sparsity: dict[float, Tensor] = {}
            for search in searches({name: method}, sparsities):
                scores = cpath.score(self.model, self._batch, search.method, self.seen.target, **self._settings)
                for sparsity, pathway in search.pathways(scores):
                    by_sparsity[sparsity] = cpath.pathway_gradient(self.model, self._batch, pathway)
            return torch.stack([by_sparsity[sparsity] for sparsity in sparsities])

        return self._kept(f"{name}-sparsities", make, sparsities=sparsities)

    def similarity(self, maps: Mapping[str, Tensor], sparsities: list[float]) -> list[Row]:
        """Rank correlation of magnitudes between pathway gradients and the gradient of the whole network."""
        if not maps:
            return []
        whole = self._attribute(cpath.attribution.get("gradients"))
        gradient = Comparison(whole, ("spearman_abs",))
        found: dict[Key, list[float]] = {}
        for name, values in maps.items():
            for sparsity, at in zip(sparsities, values, strict=True):
                similarity = gradient.to(at)["spearman_abs"]
                found[name, "sparsity", sparsity, "similarity_to_gradient"] = similarity.tolist()
        return rows_of_means(found)

    def certainty(self) -> list[Row]:
        """The probability of the predicted class of each image."""
        return [
            Row("network", "probability", float(probability), "image", name)
            for name, probability in zip(self.images.ids, self.seen.probability, strict=True)
        ]

    @cached_property
    def _batch(self) -> Tensor:
        return self.images.batch(slice(0, len(self.images)))

    @property
    def _settings(self) -> dict[str, Any]:
        return {"activations": self.job.cfg.activations, "max_batch": self.job.cfg.experiment.max_batch}

    def _attribute(self, attribution: Attribution) -> Tensor:
        return cpath.attribute(self.model, self._batch, attribution, self.seen.target, **self._settings)

    def _kept(self, name: str, make: Callable[[], Tensor], **more: object) -> Tensor:
        file = self.job.folder / "maps" / f"{name}.safetensors"
        made_of = {**self.origin.of(slice(None)), "target": self.seen.target.tolist(), **more}

        def write() -> None:
            write_tensors(file, {"maps": make()}, {"kind": "maps", "format": _FORMAT, **made_of})

        return kept_tensors(file, "maps", _FORMAT, write, made_of)[0]["maps"]


def _sparsity_grids(
    job: Job, pixels: np.ndarray, seen: Predictions, maps: Mapping[str, Tensor], sparsities: list[float]
) -> list[Drawing]:
    count = min(job.cfg.experiment.sparsity_images, len(pixels)) if maps else 0
    single = {
        name: torch.stack([single_channel(at).squeeze(1) for at in values[:, :count]])
        for name, values in maps.items()
    }
    return [
        sparsity_grid(
            f"sparsities_{number + 1}",
            Maps(
                pixels[number : number + 1],
                seen.titles[number : number + 1],
                {name: values[:, number] for name, values in single.items()},
            ),
            sparsities,
        )
        for number in range(count)
    ]
