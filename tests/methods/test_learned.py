from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.inputs import Inputs
from cpath.methods import LearnedRanking, NeuronIntGrad, image_generators
from cpath.methods.shifts import MOST, shifted_copies, shifts
from cpath.methods.soft_top import soft_top, through_soft_top
from tests import texts, zoo
from tests.oracles import learned
from tests.oracles.networks import NETWORKS
from tests.oracles.units import numbers

# The first steps of Adam divide a gradient by itself, so that those near zero enlarge every rounding.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def budgets_of(images: Tensor, steps: int, units: int, ranked: int, seed: int = 0) -> list[float]:
    (generator,) = image_generators(images, seed, "learned_ranking")
    uniform = torch.rand(steps, generator=generator, dtype=torch.float64).tolist()
    return [min(units * 0.001 * 500**u, 0.95 * ranked) for u in uniform]


def moved(image: Tensor, right: int, down: int) -> Tensor:
    """Pixel by pixel; what enters at the border repeats it."""
    rows = [min(max(row - down, 0), image.shape[1] - 1) for row in range(image.shape[1])]
    columns = [min(max(column - right, 0), image.shape[2] - 1) for column in range(image.shape[2])]
    return image[:, rows][:, :, columns]


@pytest.mark.parametrize(
    ("name", "unit", "with_baseline", "dead_units", "target", "further"),
    [
        ("sequential", "neuron", False, False, None, {}),
        ("residual", "neuron", True, False, None, {"necessity": 0.7}),
        ("vgg", "channel", False, False, "other", {}),
        ("functional", "neuron", False, True, None, {"transfer": 3}),
        ("residual", "channel", True, False, "other", {"necessity": 0.7, "transfer": 2}),
    ],
)
def test_scores_are_those_of_plain_autograd_and_adam(name, unit, with_baseline, dead_units, target, further):
    model, images = zoo.make(name, torch.float64), zoo.images(2, dtype=torch.float64)
    weights = dict(model.state_dict())
    logits = model(images).detach()
    predicted = logits.argmax(1)
    other = logits.scatter(1, predicted[:, None], -torch.inf).argmax(1)
    asked = other if target == "other" else predicted
    baseline = (
        cpath.mean_activations(model, [zoo.images(5, dtype=torch.float64, seed=2)]) if with_baseline else None
    )
    method = LearnedRanking(steps=6, nodes=3, dead_units=dead_units, learning_rate=0.1, **further)
    scores = cpath.score(model, images, method, asked, unit=unit, baseline=baseline)
    first = cpath.score(model, images, NeuronIntGrad(nodes=3), asked, unit=unit, baseline=baseline)
    with cpath.observe(model) as seen:
        model(images)
    for index in range(2):
        outputs = {site: z[index] for site, z in seen.activations.items()}
        below = {
            site: torch.zeros_like(z) if baseline is None else baseline[site][0] for site, z in outputs.items()
        }
        ranked = []
        for site, z in outputs.items():
            of = numbers(tuple(z.shape), unit)
            moves = z != below[site]
            ranked += [dead_units or bool(moves[of == number].any()) for number in range(int(of.max()) + 1)]
        start = learned.ranks(first.flat[index].tolist(), ranked)
        pair = (int(predicted[index]), int(other[index]))
        ours = pair if target is None else pair[::-1]
        copies = []
        for move in shifts(further.get("transfer", 0), seed=0):
            copy = moved(images[index], *move)
            on_copy = model(copy[None]).detach()[0]
            best, second = on_copy.topk(2).values
            aim = on_copy[ours[0]] - on_copy[ours[1]] if target is None else best - second
            copies.append((copy, float(aim)))
        expected = learned.train(
            NETWORKS[name],
            weights,
            images[index],
            below,
            unit,
            start,
            scores.layout.sizes,
            budgets_of(images[index : index + 1], 6, scores.layout.units, sum(ranked)),
            classes=ours,
            goal=float(logits[index, pair[0]] - logits[index, pair[1]]),  # also of the other class
            learning_rate=0.1,
            temperature=0.2,
            necessity=further.get("necessity", 0.0),
            copies=copies,
        )
        finite = expected.isfinite()
        assert torch.equal(scores.flat[index] > 0, finite)
        shifted = (expected - expected[finite].min() + 0.2).masked_fill(~finite, 0)
        torch.testing.assert_close(scores.flat[index], shifted, **CLOSE)


