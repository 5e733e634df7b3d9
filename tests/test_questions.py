"""Every method by unit and baseline against oracles: each pair of the three occurs, not every triple."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from tests import zoo
from tests.oracles import contribution
from tests.oracles import threshold as sorting
from tests.oracles import units as oracle
from tests.oracles.networks import NETWORKS, Network, Weights, linear

TIGHT = {"rtol": 1e-9, "atol": 1e-11}
METHODS = ("neuron_mct", "neuron_intgrad", "greedy", "dgr")
UNITS = ("neuron", "channel", "token", "head")
BASELINES = ("zero", "mean", "counterfactual")
# Of every method each unit, of every method each baseline, of every unit each baseline.
CHOSEN = [(m, u, BASELINES[(i + j) % 3]) for i, m in enumerate(METHODS) for j, u in enumerate(UNITS)]


class Tokens(nn.Module):
    """16 patches as tokens: ``act`` is (tokens, C), ``heads`` is (heads, tokens, d) of tokens that were mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 8)
        self.act = nn.ReLU(inplace=True)
        self.mix = nn.Linear(16, 16)
        self.heads = nn.ReLU()
        self.fc = nn.Linear(8, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        tokens = self.act(self.embed(tokens))
        mixed = self.mix(tokens.transpose(1, 2)).transpose(1, 2)
        split = self.heads(mixed.unflatten(2, (2, 4)).transpose(1, 2))
        return self.fc(split.transpose(1, 2).flatten(2).mean(1))


def tokens(w: Weights, x: Tensor, site) -> Tensor:
    patches = F.avg_pool2d(x, 2).flatten(2).transpose(1, 2)
    seen = site("act", linear(w, "embed", patches))
    mixed = linear(w, "mix", seen.transpose(1, 2)).transpose(1, 2)
    split = site("heads", torch.stack([mixed[..., :4], mixed[..., 4:]], 1))
    return linear(w, "fc", torch.cat([split[:, 0], split[:, 1]], 2).mean(1))


@dataclass
class Question:
    model: nn.Module
    network: Network
    weights: Weights
    images: Tensor
    unit: cpath.Units
    given: dict[str, Tensor] | None
    """What the user passes."""
    baselines: list[dict[str, Tensor]]
    """Of each image, for the oracle."""

    @property
    def asked(self) -> dict[str, object]:
        return {"unit": self.unit, "baseline": self.given}


def ask(unit: str, baseline: str, name: str | None = None) -> Question:
    of_tokens = unit in ("token", "head")
    model = zoo.make(Tokens if of_tokens else name or "sequential", torch.float64)
    network = tokens if of_tokens else NETWORKS[name or "sequential"]
    weights, images = dict(model.state_dict()), zoo.images(dtype=torch.float64)
    axes = {"token": {"heads": 1}, "head": {"act": 1, "heads": 0}}.get(unit)
    given: dict[str, Tensor] | None = None
    if baseline == "mean":
        given = cpath.mean_activations(model, [images[:2], images[2:]])
    elif baseline == "counterfactual":
        with cpath.observe(model) as seen, torch.no_grad():
            model(images.flip(0) + 0.3)
        given = seen.activations
    _, outputs = contribution.run(network, weights, images)
    if baseline == "zero":
        baselines = [{n: torch.zeros_like(z[0]) for n, z in outputs.items()}] * 3
    elif baseline == "mean":
        baselines = [{n: z.detach().mean(0) for n, z in outputs.items()}] * 3
    else:
        _, others = contribution.run(network, weights, images.flip(0) + 0.3)
        baselines = [{n: z[i].detach() for n, z in others.items()} for i in range(3)]
    return Question(model, network, weights, images, cpath.Units(unit, axes), given, baselines)


def assert_scores(scores: cpath.Scores, index: int, expected: list[dict[str, list[float]]]) -> None:
    for name, value in scores.values.items():
        found = value[index].flatten().double()
        torch.testing.assert_close(found, torch.tensor(expected[index][name], dtype=torch.float64).abs(), **TIGHT)
        signs = torch.tensor(expected[index][name], dtype=torch.float64)
        torch.testing.assert_close(scores.signed[name][index].flatten().double(), signs, **TIGHT)


@pytest.mark.parametrize(("method", "unit", "baseline"), CHOSEN)
def test_scores_and_what_follows_equal_oracle(method, unit, baseline):
    question = ask(unit, baseline)
    check = {"neuron_mct": check_mct, "neuron_intgrad": check_intgrad, "greedy": check_greedy, "dgr": check_dgr}
    scores = check[method](question, unit)
    assert scores.layout.unit == unit
    for sparsity in (0, 60):
        pathway = scores.pathway(sparsity)
        for masks, row in zip(pathway.flat, scores.flat, strict=True):
            assert sorting.trues(masks.tolist()) == sorting.kept(row.tolist(), sparsity)
        check_restricted(question, pathway, unit)


def check_mct(question: Question, unit: str) -> cpath.Scores:
    scores = cpath.score(question.model, question.images, "neuron_mct", **question.asked)
    expected = [
        {n: oracle.summed(v, unit) for n, v in _of_neurons(oracle.mct, question, scores, i).items()}
        for i in range(3)
    ]
    for index in range(3):
        assert_scores(scores, index, expected)
    return scores


def _of_neurons(contributions, question: Question, scores: cpath.Scores, index: int, *settings):
    return contributions(
        question.network,
        question.weights,
        question.images[index],
        int(scores.target[index]),
        question.baselines[index],
        *settings,
    )


def check_intgrad(question: Question, unit: str) -> cpath.Scores:
    method = cpath.methods.NeuronIntGrad(rule="trapezoid", nodes=3)
    scores = cpath.score(question.model, question.images, method, **question.asked)
    expected = []
    for index in range(3):
        values = _of_neurons(oracle.intgrad, question, scores, index, contribution.TRAPEZOID_3)
        expected.append({name: oracle.summed(value, unit) for name, value in values.items()})
        assert_scores(scores, index, expected)
        for name, value in _of_neurons(oracle.residuals, question, scores, index, values).items():
            assert float(scores.residual[name][index]) == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True)
    return scores


