"""From an attribution to one number a pixel, by which maps are shown and pixels ranked."""

from __future__ import annotations

from torch import Tensor

from cpath.errors import InputError, unknown_name

RANK_BY = ("absolute", "signed")


def single_channel(attribution: Tensor) -> Tensor:
    """(B, 1, H, W) from (B, C, H, W): per pixel, the signed value of the channel of the largest magnitude."""
    if attribution.dim() != 4:
        raise InputError(f"an attribution is (B, C, H, W), not {tuple(attribution.shape)}.")
    return attribution.gather(1, attribution.abs().argmax(1, keepdim=True))


def pixel_relevance(attribution: Tensor, rank_by: str = "absolute") -> Tensor:
    """(B, H, W) relevance of each pixel, from an attribution (B, C, H, W) or (B, 1, H, W).

    ``rank_by="absolute"`` is the magnitude of the single-channel map, ``"signed"`` its value, as the released
    code ranks.
    """
    if rank_by not in RANK_BY:
        raise unknown_name("rank_by", rank_by, RANK_BY)
    relevance = single_channel(attribution).squeeze(1)
    return relevance.abs() if rank_by == "absolute" else relevance
