from __future__ import annotations

import pytest
import torch

import cpath


def test_single_channel_and_pixel_relevance() -> None:
    attribution = torch.tensor([[1.0, -2.0], [-3.0, 1.5]]).view(1, 2, 1, 2)  # pixels (1, -3) and (-2, 1.5)
    assert cpath.single_channel(attribution).tolist() == [[[[-3.0, -2.0]]]]
    assert cpath.attribution.pixel_relevance(attribution).tolist() == [[[3.0, 2.0]]]
    assert cpath.attribution.pixel_relevance(attribution, "signed").tolist() == [[[-3.0, -2.0]]]
    with pytest.raises(cpath.UnknownNameError, match="rank_by"):
        cpath.attribution.pixel_relevance(attribution, "magnitude")
    with pytest.raises(cpath.InputError):
        cpath.single_channel(attribution[0])
