from collections import UserList

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.methods import DGR, DGRRandomInit
from tests import zoo
from tests.oracles import routing as oracle
from tests.oracles.networks import NETWORKS, Network, Weights

TIGHT = {"rtol": 1e-9, "atol": 1e-11}
LIVELY = {"iterations": 12, "learning_rate": 0.3, "momentum": 0.9, "gamma": 0.05}
"""Enough to move gates far."""


@pytest.fixture(params=list(NETWORKS))
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Network, Weights]:
    model = zoo.make(request.param, torch.float64)
    return model, NETWORKS[request.param], dict(model.state_dict())


@pytest.fixture
def images() -> Tensor:
    return zoo.images(dtype=torch.float64)


def starts(scores: cpath.Scores, flat: Tensor) -> list[dict[str, Tensor]]:
    """Gates to start from, by image and site."""
    return [
        {name: values[index : index + 1].double() for name, values in scores.layout.views(flat).items()}
        for index in range(len(flat))
    ]


def random_starts(scores: cpath.Scores, images: Tensor, seed: int) -> list[dict[str, Tensor]]:
    generators = cpath.methods.image_generators(images, seed, "dgr_random_init")
    drawn = torch.stack([torch.rand(scores.layout.units, generator=generator) for generator in generators])
    return starts(scores, drawn)


def assert_equals_oracle(scores, network, weights, images, start, settings):
    divisions = []
    for index, image in enumerate(images):
        gates, count = oracle.route(network, weights, image, start[index], **settings)
        divisions.append(count)
        for name, values in scores.values.items():
            expected = torch.zeros_like(values[index]) if gates is None else gates[name][0]
            torch.testing.assert_close(values[index], expected, **TIGHT)
    return divisions


def test_gates_from_one_equal_oracle(pair, images):
    model, network, weights = pair
    scores = cpath.score(model, images, DGR(**LIVELY))
    start = starts(scores, torch.ones_like(scores.flat))
    assert_equals_oracle(scores, network, weights, images, start, LIVELY)
    assert len(scores.flat.unique()) > 50


@pytest.mark.filterwarnings("ignore:dgr_random_init")
def test_gates_from_random_ones_equal_oracle(pair, images):
    model, network, weights = pair
    settings = {**LIVELY, "retries": 2}
    scores = cpath.score(model, images, DGRRandomInit(**settings, seed=3))
    assert_equals_oracle(scores, network, weights, images, random_starts(scores, images, 3), settings)


def test_gates_are_clamped(images):
    model = zoo.make("vgg", torch.float64)
    settings = {**LIVELY, "learning_rate": 2.0, "max_gate": 1.5}
    scores = cpath.score(model, images, DGR(**settings))
    assert scores.flat.max() == 1.5
    assert scores.flat.min() == 0
    start = starts(scores, torch.ones_like(scores.flat))
    assert_equals_oracle(scores, NETWORKS["vgg"], dict(model.state_dict()), images, start, settings)


