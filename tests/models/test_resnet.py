from __future__ import annotations

import pytest
import torch

import cpath
from cpath.errors import InputError
from cpath.models import resnet8


def test_resnet8_has_eight_weighted_layers_and_seven_sites():
    model = resnet8(10, (3, 32, 32)).eval()
    weighted = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(weighted) == 8
    with cpath.observe(model) as seen:
        model(torch.randn(2, 3, 32, 32))
    assert list(seen.activations) == [
        "relu",
        "stage1.0.relu",
        "stage1.0.relu#2",
        "stage2.0.relu",
        "stage2.0.relu#2",
        "stage3.0.relu",
        "stage3.0.relu#2",
    ]
    assert [tuple(value.shape[1:]) for value in seen.activations.values()][::2] == [
        (16, 32, 32),
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
    ]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 17), (4, 64, 64)])
def test_resnet8_takes_any_size_and_channels(shape):
    assert resnet8(7, shape, width=4).eval()(torch.randn(2, *shape)).shape == (2, 7)


def test_resnet8_refuses_images_that_vanish():
    with pytest.raises(InputError, match="at least 4×4"):
        resnet8(10, (3, 2, 2))
