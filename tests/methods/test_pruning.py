import struct

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.methods import Greedy
from tests import zoo
from tests.oracles import pruning as oracle
from tests.oracles import threshold as sorting
from tests.oracles.networks import NETWORKS, Network, Weights


@pytest.fixture(params=list(NETWORKS))
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Network, Weights]:
    model = zoo.make(request.param, torch.float64)
    return model, NETWORKS[request.param], dict(model.state_dict())


@pytest.fixture
def images() -> Tensor:
    return zoo.images(dtype=torch.float64)


class Inhibited(nn.Module):
    """h = relu(x); b = relu(0.5 − h₁) is dead while h₁ is there; f₀ = 0.1 h₁ + h₂ + b; h₃ reaches no logit."""

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(x)
        b = F.relu(0.5 - h[:, :1])
        response = 0.1 * h[:, :1] + h[:, 1:2] + b
        return torch.cat([response, response - 1], 1)


@pytest.mark.parametrize(("rounds", "power"), [(1, 2.0), (4, 1.0), (5, 2.0), (10, 2.0), (7, 0.5)])
def test_order_of_removal_equals_oracle(pair, images, rounds, power):
    model, network, weights = pair
    scores = cpath.score(model, images, Greedy(rounds=rounds, power=power))
    for index, image in enumerate(images):
        target = int(scores.target[index])
        removed = oracle.rounds_of_removal(network, weights, image, target, rounds, power)
        neurons = [(name, i) for name, size in scores.layout.sizes.items() for i in range(size)]
        found = scores.flat[index].tolist()
        assert [int(score) for score in found] == [removed.get(neuron, (0, 0.0))[0] for neuron in neurons]
        places = oracle.places(removed)
        expected = [float(places.get(neuron, 0)) for neuron in neurons]
        went = sorted(score for score in found if score > 0)
        assert [1.0 + went.index(score) if score > 0 else 0.0 for score in found] == expected
        for sparsity in (0, 50, 80, 95):
            masks = scores.pathway(sparsity).flat[index].tolist()
            assert sorting.trues(masks) == sorting.kept(expected, sparsity)


def test_order_follows_a_chosen_class(images):
    model = zoo.make("vgg", torch.float64)
    scores = cpath.score(model, images[:1], Greedy(rounds=3), target=4)
    removed = oracle.rounds_of_removal(NETWORKS["vgg"], dict(model.state_dict()), images[0], 4, 3, 2.0)
    went = sum(int(score) > 0 for score in scores.flat[0].tolist())
    assert went == len(removed)
    assert not torch.equal(scores.flat, cpath.score(model, images[:1], Greedy(rounds=3), target=0).flat)


def test_removal_brings_a_dead_neuron_to_life_and_then_it_counts():
    # Round 1 measures h₁: 0.1, h₂: 2, h₃: 0 and leaves one of the three; without h₁, b comes to life with 0.5.
    scores = cpath.score(
        Inhibited(), torch.tensor([[1.0, 2.0, 3.0, -1.0]]), Greedy(rounds=2, power=1), sites=":relu"
    )
    # Round 2 removes the rest, in the order of what it contributes now: b 0.5, h₂ 2.
    h1, h2, h3, h4 = scores.values[":relu"][0].tolist()
    b = scores.values[":relu#2"].item()
    assert (h4, h3) == (0, 1)
    assert h3 < h1 < 2 < b < h2 < 3


