"""Pixel removal: the change of images in input degradation and ROAR, in one place.

An attribution becomes ranks once (`rank_pixels`), and images lose any share of their pixels by these ranks
(`remove_pixels`). For one image, ranks and seed, the pixels removed at a higher share include those removed at a
lower one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import torch
from torch import Tensor

from cpath.attribution.reduction import pixel_relevance
from cpath.errors import InputError, described, unknown_name
from cpath.randomness import image_generators
from cpath.threshold import per_cent_of

ORDERS = ("most", "least")

Fill = float | Sequence[float] | Tensor | Callable[[Tensor, Tensor], Tensor]
"""Replacement of removed pixels: one value, one value per channel, or a function of images (B, C, H, W) and removed
pixels (B, H, W) that returns images."""


def rank_pixels(attribution: Tensor, images: Tensor, *, rank_by: str = "absolute", seed: int = 0) -> Tensor:
    """Rank the pixels of each image by an attribution.

    Ties are in random order, drawn from ``seed`` and each image's own bytes: the same image is ranked alike in any
    batch, and images with a constant map do not all lose the same pixels.

    Args:
        attribution: Attributions (B, C, H, W) or (B, 1, H, W), on any device.
        images: The images (B, C, H, W) that they belong to.
        rank_by: "absolute" or "signed", as for `cpath.attribution.pixel_relevance`.
        seed: Seed of the order of ties.

    Returns:
        Ranks (B, H, W), int32, 0 for the most relevant pixel, on the device of ``images``.

    Raises:
        InputError: If the attribution holds NaN or has the shape of other images.
        UnknownNameError: If ``rank_by`` is unknown.

    Example:
        >>> attribution = torch.tensor([[0.1, -0.9], [0.5, 0.3]]).view(1, 1, 2, 2)
        >>> cpath.evaluation.rank_pixels(attribution, torch.zeros(1, 3, 2, 2)).tolist()
        [[[3, 0], [1, 2]]]
    """
    for name, given in (("attribution", attribution), ("images", images)):
        if not isinstance(given, Tensor):
            raise InputError(f"{name} must be a tensor (B, C, H, W), not {described(given)}.")
    if images.dim() != 4 or attribution.dim() != 4 or _frame(attribution) != _frame(images):
        raise InputError(
            f"an attribution of shape {tuple(attribution.shape)} does not belong to images of shape "
            f"{tuple(images.shape)}: both must be (B, ·, H, W)."
        )
    relevance = pixel_relevance(attribution.detach().to(images.device), rank_by).flatten(1)
    if relevance.isnan().any():
        raise InputError("the attribution holds NaN: its pixels cannot be ranked.")
    pixels = relevance.shape[1]
    shuffles = [
        torch.randperm(pixels, generator=generator, device="cpu")
        for generator in image_generators(images, seed, "ties")
    ]
    shuffle = torch.stack(shuffles).to(relevance.device)
    order = shuffle.gather(1, relevance.gather(1, shuffle).argsort(dim=1, descending=True, stable=True))
    places = torch.arange(pixels, dtype=torch.int32, device=order.device).expand_as(order)
    ranks = torch.empty_like(places, memory_format=torch.contiguous_format)
    return ranks.scatter_(1, order, places).view(len(images), *images.shape[2:])


def removed_pixels(ranks: Tensor, percent: float, *, order: str = "most", keep: bool = False) -> Tensor:
    """Choose the pixels to remove.

    Args:
        ranks: Ranks (B, H, W) from `rank_pixels`.
        percent: Per cent of the pixels to choose, rounded to the nearest whole number of pixels, the same in each
            image.
        order: "most" or "least": choose the most or the least relevant pixels.
        keep: Remove all other pixels instead of the chosen ones.

    Returns:
        Booleans (B, H, W), True for a removed pixel. At 0 per cent none is, with ``keep`` too.

    Raises:
        InputError: If ``percent`` is outside [0, 100] or the ranks are unusable.
        UnknownNameError: If ``order`` is unknown.

    Example:
        >>> ranks = torch.tensor([[[3, 0], [1, 2]]])
        >>> cpath.evaluation.removed_pixels(ranks, 25).tolist()
        [[[False, True], [False, False]]]
    """
    if order not in ORDERS:
        raise unknown_name("order", order, ORDERS)
    if ranks.dim() != 3 or ranks.is_floating_point():
        raise InputError("ranks must be (B, H, W) integers, as rank_pixels gives.")
    pixels = ranks.shape[1] * ranks.shape[2]
    chosen = _count(percent, pixels)
    if percent == 0:
        return torch.zeros_like(ranks, dtype=torch.bool)
    among = ranks < chosen if order == "most" else ranks >= pixels - chosen
    return ~among if keep else among


def remove_pixels(
    images: Tensor,
    ranks: Tensor,
    percent: float,
    *,
    order: str = "most",
    keep: bool = False,
    fill: Fill = 0.0,
) -> Tensor:
    """Replace a share of the pixels of images, in all channels.

    Pixels that are not removed stay the same bit for bit.

    Args:
        images: Images (B, C, H, W).
        ranks: Ranks (B, H, W) from `rank_pixels`.
        percent: Per cent of the pixels, as for `removed_pixels`.
        order: "most" or "least", as for `removed_pixels`.
        keep: Remove all other pixels instead, as for `removed_pixels`.
        fill: Replacement: one value, one value per channel, or a function such as `NoisyLinear`, called with images
            (B, C, H, W) and removed pixels (B, H, W). 0 is the mean colour of images normalised by their mean.

    Returns:
        Copies of the images.

    Raises:
        InputError: If the ranks belong to other images, or ``percent`` or ``fill`` is unusable.
        UnknownNameError: If ``order`` is unknown.

    Example:
        >>> ranks = torch.tensor([[[3, 0], [1, 2]]])
        >>> cpath.evaluation.remove_pixels(torch.ones(1, 1, 2, 2), ranks, 50).tolist()
        [[[[1.0, 0.0], [0.0, 1.0]]]]
    """
    if images.dim() != 4 or tuple(ranks.shape) != _frame(images):
        raise InputError(
            f"ranks of shape {tuple(ranks.shape)} do not belong to images of shape {tuple(images.shape)}."
        )
    removed = removed_pixels(ranks, percent, order=order, keep=keep)
    if not removed.any():
        return images.clone()
    values = fill(images, removed) if callable(fill) else _colour(fill, images)
    return torch.where(removed.unsqueeze(1), values, images)


def _frame(images: Tensor) -> tuple[int, int, int]:
    return images.shape[0], images.shape[2], images.shape[3]


def _count(percent: float, pixels: int) -> int:
    """Take ``percent`` of ``pixels``, halves rounded up."""
    if not 0 <= percent <= 100:
        raise InputError(f"percent must be between 0 and 100, not {percent}.")
    return math.floor(per_cent_of(percent, pixels) + Fraction(1, 2))


def _colour(fill: float | Sequence[float] | Tensor, images: Tensor) -> Tensor:
    """Shape a fill as (1, C, 1, 1), or (1, 1, 1, 1) for one value."""
    colour = torch.as_tensor(fill, dtype=images.dtype, device=images.device)
    if colour.dim() > 1 or colour.numel() not in (1, images.shape[1]):
        raise InputError(
            f"fill must be one value or one per channel ({images.shape[1]}), not of shape {tuple(colour.shape)}."
        )
    if not torch.isfinite(colour).all():
        raise InputError("fill holds NaN or infinite values.")
    return colour.reshape(1, -1, 1, 1)
