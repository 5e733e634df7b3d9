"""Input degradation: the change of the response when the least (LeRF) or most (MoRF) relevant pixels are removed.

Source: Samek et al., Evaluating the Visualization of What a Deep Neural Network Has Learned, IEEE Transactions on
Neural Networks and Learning Systems 2017. Khakzar et al. 2021 show LeRF curves, hence the default order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpath.attribution.response import ResponseProbe
from cpath.checks import check_count, within_memory
from cpath.display import Shown
from cpath.errors import InputError
from cpath.evaluation.removal import Fill, rank_pixels, remove_pixels
from cpath.inputs import check_images
from cpath.response import Target
from cpath.sites import evaluating

PERCENT = (*range(1, 11), *range(20, 100, 10))
"""Per cent of the pixels: 1 to 10 (the paper's figure), then 20 to 90."""


@dataclass(frozen=True, eq=False, repr=False)
class Degradation(Shown):
    """Effect of removing pixels on the response to each image. Made by `degrade`.

    Attributes:
        change: Relative change (B, len(percent)) of the probability of class c, float64:
            |p_c(x) − p_c(x′)| / p_c(x), a fraction; NaN for 0/0.
        probability: Probability p_c(x) of the untouched images (B,), float64.
        target: Class c (B,).
        percent: Per cents of the pixels that were removed.
        order: "least" or "most".
    """

    change: Tensor
    probability: Tensor
    target: Tensor
    percent: tuple[float, ...]
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
    percent: Iterable[float] = PERCENT,
    fill: Fill = 0.0,
    rank_by: str = "absolute",
    seed: int = 0,
    max_batch: int = 64,
) -> Degradation:
    """Remove the least (LeRF) or most (MoRF) relevant pixels and measure the change of the class's probability.

    The model runs in eval mode, without autograd, and is left as it was. The mean over images is
    ``change.nanmean(0)``.

    Args:
        model: A classifier that maps ``images`` to logits, see `cpath.response`.
        images: Floats (B, C, H, W) on the model's device.
        attribution: Attributions (B, C, H, W) or (B, 1, H, W) of these images.
        target: Class c: None for the predicted class, an int, or ints (B,).
        order: "least" or "most": the pixels that go first.
        percent: Per cents of the pixels to remove.
        fill: Value of a removed pixel, as for `remove_pixels`. 0 is the mean colour if the images are normalised by
            their mean.
        rank_by: "absolute" or "signed", as for `rank_pixels`.
        seed: Seed of the order of ties, as for `rank_pixels`.
        max_batch: Largest number of images in one forward pass.

    Returns:
        Changes of the probability, by image and per cent.

    Raises:
        InputError: If an argument is unusable, or the attribution holds NaN or belongs to other images.
        UnknownNameError: If ``order`` or ``rank_by`` is unknown.
        OutOfMemoryError: If a pass of ``max_batch`` images does not fit into the device's memory.

    Source: Samek et al. 2017; Khakzar et al. 2021.

    Example:
        >>> maps = cpath.attribute(model, images, "gradients")
        >>> found = cpath.evaluation.degrade(model, images, maps, percent=[10, 50, 90])
        >>> found.change.shape
        torch.Size([2, 3])
    """
    max_batch = check_count("max_batch", max_batch)
    percent = tuple(percent)
    if not percent:
        raise InputError("percent is empty: name at least one share of pixels to remove.")
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer images at once"
    with evaluating(model), torch.no_grad(), within_memory(remedy):
        probe = ResponseProbe(model, check_images(model, images), target, sites=())
        probe.need_classes("degradation")
        at_once = probe.inputs_at_once()
        ranks = rank_pixels(attribution, probe.images, rank_by=rank_by, seed=seed)
        parts = [
            _degrade(probe.part(part), ranks[part], percent, order, fill)
            for part in (slice(start, start + at_once) for start in range(0, len(probe), at_once))
        ]
    probability, degraded, labels = (torch.cat(part) for part in zip(*parts, strict=True))
    change = (probability.unsqueeze(1) - degraded).abs() / probability.unsqueeze(1)
    return Degradation(change, probability, labels, percent, order)


def _degrade(
    probe: ResponseProbe, ranks: Tensor, percent: tuple[float, ...], order: str, fill: Fill
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute p_c of the images (B,) and of the degraded ones (B, len(percent)), and c (B,)."""
    probability = probe.probability(probe.images)
    degraded = []
    at_once = max(1, probe.rows_at_once // len(probe))
    for start in range(0, len(percent), at_once):
        versions = [
            remove_pixels(probe.images, ranks, share, order=order, fill=fill)
            for share in percent[start : start + at_once]
        ]
        degraded.append(probe.probability(torch.cat(versions)).view(len(versions), len(probe)))
    classes = probe.target
    assert classes is not None
    return probability, torch.cat(degraded).T, classes
