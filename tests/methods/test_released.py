from __future__ import annotations

import numpy as np
import pytest
import torch

import cpath
from cpath.methods import GreedyReleased, NeuronIntGradReleased
from tests import zoo
from tests.oracles import released as oracle
from tests.oracles.networks import NETWORKS

TIGHT = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture(params=list(NETWORKS))
def pair(request):
    model = zoo.make(request.param, torch.float64)
    return model, NETWORKS[request.param], dict(model.state_dict())


@pytest.fixture
def images():
    return zoo.images(dtype=torch.float64)[:2]


def test_accumulated_scales_are_those_of_the_released_loop():
    assert pytest.approx(oracle.SCALES) == cpath.methods.released.ACCUMULATED_SCALES


def test_neuron_intgrad_released_equals_the_oracle(pair, images):
    model, network, weights = pair
    scores = cpath.score(model, images, NeuronIntGradReleased(), target=1)
    for index, image in enumerate(images):
        for site, values in scores.values.items():
            expected = oracle.intgrad(network, weights, image, 1, site)
            torch.testing.assert_close(values[index], expected.abs(), **TIGHT)


def test_neuron_intgrad_released_is_far_from_complete_where_the_definition_is_not(images):
    model = zoo.make("residual", torch.float64)
    released = cpath.score(model, images, NeuronIntGradReleased()).residual
    defined = cpath.score(model, images, "neuron_intgrad").residual
    worst = {name: (released[name] / defined[name]).max().item() for name in released}
    assert max(worst.values()) > 10


@pytest.mark.parametrize("rounds", [1, 4])
@pytest.mark.parametrize("sparsity", [30.0, 60.0])
@pytest.mark.parametrize("round_zero", [False, True])
def test_greedy_released_keeps_what_the_released_loop_keeps(pair, images, rounds, sparsity, round_zero):
    model, network, weights = pair
    pathway = cpath.find_pathway(
        model, images, GreedyReleased(rounds=rounds, round_zero=round_zero), sparsity, target=1
    )
    for index, image in enumerate(images):
        expected = oracle.greedy(network, weights, image, 1, rounds, sparsity, 0 if round_zero else 1)
        for site, mask in pathway.masks.items():
            assert torch.equal(mask[index], expected[site])


def test_greedy_released_misses_the_sparsity_and_keeps_dead_neurons(images):
    model = zoo.make("vgg", torch.float64)
    pathway = cpath.find_pathway(model, images, GreedyReleased(rounds=5), sparsity=90)
    assert (pathway.sparsity < 80).all()
    with cpath.observe(model) as seen:
        model(images)
    assert (pathway.dead_share(seen.activations) > 0.2).all()
    assert cpath.find_pathway(model, images, "greedy", sparsity=90).sparsity.ge(90).all()


def test_only_the_released_greedy_has_to_know_the_sparsity():
    assert GreedyReleased().at(80) == GreedyReleased(sparsity=80)
    assert not GreedyReleased.graded
    for name in set(cpath.methods.names()) - {"greedy_released"}:
        method = cpath.methods.get(name)
        assert method.at(80) is method


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"sparsity": 100}, {"sparsity": -1}])
def test_unusable_settings_are_refused(settings):
    with pytest.raises(cpath.InputError):
        GreedyReleased(**settings)


def test_the_sparsity_may_be_a_number_of_numpy(images):
    model = zoo.make("vgg", torch.float64)
    expected = cpath.score(model, images, GreedyReleased(sparsity=60.0)).flat
    for sparsity in (np.float64(60), np.int64(60)):
        assert torch.equal(cpath.score(model, images, GreedyReleased(sparsity=sparsity)).flat, expected)


@pytest.mark.parametrize("method", ["greedy_released", "active"])
def test_what_was_asked_for_stands_in_the_pathway(images, method):
    pathway = cpath.find_pathway(zoo.make("vgg", torch.float64), images, method, 90)
    assert pathway.requested_sparsity == 90
    assert pathway.flat.any(1).all()
