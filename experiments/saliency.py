"""Saliency maps as pictures (paper, section 4): methods beside each other, pathways over sparsities."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import cpath
from cpath.attribution import Attribution, PathwayGradient, single_channel
from cpath.errors import InputError
from cpath.evaluation import Comparison
from cpath.plots import Drawing, Maps, map_grid, saliency_figures, sparsity_grid
from cpath.storage import kept_tensors, write_tensors
from cpath.threshold import check_sparsity
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
    origin = origin_of(cfg, model, images, attributions.values())
    seen = predictions(model, images, len(images))
    if job.cfg.redo:
        for old in (job.folder / "maps").glob("*.safetensors"):
            old.unlink()
    names = list(attributions)
    maps = {
        names[number]: _kept_maps(job, model, images, origin, seen, names[number], attributions[names[number]])
        for number in progress(range(len(names)), "explaining", "method")
    }
    single = {name: single_channel(values).squeeze(1) for name, values in maps.items()}
    pixels = pixels_of(images, len(images))
    job.pictures += [map_grid(Maps(pixels, seen.titles, single), overlay) for overlay in (False, True)]
    graded = {
        name: one
        for name, one in attributions.items()
        if isinstance(one, PathwayGradient) and sparsities and _method(one).graded
    }
    pruned = {
        name: _kept_sparsities(job, model, images, origin, seen, name, one, sparsities)
        for name, one in graded.items()
    }
    job.pictures += _sparsity_grids(job, pixels, seen, pruned, sparsities)
    return [*_certainty(images, seen), *_similarity(job, model, images, seen, pruned, sparsities)]


def _method(attribution: PathwayGradient) -> cpath.Method:
    method = attribution.method
    return cpath.methods.get(method) if isinstance(method, str) else method


def _kept_maps(
    job: Job,
    model: nn.Module,
    images: Images,
    origin: Origin,
    seen: Predictions,
    name: str,
    attribution: Attribution,
) -> Tensor:
    """(B, C or 1, H, W) of all images, kept in the job's folder."""

    def make() -> Tensor:
        return cpath.attribute(
            model,
            images.batch(slice(0, len(images))),
            attribution,
            seen.target,
            activations=job.cfg.activations,
            max_batch=job.cfg.experiment.max_batch,
        )

    return _kept(job.folder / "maps" / f"{name}.safetensors", make, origin, seen)


def _kept_sparsities(
    job: Job,
    model: nn.Module,
    images: Images,
    origin: Origin,
    seen: Predictions,
    name: str,
    attribution: PathwayGradient,
    sparsities: list[float],
) -> Tensor:
    """(S, B, C, H, W) pathway gradients of all images, kept in the job's folder."""

    def make() -> Tensor:
        batch = images.batch(slice(0, len(images)))
        settings = {"activations": job.cfg.activations, "max_batch": job.cfg.experiment.max_batch}
        by_sparsity: dict[float, Tensor] = {}
        for search in searches({name: _method(attribution)}, sparsities):
            scores = cpath.score(model, batch, search.method, seen.target, **settings)
            for sparsity, pathway in search.pathways(scores):
                by_sparsity[sparsity] = cpath.pathway_gradient(model, batch, pathway)
        return torch.stack([by_sparsity[sparsity] for sparsity in sparsities])

    file = job.folder / "maps" / f"{name}-sparsities.safetensors"
    return _kept(file, make, origin, seen, sparsities=sparsities)


def _kept(file: Path, make: Callable[[], Tensor], origin: Origin, seen: Predictions, **more: object) -> Tensor:
    """The maps in ``file``, to which they go once they are made."""
    made_of = {**origin.of(slice(None)), "target": seen.target.tolist(), **more}

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


def _certainty(images: Images, seen: Predictions) -> list[Row]:
    """The probability of the predicted class of each image."""
    return [
        Row("network", "probability", float(probability), "image", name)
        for name, probability in zip(images.ids, seen.probability, strict=True)
    ]


def _similarity(
    job: Job,
    model: nn.Module,
    images: Images,
    seen: Predictions,
    maps: Mapping[str, Tensor],
    sparsities: list[float],
) -> list[Row]:
    """Rank correlation of magnitudes between the pathway gradients and the gradient of the whole network."""
    if not maps:
        return []
    settings = {"activations": job.cfg.activations, "max_batch": job.cfg.experiment.max_batch}
    batch = images.batch(slice(0, len(images)))
    whole = cpath.attribute(model, batch, cpath.attribution.get("gradients"), seen.target, **settings)
    gradient = Comparison(whole, ("spearman_abs",))
    found: dict[Key, list[float]] = {}
    for name, values in maps.items():
        for sparsity, at in zip(sparsities, values, strict=True):
            similarity = gradient.to(at)["spearman_abs"]
            found[name, "sparsity", sparsity, "similarity_to_gradient"] = similarity.tolist()
    return rows_of_means(found)
