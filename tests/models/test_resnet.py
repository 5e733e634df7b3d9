from __future__ import annotations

import hashlib

import pytest
import torch
from torch import nn

import cpath
from cpath.errors import InputError, UnknownNameError
from cpath.models import ResNet, resnet8, resnet8_narrow

SITES = [
    "relu",
    "stage1.0.relu",
    "stage1.0.relu#2",
    "stage2.0.relu",
    "stage2.0.relu#2",
    "stage3.0.relu",
    "stage3.0.relu#2",
]


def _shapes(model: nn.Module, side: int = 32) -> dict[str, tuple[int, ...]]:
    with cpath.observe(model.eval()) as seen:
        model(torch.randn(2, 3, side, side))
    return {name: tuple(output.shape[1:]) for name, output in seen.activations.items()}


def _neurons(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_resnet8_is_the_network_of_the_released_code():
    model = resnet8(10)
    shapes = _shapes(model)
    assert _count(model) == 1_227_594
    assert _neurons(shapes) == 294_912
    assert list(shapes) == SITES
    assert list(shapes.values())[::2] == [(64, 32, 32), (64, 32, 32), (128, 16, 16), (256, 8, 8)]
    assert [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d) and "shortcut" in name] == [
        "stage2.0.shortcut.0",
        "stage3.0.shortcut.0",
    ]


def test_a_shortcut_of_convolutions_is_added_before_the_last_activation():
    model = resnet8(10, width=4).eval().double()
    block, x = model.stage2[0], torch.randn(2, 4, 8, 8, dtype=torch.float64)
    for part in block.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2)
    main = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    weight, norm = block.shortcut[0].weight[:, :, 0, 0], block.shortcut[1]
    beside = torch.einsum("oc,bchw->bohw", weight, x[:, :, ::2, ::2])
    mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
    beside = (beside - mean) / (var + norm.eps).sqrt()
    assert torch.allclose(block(x), torch.relu(main + beside), atol=1e-12)


def test_the_narrow_resnet8_is_another_network():
    model = resnet8_narrow(10)
    shapes = _shapes(model)
    weighted = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    assert (len(weighted), _count(model), _neurons(shapes)) == (8, 75_290, 73_728)
    assert list(shapes) == SITES
    assert list(shapes.values())[::2] == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_the_narrow_resnet8_starts_from_the_same_weights_as_ever():
    """Results on the digits follow from these: the order of construction and the draws are part of them."""
    torch.manual_seed(0)
    state = resnet8_narrow(10, (1, 32, 32)).state_dict()
    assert hashlib.sha256(" ".join(state).encode()).hexdigest()[:12] == "928d356319c2"
    sums = [float(state[name].double().sum()) for name in ("conv.weight", "stage3.0.conv2.weight")]
    assert sums == pytest.approx([0.2381, 8.8624], abs=1e-4)
    assert float(torch.rand(1)) == pytest.approx(0.58773143, abs=1e-7)


@pytest.mark.parametrize("make", [resnet8, resnet8_narrow])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 17), (4, 64, 64)])
def test_resnet8_takes_any_size_and_channels(make, shape):
    assert make(7, shape, width=4).eval()(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("make", [resnet8, resnet8_narrow])
def test_resnet8_refuses_images_that_vanish(make):
    with pytest.raises(InputError, match="at least 4×4"):
        make(10, (3, 2, 2))


def test_an_unknown_shortcut_is_refused():
    with pytest.raises(UnknownNameError, match="shortcut 'padding'"):
        ResNet(1, 10, shortcut="padding")
