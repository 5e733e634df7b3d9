"""Sites with a layer normalisation behind them, where zero is a singular baseline."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cpath
from cpath.methods import NeuronIntGrad
from cpath.methods.quadrature import quadrature


@pytest.fixture
def model():
    torch.manual_seed(0)
    parts = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 3)
    return nn.Sequential(*parts).double().eval()


@pytest.fixture
def inputs():
    return 5 * torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("nodes", [5, 20])
def test_against_zero_contributions_are_a_multiple_of_the_first_order_and_miss_the_difference(model, inputs, nodes):
    method = NeuronIntGrad(nodes=nodes, rule="midpoint")
    scores = cpath.score(model, inputs, method, 1, sites="0")
    first_order = cpath.score(model, inputs, "neuron_mct", 1, sites="0")
    alphas, weights = quadrature("midpoint", nodes)
    factor = sum(weight / alpha for alpha, weight in zip(alphas, weights, strict=True))
    ratio = scores.signed["0"] / first_order.signed["0"]
    torch.testing.assert_close(ratio, torch.full_like(ratio, factor), rtol=0.1, atol=0)
    # A sum over units of one site is z · gradient, which is 0 where the scale of z does not matter.
    with torch.no_grad():
        whole, empty = model(inputs)[:, 1], model[1:](torch.zeros(4, 8, dtype=torch.float64))[:, 1]
    assert (scores.signed["0"].sum(1).abs() < 0.1 * (whole - empty).abs()).all()
    assert (scores.residual["0"] > 0.9).all()


def test_the_jump_is_found_with_nodes_below_the_root_of_epsilon(model, inputs):
    found = [
        cpath.score(model, inputs, NeuronIntGrad(nodes=nodes, rule="midpoint"), 1, sites="0").residual["0"]
        for nodes in (20, 5000)
    ]
    assert (found[0] > 0.9).all()
    assert (found[1] < 0.01).all()


def test_against_a_mean_the_contributions_are_complete(model, inputs):
    others = 5 * torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mean = cpath.mean_activations(model, [others], sites="0")
    for nodes, most in ((20, 0.05), (100, 0.001)):
        scores = cpath.score(model, inputs, NeuronIntGrad(nodes=nodes), 1, sites="0", baseline=mean)
        assert (scores.residual["0"] < most).all()


def test_behind_the_normalisation_zero_is_a_baseline_like_any_other(model, inputs):
    scores = cpath.score(model, inputs, NeuronIntGrad(nodes=20), 1, sites="gelu")
    assert (scores.residual["3"] < 1e-12).all()  # the response is linear in what the GELU gives