def check_greedy(question: Question, unit: str) -> cpath.Scores:
    scores = cpath.score(question.model, question.images, cpath.methods.Greedy(rounds=4), **question.asked)
    for index in range(3):
        removed = _of_neurons(oracle.rounds_of_removal, question, scores, index, unit, 4, 2.0)
        which = [(name, i) for name, size in scores.layout.sizes.items() for i in range(size)]
        found = scores.flat[index].tolist()
        assert [int(score) for score in found] == [removed.get(one, (0, 0.0))[0] for one in which]
        order = sorted((one for one in which if one in removed), key=lambda one: removed[one])
        at = dict(zip(which, found, strict=True))
        assert [at[one] for one in order] == sorted(at[one] for one in order)
    return scores


def check_dgr(question: Question, unit: str) -> cpath.Scores:
    settings = {"iterations": 6, "learning_rate": 0.3, "momentum": 0.9, "gamma": 0.05}
    scores = cpath.score(
        question.model, question.images, cpath.methods.DGR(**settings, retries=0), **question.asked
    )
    for index in range(3):
        gates = oracle.route(
            question.network,
            question.weights,
            question.images[index],
            question.baselines[index],
            unit,
            **settings,
        )
        assert gates is not None
        for name, value in scores.values.items():
            torch.testing.assert_close(value[index].flatten(), gates[name], **TIGHT)
    return scores


def check_restricted(question: Question, pathway: cpath.Pathway, unit: str) -> None:
    """The restricted network's logits, its gradient, and the radius in which it is affine."""
    with pathway.restrict(question.model), torch.no_grad():
        logits = question.model(question.images)
    gradients = cpath.pathway_gradient(question.model, question.images, pathway)
    for index, image in enumerate(question.images):
        of_image = (question.network, question.weights, image)
        baseline = question.baselines[index]
        kept = {
            name: oracle.spread(mask[index].flatten().double(), tuple(baseline[name].shape), unit)
            for name, mask in pathway.masks.items()
        }
        torch.testing.assert_close(logits[index], oracle.run(*of_image, baseline, kept)[0], **TIGHT)
        expected = oracle.input_gradient(*of_image, int(pathway.target[index]), baseline, kept)
        torch.testing.assert_close(gradients[index], expected, **TIGHT)


@pytest.mark.parametrize("name", ["residual", "vgg", "functional", "fire"])
@pytest.mark.parametrize("method", ["neuron_mct", "greedy"])
def test_channels_against_a_mean_equal_oracle_in_networks_that_change_sites_in_place(name, method):
    question = ask("channel", "mean", name)
    scores = {"neuron_mct": check_mct, "greedy": check_greedy}[method](question, "channel")
    check_restricted(question, scores.pathway(50), "channel")