class Counting(nn.Module):
    """Notes how many images each forward pass takes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.batches: UserList[int] = UserList()  # a list would be put back

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return self.model(x)


@pytest.mark.parametrize(
    ("name", "gamma", "divisions"),
    [("vgg", 0.6, [0, 0, 1]), ("functional", 0.9, [0, 0, 1]), ("residual", 0.9, [1, 1, 2])],
)
def test_gamma_is_divided_for_the_images_that_need_it_and_no_others(images, name, gamma, divisions):
    model = zoo.make(name, torch.float64)
    settings = {"iterations": 3, "learning_rate": 1.0, "momentum": 0.9, "gamma": gamma}
    scores = cpath.score(model, images, DGR(**settings))
    start = starts(scores, torch.ones_like(scores.flat))
    weights = dict(model.state_dict())
    assert assert_equals_oracle(scores, NETWORKS[name], weights, images, start, settings) == divisions
    for index in range(3):
        alone = cpath.score(model, images[index : index + 1], DGR(**settings))
        torch.testing.assert_close(alone.flat[0], scores.flat[index], **TIGHT)


@pytest.mark.filterwarnings("ignore:dgr")
@pytest.mark.parametrize("name", ["vgg", "functional", "residual"])
def test_a_gamma_that_closes_every_gate_is_divided_as_often_as_it_takes(images, name):
    model = zoo.make(name, torch.float64)
    settings = {"iterations": 3, "learning_rate": 1.0, "momentum": 0.9, "gamma": 1e6}
    scores = cpath.score(model, images, DGR(**settings))
    start = starts(scores, torch.ones_like(scores.flat))
    weights = dict(model.state_dict())
    divisions = assert_equals_oracle(scores, NETWORKS[name], weights, images, start, settings)
    assert max(divisions) >= 6


def test_retries_end_when_gamma_is_below_rounding(images):
    model = Counting(zoo.make("residual", torch.float64))
    settings = {"iterations": 2, "learning_rate": 1e-3, "momentum": 0.9, "gamma": 0.05}
    with pytest.warns(RuntimeWarning, match="no gates kept the predicted class for 3 of 3 images"):
        scores = cpath.score(model, images, DGRRandomInit(**settings))
    assert not scores.flat.any()
    tries = (
        len(model.batches) - 5
    ) // 3  # the look at the model and the record come first; a try takes two steps and a last look
    assert 10 < tries < 25
    weights = dict(model.model.state_dict())
    for index, start in enumerate(random_starts(scores, images, 0)):  # by the book, all hundred retries are in vain
        start = {name.removeprefix("model."): gates for name, gates in start.items()}
        assert oracle.route(NETWORKS["residual"], weights, images[index], start, **settings) == (None, 100)


def test_images_that_are_done_cost_nothing_while_others_try_again(images):
    model = Counting(zoo.make("vgg", torch.float64))
    cpath.score(model, images, DGR(iterations=3, learning_rate=1.0, gamma=0.6))
    # A look at the model, the record, two passes of one image that look for in-place activations; then two tries of
    # three steps and a last look.
    assert model.batches == [1, 2] + [3] + [1] * 2 + [3] * 4 + [1] * 4


def test_image_that_no_try_solves_scores_zero_with_a_warning(images):
    model = zoo.make("vgg", torch.float64)
    settings = {"iterations": 3, "learning_rate": 1.0, "gamma": 0.6, "retries": 0}
    with pytest.warns(RuntimeWarning, match="dgr: no gates kept the predicted class for 1 of 3 images"):
        scores = cpath.score(model, images, DGR(**settings))
    assert (scores.flat > 0).any(1).tolist() == [True, True, False]
    assert scores.pathway(80).sparsity[2] == 100


@pytest.mark.filterwarnings("ignore:dgr_random_init")
def test_images_do_not_influence_one_another(images):
    model = zoo.make("residual", torch.float64)
    method = DGRRandomInit(**LIVELY, retries=1)
    batch = cpath.score(model, images, method).flat
    other = images.clone()
    other[0] = images[0].flip(-1) * 3
    changed = cpath.score(model, other, method).flat
    torch.testing.assert_close(changed[1:], batch[1:], **TIGHT)
    assert not torch.equal(changed[0], batch[0])


def test_gates_of_a_site_that_the_response_ignores_only_shrink(images):
    class Sideways(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.fc = nn.Linear(4, zoo.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            F.relu(x + 1)
            return self.fc(F.relu(self.conv(x)).mean((2, 3)))

    found = cpath.score(zoo.make(Sideways, torch.float64), images, DGR(iterations=1, learning_rate=0.1, gamma=0.5))
    assert torch.equal(found.values[":relu"], torch.full_like(found.values[":relu"], 0.95))


@pytest.mark.filterwarnings("ignore:dgr_random_init")
def test_random_start_is_uniform_and_follows_its_seed(images):
    model = zoo.make("sequential", torch.float64)
    still = {"iterations": 1, "learning_rate": 0.0, "retries": 0}
    found = cpath.score(model, images, DGRRandomInit(**still)).flat
    kept = found[(found > 0).any(1)]
    assert len(kept)
    assert kept.max() <= 1
    assert abs(kept.mean() - 0.5) < 0.05
    again = cpath.score(model, images, DGRRandomInit(**still, seed=1)).flat
    assert not torch.equal(found, again)


def test_the_target_plays_no_part(images):
    model = zoo.make("vgg", torch.float64)
    asked = cpath.score(model, images, DGR(**LIVELY), target=0)
    assert asked.target.tolist() == [0, 0, 0]
    assert torch.equal(asked.flat, cpath.score(model, images, DGR(**LIVELY)).flat)


def test_half_precision_has_gates_of_float32(images):
    found = cpath.score(zoo.make("vgg", torch.bfloat16), images.bfloat16(), DGR(iterations=2)).flat
    assert found.dtype == torch.float32
    assert 0.999 < found.mean() < 1


@pytest.mark.parametrize(
    "settings",
    [{"iterations": 0}, {"retries": -1}, {"momentum": 1.0}, {"gamma": -0.1}, {"learning_rate": float("nan")}],
)
@pytest.mark.parametrize("name", ["dgr", "dgr_random_init"])
def test_unusable_settings_are_refused(name, settings):
    with pytest.raises(cpath.InputError, match=next(iter(settings))):
        cpath.methods.get(name, **settings)


def test_negative_seed_is_refused():
    with pytest.raises(cpath.InputError, match="seed"):
        DGRRandomInit(seed=-1)


def test_the_published_settings_are_the_defaults():
    assert DGR() == DGR(iterations=1000, learning_rate=0.01, momentum=0.9, gamma=0.01, max_gate=100, retries=100)
    assert DGRRandomInit().iterations == 1000