def test_the_oracle_moves_the_parameters_by_more_than_it_is_compared_with():
    model, images = zoo.make("residual", torch.float64), zoo.images(2, dtype=torch.float64)
    before = cpath.score(model, images, LearnedRanking(steps=0))
    after = cpath.score(model, images, LearnedRanking(steps=6))
    assert (before.flat - after.flat).abs().max() > 0.1


# Gates


@pytest.mark.parametrize("units", [3, 50, 20_000])
@pytest.mark.parametrize("temperature", [0.02, 0.2, 3.0])
def test_gates_sum_to_the_budget(units, temperature):
    generator = torch.Generator().manual_seed(units)
    parameters = torch.randn(6, units, generator=generator, dtype=torch.float64) * 2
    parameters[4, ::2] = -torch.inf
    parameters[5] = 1.5
    budgets = units * torch.tensor([1e-4, 0.003, 0.2, 0.9, 0.3, 0.5], dtype=torch.float64)
    gates = soft_top(parameters, budgets, temperature)
    torch.testing.assert_close(gates.sum(1), budgets, rtol=1e-11, atol=0)
    assert (gates[4, ::2] == 0).all()
    for row in range(6):
        finite = parameters[row].isfinite()
        expected = learned.gates(parameters[row, finite], float(budgets[row]), temperature)
        torch.testing.assert_close(gates[row, finite], expected, rtol=1e-9, atol=1e-13)
        alone = soft_top(parameters[row : row + 1], budgets[row : row + 1], temperature)
        torch.testing.assert_close(alone[0], gates[row], rtol=1e-11, atol=0)


def test_gradient_passes_through_the_threshold():
    generator = torch.Generator().manual_seed(0)
    parameters = torch.randn(1, 9, generator=generator, dtype=torch.float64)
    slopes = torch.randn(1, 9, generator=generator, dtype=torch.float64)
    gates = soft_top(parameters, torch.tensor([3.3], dtype=torch.float64), 0.7)
    found = through_soft_top(slopes.clone(), gates, 0.7)
    leaf = parameters[0].clone().requires_grad_()
    (slopes[0] * learned.gates(leaf, 3.3, 0.7)).sum().backward()
    torch.testing.assert_close(found[0], leaf.grad, rtol=1e-9, atol=1e-12)
    assert abs(found.sum()) < 1e-12  # a constant added to all parameters changes no gate


# What it is for


def test_it_is_more_faithful_than_its_start_and_more_so_with_more_steps():
    model, images = zoo.make("residual"), zoo.images(6)
    cmd = [
        cpath.faithfulness(model, images, cpath.score(model, images, LearnedRanking(steps=steps))).cmd.mean()
        for steps in (0, 30, 200)
    ]
    assert cmd[2] < 0.75 * cmd[0]
    assert cmd[2] < cmd[1] < cmd[0]


def test_with_necessity_the_answer_is_gone_without_the_first_units():
    model, images = zoo.make("residual"), zoo.images(6)
    plain, both = (
        cpath.faithfulness(model, images, cpath.score(model, images, LearnedRanking(steps=80, necessity=weight)))
        for weight in (0.0, 1.0)
    )
    assert both.necessity_cmd.mean() < 0.7 * plain.necessity_cmd.mean()


def test_the_shift_that_is_measured_is_none_that_is_trained_on():
    images = zoo.images(2)
    copies = [copy.first for copy in shifted_copies(Inputs.of(images), MOST, seed=3)]
    assert len({tuple(move) for move in shifts(MOST, seed=3)}) == len(copies) == MOST
    measured = cpath.evaluation.copies.shift(images)
    assert not any(torch.equal(copy, measured) or torch.equal(copy, images) for copy in copies)
    assert shifts(5, seed=1) != shifts(5, seed=2)


def test_only_images_have_shifted_copies():
    with pytest.raises(cpath.InputError, match=r"only images \(B, C, H, W\) have shifted copies"):
        cpath.score(
            texts.encoder(), texts.texts(), LearnedRanking(steps=1, transfer=1), 0, sites="gelu", unit="token"
        )


