import math
import warnings

import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.methods import NeuronIntGrad
from cpath.methods.quadrature import quadrature
from cpath.methods.refinement import levels, new_nodes
from tests import zoo
from tests.oracles import contribution
from tests.oracles import units as oracle
from tests.oracles.networks import NETWORKS

TIGHT = {"rtol": 1e-8, "atol": 1e-11}


@pytest.fixture
def double() -> Tensor:
    return zoo.images(dtype=torch.float64)


def test_nested_levels_add_up_to_the_endpoint_rule():
    assert levels(122) == [1, 2, 5, 14, 41, 122]
    assert levels(121) == [1, 2, 5, 14, 41]
    assert levels(1) == [1]
    gathered = [1.0]
    for level in levels(41):
        gathered = sorted(gathered + new_nodes(level))
        nodes, _ = quadrature("endpoint", level)
        assert gathered == pytest.approx(nodes, abs=1e-12)


def _endpoint(nodes: int) -> list[tuple[float, float]]:
    whole = 2 * nodes - 1
    return [*[(odd / whole, 2 / whole) for odd in range(1, whole, 2)], (1.0, 1 / whole)]


@pytest.mark.filterwarnings("ignore:neuron_intgrad")
@pytest.mark.parametrize(("name", "baseline"), [("residual", "mean"), ("sequential", "zero"), ("fire", "zero")])
def test_each_site_and_input_gets_the_nodes_that_it_needs(double, name, baseline):
    model, network = zoo.make(name, torch.float64), NETWORKS[name]
    weights = dict(model.state_dict())
    mean = cpath.mean_activations(model, double) if baseline == "mean" else None
    settings = {"tolerance": 0.02, "max_nodes": 14}
    scores = cpath.score(model, double, NeuronIntGrad(**settings), baseline=mean, max_batch=2)
    used = set()
    for index, image in enumerate(double):
        _, outputs = contribution.run(network, weights, image[None])
        b = {n: torch.zeros_like(z[0]) if mean is None else mean[n][0] for n, z in outputs.items()}
        asked = (network, weights, image, int(scores.target[index]), b)
        for site in scores.values:
            for nodes in (1, 2, 5, 14):
                values = oracle.intgrad(*asked, _endpoint(nodes))
                residual = oracle.residuals(*asked, values)[site]
                if not residual > 0.02:
                    break
            used.add(nodes)
            torch.testing.assert_close(scores.signed[site][index], values[site], **TIGHT)
            found = float(scores.residual[site][index])
            assert found == pytest.approx(residual, rel=1e-6, abs=1e-9, nan_ok=True)
    assert len(used) > 1  # not every site the same


def test_what_stays_above_the_tolerance_is_counted_and_said(double):
    model = zoo.make("residual", torch.float64)
    with pytest.warns(
        UserWarning, match=r"above tolerance=0\.0001 for (\d+) of 15 pairs .* with 5 nodes"
    ) as caught:
        scores = cpath.score(model, double, NeuronIntGrad(tolerance=1e-4, max_nodes=6))
    above = sum(int((values > 1e-4).sum()) for values in scores.residual.values())
    assert f"for {above} of 15" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = cpath.score(model, double, NeuronIntGrad(tolerance=0.5))
    assert all(not (values > 0.5).any() for values in scores.residual.values())


class Counting(nn.Module):
    passes = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        Counting.passes += 1
        return self.model(x)


def test_a_network_that_is_linear_behind_its_sites_needs_no_node_at_all(double):
    Counting.passes = 0
    model = Counting(nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(), nn.Linear(6, 5)).double())
    scores = cpath.score(model, double, NeuronIntGrad(tolerance=1e-9))
    refined, Counting.passes = Counting.passes, 0
    assert scores.residual["model.2"].max() < 1e-12
    model = Counting(model.model)
    fixed = cpath.score(model, double, NeuronIntGrad(nodes=1, rule="endpoint"))
    assert refined == Counting.passes
    torch.testing.assert_close(scores.flat, fixed.flat, **TIGHT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0.0}, "tolerance must be a positive number"),
        ({"tolerance": math.inf}, "tolerance must be a"),
        ({"tolerance": 0.1, "rule": "midpoint"}, "refines the endpoint rule by its residual"),
        ({"tolerance": 0.1, "residual": False}, "refines the endpoint rule by its residual"),
        ({"max_nodes": 0}, "max_nodes must be at least 1"),
    ],
)
def test_unusable_tolerances_are_refused(settings, message):
    with pytest.raises(cpath.InputError, match=message):
        NeuronIntGrad(**settings)
