from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cpath import pooling
from cpath.pooling import max_pool2d

SETTINGS = [
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
    {"kernel_size": 3, "stride": 1, "padding": 1, "dilation": 2},
]


@pytest.fixture
def values() -> Tensor:
    values = torch.randn(3, 2, 16, 48, 47, generator=torch.Generator().manual_seed(0)).relu()  # zeros are ties
    values[0, 0, 0, 5, 5] = torch.nan
    values[1, 1, 3] = -torch.inf
    return values


@pytest.fixture
def reordered(monkeypatch) -> list[int]:
    """Numbers of the tensors that were pooled with their channels side by side."""
    sizes: list[int] = []
    whole = pooling._MaxPool.forward

    def forward(values: Tensor, *how: object) -> tuple[Tensor, Tensor]:
        sizes.append(values.numel())
        return whole(values, *how)

    monkeypatch.setattr(pooling._MaxPool, "forward", staticmethod(forward))
    return sizes


def _pooled(pool, values: Tensor, lanes: bool, settings: dict[str, object]) -> tuple[Tensor, Tensor]:
    source = values.clone().requires_grad_()
    if lanes:
        output = torch.vmap(lambda lane: pool(lane, **settings))(source)
    else:
        output = pool(source.flatten(0, 1), **settings)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return output.detach(), torch.autograd.grad((output.nan_to_num() * weights).sum(), source)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("settings", SETTINGS)
def test_maxima_and_gradients_are_those_of_torch_bit_for_bit(values, reordered, settings, lanes, dtype):
    values = values.to(dtype)
    output, gradient = _pooled(max_pool2d, values, lanes, settings)
    assert reordered == [values.numel()]
    expected, expected_gradient = _pooled(F.max_pool2d, values, lanes, settings)
    assert torch.equal(output.nan_to_num(7, 8, 9), expected.nan_to_num(7, 8, 9))
    assert torch.equal(gradient, expected_gradient)
    assert gradient.count_nonzero() > 1000
    assert output.is_contiguous()


def test_settings_by_position_mean_the_same(values, reordered):
    values = values[0]
    assert torch.equal(
        max_pool2d(values, 3, 2, 1, 1, True).nan_to_num(), F.max_pool2d(values, 3, 2, 1, 1, True).nan_to_num()
    )
    assert reordered == [values.numel()]


@pytest.mark.parametrize(
    "change", ["few channels", "small", "side by side", "half", "three dimensions", "no gradient"]
)
def test_what_would_gain_nothing_is_left_to_torch(values, reordered, change):
    values = values[0].nan_to_num()
    if change == "few channels":
        values = values.flatten(0, 1).unflatten(0, (16, 2))[:, :1].repeat(4, 1, 1, 1)
    elif change == "small":
        values = values[:, :, :8, :8].contiguous()
    elif change == "side by side":
        values = values.contiguous(memory_format=torch.channels_last)
    elif change == "half":
        values = values.bfloat16()
    elif change == "three dimensions":
        values = values.flatten(0, 1)
    with torch.set_grad_enabled(change != "no gradient"):
        assert torch.equal(max_pool2d(values, 3, 2), F.max_pool2d(values, 3, 2))
    assert reordered == []


def test_the_places_of_the_maxima_are_given_if_asked_for(values):
    found = max_pool2d(values[1], 3, 2, return_indices=True)
    expected = F.max_pool2d(values[1], 3, 2, return_indices=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_it_can_be_differentiated_twice():
    values = torch.randn(2, 16, 48, 48, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seconds = []
    for pool in (max_pool2d, F.max_pool2d):
        leaf = values.clone().requires_grad_()
        (first,) = torch.autograd.grad(pool(leaf, 3, stride=2).pow(3).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), leaf)
        seconds.append(second)
    assert torch.equal(*seconds)