def test_asked_for_the_runner_up_it_makes_the_network_prefer_that():
    model, images = zoo.make("residual"), zoo.images(6)
    logits = model(images).detach()
    other = logits.scatter(1, logits.argmax(1, keepdim=True), -torch.inf).argmax(1)
    scores = cpath.score(model, images, LearnedRanking(steps=200), other)
    with scores.pathway(80).restrict(model), torch.no_grad():
        restricted = model(images)
    assert (restricted.argmax(1) == other).sum() > (logits.argmax(1) == other).sum() == 0


def test_units_at_their_baseline_score_only_if_asked():
    model, images = zoo.make("vgg"), zoo.images()
    with cpath.observe(model) as seen, torch.no_grad():
        model(images)
    dead = {name: z == 0 for name, z in seen.activations.items()}
    assert any(bool(marked.any()) for marked in dead.values())
    plain = cpath.score(model, images, LearnedRanking(steps=2))
    everything = cpath.score(model, images, LearnedRanking(steps=2, dead_units=True))
    for name, marked in dead.items():
        assert torch.equal(plain.values[name] == 0, marked)
    assert (everything.flat > 0).all()


def test_inputs_that_do_not_fit_into_memory_together_are_trained_in_turn(monkeypatch):
    model, images = zoo.make("residual", torch.float64), zoo.images(3, dtype=torch.float64)
    method, sizes, train = LearnedRanking(steps=4), [], LearnedRanking._train
    together = cpath.score(model, images, method).flat

    def noted(self: LearnedRanking, probe: cpath.Probe, *rest: object) -> None:
        sizes.append(len(probe))
        train(self, probe, *rest)

    monkeypatch.setattr(LearnedRanking, "_train", noted)
    monkeypatch.setattr("cpath.methods.learned._BYTES", 1)
    in_turn = cpath.score(model, images, method).flat
    assert sizes == [1, 1, 1]
    torch.testing.assert_close(in_turn, together, **CLOSE)


def test_texts_with_attention_heads_and_a_function():
    model, inputs = texts.encoder(), texts.texts()

    def gap(output: texts.Output) -> Tensor:
        return output.logits[:, 1] - output.hidden.mean((1, 2))

    scores = cpath.score(
        model, inputs, LearnedRanking(steps=60), gap, sites=["attention", "gelu"], unit="token", max_batch=2
    )
    start = cpath.score(
        model, inputs, LearnedRanking(steps=0), gap, sites=["attention", "gelu"], unit="token", max_batch=2
    )
    keep = (10, 30, 50)
    found, before = (cpath.faithfulness(model, inputs, each, gap, keep=keep).cmd.mean() for each in (scores, start))
    assert found <= before
    assert scores.target is None


def test_an_answer_without_a_rise_keeps_the_first_order_and_is_counted():
    class Level(nn.Module):
        """The first input's neurons vote for both classes alike; the second's do not."""

        def __init__(self) -> None:
            super().__init__()
            self.votes = nn.Parameter(torch.tensor([[1.0, 1.0], [2.0, 2.0], [3.0, 0.5]], dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x) @ self.votes

    model = Level().eval()
    inputs = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.5, 2.0]], dtype=torch.float64)
    with pytest.warns(RuntimeWarning, match="answer to 1 of 2 inputs does not rise"):
        scores = cpath.score(model, inputs, LearnedRanking(steps=9), target=0)
    start = cpath.score(model, inputs[:1], NeuronIntGrad(), target=0)
    assert scores.flat[0].argsort().tolist() == start.flat[0].argsort().tolist()
    assert (scores.flat[0] > 0).tolist() == [True, True, False]
    alone = cpath.score(model, inputs[1:], LearnedRanking(steps=9), target=0)
    torch.testing.assert_close(alone.flat[0], scores.flat[1], **CLOSE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": -1}, "steps must be at least 0"),
        ({"nodes": 0}, "nodes must be at least 1"),
        ({"temperature": 0.0}, "temperature must be a positive number"),
        ({"learning_rate": math.inf}, "finite number"),
        ({"smallest": 0.0}, "per cents of all units"),
        ({"largest": 101.0}, "per cents of all units"),
        ({"smallest": 20.0, "largest": 10.0}, "per cents of all units"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"necessity": -0.1}, "necessity is a weight of at least 0"),
        ({"transfer": -1}, "transfer must be at least 0"),
        ({"transfer": 24}, "at most 23; got 24"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(cpath.InputError, match=message):
        LearnedRanking(**settings)