def test_neurons_that_tie_go_together_and_score_the_same():
    class Twins(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            response = F.relu(x).sum(1, keepdim=True)
            return torch.cat([response, -response], 1)

    images = torch.tensor([[1.0, 1.0, 2.0, 2.0, 3.0, -1.0]])
    for method, rounds in [
        # Of the five that are active, round 1 leaves ⌊5/2⌋ and so removes three; the fourth ties with the third.
        (Greedy(rounds=2, power=1), [1, 1, 1, 1, 2, 0]),
        (Greedy(rounds=1), [1, 1, 1, 1, 1, 0]),
    ]:
        found = cpath.score(Twins(), images, method, sites=":relu").flat[0].tolist()
        assert [int(score) for score in found] == rounds
        assert found[0] == found[1] < found[2] == found[3] < found[4]


def test_rounds_that_have_nothing_to_remove_cost_no_pass():
    class Vanishing(nn.Module):
        """The second site is all that is left when the first is pruned."""

        passes = zoo.Counter()

        def forward(self, x: Tensor) -> Tensor:
            self.passes.value += 1
            response = F.relu(x)[:, :1]
            return torch.cat([response, -response], 1)

    model = Vanishing()
    # Nine of ten are active with no contribution: round 1 removes all nine, and for eight rounds one is few enough.
    found = cpath.score(model, torch.arange(1.0, 11.0)[None], Greedy(rounds=10, power=1), sites=":relu")
    assert found.flat.int().tolist() == [[10] + [1] * 9]
    assert model.passes.value == 2 + 2  # two to look at the model


def test_greedy_pathways_hold_dead_neurons_and_those_of_neuron_mct_none(model, images):
    images = images.float()
    with cpath.observe(model) as seen:
        model(images)
    shares = {
        name: cpath.find_pathway(model, images, name, 70).dead_share(seen.activations)
        for name in ("greedy", "neuron_mct")
    }
    assert (shares["neuron_mct"] == 0).all()
    assert shares["greedy"].mean() > 0


@pytest.mark.parametrize("value", [0.0, 1e-45, 1.0, 1.0 + 2**-23, 3.0e38])
def test_the_fraction_holds_every_bit_of_a_contribution(value):
    class One(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            response = F.relu(x) * value
            return torch.cat([response, -response], 1)

    found = cpath.score(One(), torch.ones(1, 1), Greedy(rounds=1), sites=":relu").flat.item()
    bits = struct.unpack("<i", struct.pack("<f", value))[0]
    assert found == 1 + bits / 2**31


def test_half_precision_is_ordered_as_it_is(images):
    found = cpath.score(zoo.make("vgg", torch.bfloat16), images.bfloat16(), "greedy")
    assert found.pathway(80).sparsity.min() >= 80


@pytest.mark.parametrize("settings", [{"rounds": 0}, {"power": 0}, {"power": float("inf")}, {"round": 3}])
def test_unusable_settings_are_refused(settings):
    with pytest.raises(cpath.InputError, match=next(iter(settings))):
        cpath.methods.get("greedy", **settings)


class Rooted(nn.Module):
    """f₀ = √z₁ + z₂ + z₃: its slope in z₁ is infinite once z₁ is gone."""

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(x)
        response = z[:, :1].sqrt() + z[:, 1:2] + z[:, 2:]
        return torch.cat([response, -response], 1)


@pytest.mark.parametrize("name", ["greedy", "greedy_released"])
def test_gradients_that_overflow_in_a_later_round_are_noticed(name):
    images = torch.tensor([[0.01, 4.0, 3.0], [0.0, 4.0, 3.0]])
    one_round = cpath.score(Rooted(), images[:1], cpath.methods.get(name, rounds=1), sites=":relu")
    assert one_round.flat.isfinite().all()
    for image, rounds in ((images[:1], 3), (images[1:], 1)):
        with pytest.raises(cpath.InputError, match=f"method '{name}' gave NaN contributions"):
            cpath.score(Rooted(), image, cpath.methods.get(name, rounds=rounds), sites=":relu")


def test_threads_that_share_the_images_find_what_one_finds():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 5))
    images = torch.randn(4, 3, 48, 48)  # 84,640 neurons: enough for the threads to take an image each
    alone = cpath.score(model, images, Greedy(rounds=4)).flat
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        shared = cpath.score(model, images, Greedy(rounds=4)).flat
    finally:
        torch.set_num_threads(before)
    # Gradients may differ in their last bits, and so may the order of neurons that are about equal.
    assert torch.equal(alone.floor() > 0, shared.floor() > 0)
    same = alone.floor() == shared.floor()
    assert same.double().mean() > 0.9999
    torch.testing.assert_close(alone[same], shared[same], rtol=0, atol=1e-4)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.project, self.merge = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        query, key, value = self.project(x).view(*x.shape[:2], 3, 2, 4).permute(2, 0, 3, 1, 4)
        return self.merge(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(x.shape))


class Reader(nn.Module):
    """A transformer that does not know places: a token that occurs twice has the same outputs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(20, 8), nn.Linear(8, 3)
        self.blocks, self.mlp = nn.ModuleList(Attention() for _ in range(2)), nn.Linear(8, 8)

    def forward(self, tokens):
        hidden = self.embed(tokens)
        for block in self.blocks:
            hidden = hidden + block(hidden)
            hidden = hidden + F.gelu(self.mlp(hidden))
        return self.out(hidden.mean(1))


@pytest.mark.parametrize(
    ("sites", "unit", "with_baseline"),
    [
        ("Attention", "neuron", False),
        (("attention", "gelu"), "neuron", False),
        (("attention", "gelu"), "neuron", True),
        (("blocks.*", "attention"), "token", False),
        (("blocks.*", "attention"), "token", True),
        (("blocks.*", "attention"), "channel", False),  # a block's output is that of its last module: equal units
    ],
)
def test_in_float64_units_that_contribute_the_same_go_together_in_a_batch_as_alone(sites, unit, with_baseline):
    torch.manual_seed(0)
    model = Reader().double().eval()
    tokens = torch.tensor([[18, 14, 12, 2, 18], [17, 14, 13, 8, 2], [3, 16, 11, 13, 9], [3, 11, 3, 0, 7]])
    with cpath.observe(model, sites=sites) as seen, torch.no_grad():
        model(tokens.flip(0))  # the last input shares its first token with that of the baseline
    asked = {"target": 0, "sites": sites, "unit": unit}

    def score(rows):
        baseline = {name: value[rows] for name, value in seen.activations.items()} if with_baseline else None
        return cpath.score(model, tokens[rows], Greedy(rounds=3), baseline=baseline, **asked)

    together = score(slice(None))
    for row in range(4):
        alone = score(slice(row, row + 1))
        assert torch.allclose(together.flat[row], alone.flat[0], rtol=0, atol=2**-20), row
        if unit == "neuron" and row in (0, 3):  # the same token at two places
            first, second = {0: (0, 4), 3: (0, 2)}[row]
            for name, value in alone.values.items():
                if not name.endswith(":attention") and not with_baseline:
                    assert torch.allclose(value[0, first], value[0, second], rtol=0, atol=2**-20), name
