"""From an attribution to one relevance a pixel, by which pixels are ranked."""

from __future__ import annotations

from torch import Tensor

from cpath.attribution.gradient import single_channel
from cpath.errors import unknown_name

RANK_BY = ("absolute", "signed")


def pixel_relevance(attribution: Tensor, rank_by: str = "absolute") -> Tensor:
    """(B, H, W) relevance of each pixel, from an attribution (B, C, H, W) or (B, 1, H, W).

    ``rank_by="absolute"`` is the magnitude of the single-channel map, ``"signed"`` its value, as the released
    code ranks.
    """
    if rank_by not in RANK_BY:
        raise unknown_name("rank_by", rank_by, RANK_BY)
    relevance = single_channel(attribution).squeeze(1)
    return relevance.abs() if rank_by == "absolute" else relevance
