"""Input degradation: how the response falls when the least (LeRF) or most (MoRF) relevant pixels are removed.

Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE Transactions on Neural
Networks and Learning Systems 2017. Khakzar et al. show LeRF curves, which is why that is the default order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpath.attribution.response import ResponseProbe
from cpath.checks import check_count, within_memory
from cpath.errors import InputError
from cpath.evaluation.removal import Fill, rank_pixels, remove_pixels
from cpath.probe import Target
from cpath.sites import evaluating

PERCENTS = (*range(1, 11), *range(20, 100, 10))
"""Per cent of the pixels: 1 to 10 (the paper's figure), then 20 to 90."""


@dataclass(frozen=True, eq=False)
class Degradation:
    """What removing pixels did to each image. Made by `degrade`."""

    change: Tensor
    """(B, len(percents)) float64: |p_c(x) − p_c(x′)| / p_c(x); NaN for 0/0."""
    probability: Tensor
    """(B,) float64: p_c(x) of the untouched images."""
    target: Tensor
    """(B,) the class c."""
    percents: tuple[float, ...]
    order: str

    def __len__(self) -> int:
        return len(self.change)


def degrade(
    model: nn.Module,
    images: Tensor,
    attribution: Tensor,
    target: Target = None,
    *,
    order: str = "least",
    percents: Iterable[float] = PERCENTS,
    fill: Fill = 0.0,
    rank_by: str = "absolute",
    seed: int = 0,
    max_batch: int = 64,
) -> Degradation:
    """Removes the least (LeRF) or most (MoRF) relevant pixels of ``images`` and measures the change of p_c.

    ``attribution`` (B, C or 1, H, W) of the ``images`` (B, C, H, W); the class c is ``target``, by default the
    predicted one; ``order`` "least" or "most"; ``fill``, ``rank_by`` and ``seed`` as for `remove_pixels` and
    `rank_pixels`: a fill of 0 is the mean colour where the images are normalised by their mean. ``max_batch``
    bounds the images in one forward pass. The model runs in eval mode, without autograd, and is left as it was.
    Mean over images: `change.nanmean(0)`.

    Raises `InputError` for unusable images, targets, percents or fills, and for an attribution that holds NaN or
    belongs to other images; `UnknownNameError` for an unknown ``order`` or ``rank_by``; `OutOfMemoryError` where a
    pass of ``max_batch`` images does not fit the device's memory.
    """
    max_batch = check_count("max_batch", max_batch)
    percents = tuple(percents)
    if not percents:
        raise InputError("percents is empty: name at least one share of pixels to remove.")
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer images at once"
    with evaluating(model), torch.no_grad(), within_memory(remedy):
        probe = ResponseProbe(model, images, target)
        at_once = probe.rows_at_once
        ranks = rank_pixels(attribution, probe.images, rank_by=rank_by, seed=seed)
        parts = [
            _degrade(probe.part(part), ranks[part], percents, order, fill)
            for part in (slice(start, start + at_once) for start in range(0, len(probe), at_once))
        ]
    probability, degraded, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    change = (probability.unsqueeze(1) - degraded).abs() / probability.unsqueeze(1)
    return Degradation(change, probability, labels, percents, order)


def _degrade(
    probe: ResponseProbe, ranks: Tensor, percents: tuple[float, ...], order: str, fill: Fill
) -> tuple[Tensor, Tensor, Tensor]:
    """p_c of the images (B,) and of the degraded ones (B, len(percents)), and c (B,)."""
    probability = probe.probability(probe.images)
    degraded = []
    at_once = max(1, probe.rows_at_once // len(probe))
    for start in range(0, len(percents), at_once):
        versions = [
            remove_pixels(probe.images, ranks, percent, order=order, fill=fill)
            for percent in percents[start : start + at_once]
        ]
        degraded.append(probe.probability(torch.cat(versions)).view(len(versions), len(probe)))
    return probability, torch.cat(degraded).T, probe.target
