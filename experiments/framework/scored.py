"""Scores of an experiment's images, a batch at a time, made once and shared by all jobs of a sweep."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

import cpath
from cpath.layout import SiteLayout
from cpath.scores import FORMAT
from cpath.storage import whole_tensors
from experiments.framework.identity import code_digest
from experiments.framework.job import Job
from experiments.framework.subject import Images, fingerprint

_LOG = logging.getLogger(__name__)

BatchScorer = Callable[[int], cpath.Scores]
"""Gives the scores of the batch of that number."""


def batches(images: Images, size: int) -> list[slice]:
    """The images in slices of ``size``."""
    return [slice(start, min(start + size, len(images))) for start in range(0, len(images), size)]


def scorers(
    job: Job, model: nn.Module, images: Images, methods: Mapping[str, cpath.Method]
) -> dict[str, BatchScorer]:
    """By method: scores of a batch. Costly ones are kept as an artifact, as far as the disk budget goes.

    The budget is ``experiment.keep_scores_gb`` for all methods together; without it, or beyond it, scores are
    computed when asked for, and only what follows from them is stored.
    """
    settings = job.cfg.experiment
    parts = batches(images, settings.batch)
    activations = tuple(job.cfg.activations)
    layout = _layout(model, images, activations)
    costly = [name for name, method in methods.items() if method.costly]
    gigabytes = layout.neurons * 8 * len(images) * len(costly) / 1e9  # float64 at most
    keep = gigabytes <= settings.keep_scores_gb
    if costly and not keep:
        _LOG.info("scores are not kept: they would take %.1f GB (experiment.keep_scores_gb)", gigabytes)
    made: dict[str, BatchScorer] = {}
    for name, method in methods.items():
        compute = _computing(model, images, parts, method, activations, settings.max_batch)
        kept = keep and method.costly
        made[name] = _kept(job, model, images, len(parts), method, compute) if kept else compute
    return made


def _layout(model: nn.Module, images: Images, activations: tuple[str, ...]) -> SiteLayout:
    with torch.no_grad(), cpath.observe(model, activations=activations) as seen:
        model(images.batch(slice(0, 1)))
    return SiteLayout.of(seen.activations)


def _computing(
    model: nn.Module,
    images: Images,
    parts: list[slice],
    method: cpath.Method,
    activations: tuple[str, ...],
    max_batch: int,
) -> BatchScorer:
    def compute(part: int) -> cpath.Scores:
        return cpath.score(model, images.batch(parts[part]), method, activations=activations, max_batch=max_batch)

    return compute


def _kept(
    job: Job, model: nn.Module, images: Images, parts: int, method: cpath.Method, compute: BatchScorer
) -> BatchScorer:
    key = {
        "format": 1,
        "cpath": cpath.__version__,
        "model": fingerprint(model, job.cfg),
        "data": images.data.settings,
        "images": images.ids,
        "batch": job.cfg.experiment.batch,
        "activations": list(job.cfg.activations),
        "method": method.name,
        "settings": asdict(method) if is_dataclass(method) else vars(method),
        "code": code_digest(method),
    }

    def make(folder: Path) -> None:
        for part in progress(range(parts), f"scoring with {method.name}", "batch"):
            file = folder / f"part-{part:05d}.safetensors"
            if whole_tensors(file, "scores", FORMAT) is None:
                compute(part).save(file)

    name = f"{method.name}-{job.cfg.model.name}-{images.data.name}"
    folder = job.store.build("scores", name, key, make)
    return lambda part: cpath.Scores.load(folder / f"part-{part:05d}.safetensors").to(images.device)


def progress(items: range, what: str, unit: str) -> Iterator[int]:
    """``items`` behind a progress bar with the time left; silent where there is no terminal."""
    return iter(tqdm(items, desc=what, unit=unit, disable=None))
