"""Scores of an experiment's images: which scorings the pathways need, each made once and shared by all jobs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import torch

import cpath
from cpath.layout import SiteLayout
from experiments.engine.cache import Key, digest
from experiments.engine.digests import code_digest
from experiments.engine.images import Batch, Images, example
from experiments.engine.job import Job
from experiments.engine.question import identity_of_question

_LOG = logging.getLogger(__name__)
_FILE = "scores.safetensors"
_BYTES = 8  # of a float64, the largest type of a score


@dataclass(frozen=True)
class Search:
    """One scoring of a method, and the sparsities that it serves."""

    name: str
    """Name of the method in the configuration."""
    method: cpath.Method
    """Extraction method, set for these sparsities."""
    sparsities: list[float]
    """Per cent."""

    def pathways(self, scores: cpath.Scores) -> Iterator[tuple[float, cpath.Pathway]]:
        """Threshold scores at every sparsity of the search.

        Args:
            scores: of one batch, made with `method`.

        Returns:
            Each sparsity (per cent) with its pathway, in turn.
        """
        for sparsity in self.sparsities:
            # Scores that do not rank are a pathway as they are; a threshold would leave nothing of it.
            yield sparsity, scores.pathway(sparsity if self.method.graded else 0)


def plan_searches(methods: Mapping[str, cpath.Method], sparsities: Sequence[float]) -> list[Search]:
    """Plan the scorings for pathways of several methods at several sparsities.

    Args:
        methods: by name.
        sparsities: per cent.

    Returns:
        One scoring for each method, or one for each sparsity where the method has to know it.
    """
    found: list[Search] = []
    for name, method in methods.items():
        of_method: list[Search] = []
        for sparsity in sparsities:
            at = method.at(sparsity)
            known = next((search for search in of_method if search.method == at), None)
            if known is None:
                of_method.append(Search(name, at, [sparsity]))
            else:
                known.sparsities.append(sparsity)
        found += of_method
    return found


@dataclass(frozen=True)
class Scoring:
    """Scores the batches of an experiment, and keeps costly scores for later jobs."""

    job: Job
    """Job that scores, with model and cache."""
    max_batch: int
    """Images in one forward pass, at most."""
    keep: bool
    """True if costly scores are kept."""

    @classmethod
    def planned(
        cls, job: Job, images: Images, searches: Sequence[Search], *, max_batch: int, keep_gb: float
    ) -> Scoring:
        """Decide whether the scores are kept.

        Args:
            job: with the model.
            images: all images that will be scored.
            searches: all scorings.
            max_batch: images in one forward pass.
            keep_gb: gigabytes that the kept scores may take, of all costly methods together.

        Returns:
            The scoring.
        """
        methods = [search.method for search in searches if search.method.costly]
        costly = len(methods)
        if not costly or not keep_gb:
            return cls(job, max_batch, False)
        if nameless := [method.name for method in methods if not _has_key(method)]:
            _LOG.info("scores are not kept: a setting of %s is no text, number or list of them", nameless[0])
            return cls(job, max_batch, False)
        with torch.no_grad(), cpath.observe(job.model, sites=job.config.sites) as seen:
            example(images.data, images.device, images.dtype).call(job.model)
        gigabytes = SiteLayout.of(seen.activations).units * _BYTES * len(images) * costly / 1e9
        if gigabytes > keep_gb:
            _LOG.info("scores are not kept: they would take %.1f GB (experiment.keep_scores_gb)", gigabytes)
        return cls(job, max_batch, gigabytes <= keep_gb)

    def scores(self, batch: Batch, search: Search) -> cpath.Scores:
        """Score a batch by one search; read the scores if this job or another kept them.

        Args:
            batch: the images.
            search: the method.

        Returns:
            Scores on the device of the images.
        """
        if not (self.keep and search.method.costly):
            return self._compute(batch, search)
        with self.job.cache.entry(self._key(batch, search.method)) as entry:
            if entry.missing:
                scores = self._compute(batch, search)
                scores.save(entry.folder / _FILE)
                return scores
        return cpath.Scores.load(entry.folder / _FILE).to(batch.source.device)

    def _compute(self, batch: Batch, search: Search) -> cpath.Scores:
        return cpath.score(
            self.job.model,
            batch.inputs,
            search.method,
            **self.job.question.arguments(batch),
            max_batch=self.max_batch,
        )

    def _key(self, batch: Batch, method: cpath.Method) -> Key:
        made_of = {
            **self.job.origin(batch, method),
            "cpath": cpath.__version__,
            "sites": self.job.config.sites,
            **identity_of_question(self.job.config),
            "method": method.name,
            "settings": _settings(method),
            "code": code_digest(method),
        }
        return Key("scores", f"{method.name}-{self.job.config.model_name}-{batch.source.data.name}", made_of)


def _settings(method: cpath.Method) -> dict[str, Any]:
    return asdict(method) if is_dataclass(method) else dict(vars(method))


def _has_key(method: cpath.Method) -> bool:
    """Tell if the settings of a user's method can be part of a key."""
    try:
        digest(_settings(method))
    except TypeError:
        return False
    return True