@pytest.mark.parametrize("unit", UNITS)
def test_active_units_have_an_active_neuron(unit):
    question = ask(unit, "zero")
    scores = cpath.score(question.model, question.images, "active", **question.asked)
    _, outputs = contribution.run(question.network, question.weights, question.images)
    for name, value in scores.values.items():
        for index in range(3):
            count = oracle.summed((outputs[name][index] > 0).double(), unit)
            assert value[index].flatten().tolist() == [float(one > 0) for one in count]
    with cpath.observe(question.model) as seen, torch.no_grad():
        question.model(question.images)
    everything = cpath.Pathway.from_masks(
        {name: torch.ones_like(value).bool() for name, value in scores.values.items()}, unit=question.unit
    )
    dead = 1 - scores.flat.mean(1)
    torch.testing.assert_close(everything.dead_share(seen.activations), dead, **TIGHT)


def test_a_channel_is_dead_only_if_all_its_neurons_are():
    masks = {"a": torch.tensor([True, True, False, False]).view(1, 4, 1, 1)}
    pathway = cpath.Pathway.from_masks(masks, unit="channel")
    z = torch.zeros(1, 4, 2, 2)
    z[0, 0, 1, 0] = 3.0  # kept, one of four neurons alive
    z[0, 3, 0, 0] = 3.0  # pruned
    assert pathway.dead({"a": z}).tolist() == [[False, True, True, False]]
    assert pathway.dead_share({"a": z}).item() == 0.5
    assert pathway.sparsity.item() == 50


@pytest.mark.parametrize("unit", UNITS)
def test_random_draws_one_number_a_unit(unit):
    question = ask(unit, "zero")
    scores = cpath.score(question.model, question.images, "random", **question.asked)
    sizes = {"neuron": 256 + 96 + 10, "channel": 4 + 6 + 10, "token": 16 + 16, "head": 8 + 2}
    assert scores.flat.shape == (3, sizes[unit])
    assert len(scores.flat.unique()) == 3 * sizes[unit]
    generators = cpath.methods.image_generators(question.images, 0, "random")
    drawn = torch.stack([torch.rand(sizes[unit], generator=g) for g in generators])
    assert torch.equal(scores.flat, drawn.double())


@pytest.mark.parametrize("method", ["neuron_intgrad_released", "greedy_released"])
def test_released_methods_refuse_what_the_released_code_cannot_do(method):
    question = ask("channel", "mean")
    for asked in ({"unit": "channel"}, {"baseline": question.given}):
        with pytest.raises(cpath.InputError, match=f"per neuron and against zero: use '{method[:-9]}'"):
            cpath.score(question.model, question.images, method, **asked)


def test_a_users_method_is_summed_over_units_and_measured_against_its_own_baseline():
    class Output(cpath.Method):
        name = "output"

        def contributions(self, probe):
            record = probe.record(gradients=False)
            return {n: -probe.above_baseline(n, z) for n, z in record.activations.items()}

    question = ask("channel", "mean")
    scores = cpath.score(question.model, question.images, Output(), **question.asked)
    _, outputs = contribution.run(question.network, question.weights, question.images)
    for name, value in scores.signed.items():
        for index in range(3):
            expected = oracle.summed(question.baselines[index][name] - outputs[name][index], "channel")
            torch.testing.assert_close(value[index].flatten(), torch.tensor(expected, dtype=torch.float64), **TIGHT)


def test_attribute_has_pathways_of_units_against_baselines():
    question = ask("channel", "counterfactual")
    pathway = cpath.find_pathway(question.model, question.images, "neuron_mct", 60, **question.asked)
    found = cpath.attribute(
        question.model, question.images, "neuron_mct", sparsity=60, max_batch=2, **question.asked
    )
    expected = cpath.pathway_gradient(question.model, question.images, pathway)
    torch.testing.assert_close(found, expected, **TIGHT)
    plain = cpath.attribute(question.model, question.images, "neuron_mct", sparsity=60)
    assert not torch.allclose(found, plain)
    with pytest.raises(cpath.InputError, match="'gradients' has no pathway, and so neither unit nor baseline"):
        cpath.attribute(question.model, question.images, "gradients", unit="channel")


def test_batch_gives_what_its_images_give_one_by_one():
    question = ask("channel", "counterfactual")
    for method in METHODS:
        method = zoo.quick(method)
        whole = cpath.score(question.model, question.images, method, **question.asked, max_batch=2)
        for index in range(3):
            one = cpath.score(
                question.model,
                question.images[index : index + 1],
                method,
                unit=question.unit,
                baseline={name: value[index : index + 1] for name, value in question.given.items()},
            )
            torch.testing.assert_close(whole[index].flat, one.flat, **TIGHT)
            assert torch.equal(whole[index].baseline["1"], one.baseline["1"])
