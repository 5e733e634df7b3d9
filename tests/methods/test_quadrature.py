import math

import numpy as np
import pytest

import cpath
from cpath.methods.quadrature import RULES, quadrature
from tests.oracles import contribution as oracle

WRITTEN_OUT = {
    ("midpoint", 5): oracle.MIDPOINT_5,
    ("endpoint", 5): oracle.ENDPOINT_5,
    ("endpoint", 9): oracle.ENDPOINT_9,
    ("trapezoid", 3): oracle.TRAPEZOID_3,
    ("legendre", 2): oracle.LEGENDRE_2,
    ("midpoint", 1): [(0.5, 1.0)],
    ("endpoint", 1): [(1.0, 1.0)],
    ("legendre", 1): [(0.5, 1.0)],
    ("trapezoid", 2): [(0.0, 0.5), (1.0, 0.5)],
}


@pytest.mark.parametrize(("rule", "n"), list(WRITTEN_OUT))
def test_nodes_and_weights_equal_those_written_out(rule, n):
    found = list(zip(*quadrature(rule, n), strict=True))
    assert np.allclose(found, WRITTEN_OUT[rule, n], rtol=0, atol=1e-15)


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("n", [2, 3, 7, 40])
def test_weights_sum_to_one_and_nodes_ascend_within_the_interval(rule, n):
    nodes, weights = quadrature(rule, n)
    assert len(nodes) == len(weights) == n
    assert math.fsum(weights) == pytest.approx(1, abs=1e-14)
    assert min(weights) > 0
    assert nodes == sorted(set(nodes))
    assert 0 <= nodes[0] <= nodes[-1] <= 1


@pytest.mark.parametrize("rule", list(RULES))
def test_smooth_functions_are_integrated_ever_better(rule):
    def error(n: int) -> float:
        nodes, weights = quadrature(rule, n)
        return abs(math.fsum(w * math.exp(a) for a, w in zip(nodes, weights, strict=True)) - (math.e - 1))

    assert error(40) < 1e-3
    assert error(40) < error(4) / 50


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_legendre_is_exact_for_polynomials_of_degree_2n_minus_1(n):
    nodes, weights = quadrature("legendre", n)
    for degree in range(2 * n):
        integral = sum(w * a**degree for a, w in zip(nodes, weights, strict=True))
        assert integral == pytest.approx(1 / (degree + 1), abs=1e-14)
    assert sum(w * a ** (2 * n) for a, w in zip(nodes, weights, strict=True)) != pytest.approx(1 / (2 * n + 1))


def test_endpoint_rule_ends_at_the_unscaled_network():
    for n in (1, 2, 5, 9):
        assert quadrature("endpoint", n)[0][-1] == 1.0


def test_unusable_settings_are_refused():
    with pytest.raises(cpath.InputError, match="nodes must be at least 1"):
        quadrature("midpoint", 0)
    with pytest.raises(cpath.InputError, match="nodes ≥ 2"):
        quadrature("trapezoid", 1)
    with pytest.raises(cpath.UnknownNameError, match=r"unknown quadrature rule 'midpiont'. Did you mean midpoint"):
        quadrature("midpiont", 5)
    with pytest.raises(cpath.InputError, match="nodes must be at least 1"):
        cpath.methods.NeuronIntGrad(nodes=-3)
    with pytest.raises(cpath.InputError, match=r"neuron_intgrad.*knots"):
        cpath.methods.get("neuron_intgrad", knots=5)
