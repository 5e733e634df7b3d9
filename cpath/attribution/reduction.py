"""Reduction of an attribution to one number per pixel, by which maps are shown and pixels ranked."""

from __future__ import annotations

from torch import Tensor

from cpath.errors import InputError, unknown_name

RANK_BY = ("absolute", "signed")


def single_channel(attribution: Tensor) -> Tensor:
    """Reduce an attribution to one channel: per pixel, the signed value of the channel with the largest magnitude.

    Args:
        attribution: Attributions (B, C, H, W).

    Returns:
        Maps (B, 1, H, W).

    Raises:
        InputError: If the attribution does not have four dimensions.

    Example:
        >>> cpath.single_channel(torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1)).item()
        -3.0
    """
    if attribution.dim() != 4:
        raise InputError(f"an attribution is (B, C, H, W), not {tuple(attribution.shape)}.")
    return attribution.gather(1, attribution.abs().argmax(1, keepdim=True))


def pixel_relevance(attribution: Tensor, rank_by: str = "absolute") -> Tensor:
    """Compute the relevance of each pixel, by which pixels are ranked.

    Args:
        attribution: Attributions (B, C, H, W) or (B, 1, H, W).
        rank_by: "absolute" for the magnitude of the single-channel map, "signed" for its value, by which the
            released code ranks.

    Returns:
        Relevance (B, H, W).

    Raises:
        InputError: If the attribution does not have four dimensions.
        UnknownNameError: If ``rank_by`` is neither.

    Example:
        >>> attribution = torch.tensor([1.0, -3.0, 2.0]).view(1, 3, 1, 1)
        >>> cpath.attribution.pixel_relevance(attribution).item()
        3.0
        >>> cpath.attribution.pixel_relevance(attribution, rank_by="signed").item()
        -3.0
    """
    if rank_by not in RANK_BY:
        raise unknown_name("rank_by", rank_by, RANK_BY)
    relevance = single_channel(attribution).squeeze(1)
    return relevance.abs() if rank_by == "absolute" else relevance
