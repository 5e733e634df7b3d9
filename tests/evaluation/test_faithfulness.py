from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.evaluation import KEEP
from tests import texts, zoo
from tests.oracles.faithfulness import curves

CLOSE = {"rtol": 1e-9, "atol": 1e-9}
SIZES = (0.5, 3.0, 20.0, 50.0, 100.0)


def margin(target: int, other: int) -> Callable[[Tensor], Tensor]:
    return lambda output: output[0, target] - output[0, other]


def best_other(logits: Tensor, target: int) -> int:
    return max((c for c in range(len(logits)) if c != target), key=lambda c: float(logits[c].detach()))


def of_input(values: dict[str, Tensor] | None, index: int) -> dict[str, Tensor] | None:
    return values and {name: value[index if len(value) > 1 else 0] for name, value in values.items()}


# Against the book

METHODS = cpath.methods.names()
UNITS = ("neuron", "channel")
BASELINES = ("zero", "mean", "other")
# Every method with some unit and baseline, and every unit with every baseline.
CASES = [
    (method, "neuron", "zero", "sequential")
    if method.endswith("_released")  # the released code knows no other units and baselines
    else (method, UNITS[number % 2], BASELINES[number % 3], ("residual", "vgg", "fire")[number // 2 % 3])
    for number, method in enumerate(METHODS)
] + [("neuron_mct", unit, baseline, "residual") for unit, baseline in product(UNITS, BASELINES)]


def baseline_of(kind: str, model: nn.Module, images: Tensor) -> dict[str, Tensor] | None:
    if kind == "zero":
        return None
    if kind == "mean":
        return cpath.mean_activations(model, [zoo.images(5, dtype=torch.float64, seed=3)])
    with cpath.observe(model) as seen, torch.no_grad():
        model(images.flip(0))
    return seen.activations


@pytest.mark.parametrize(("method", "unit", "baseline", "name"), CASES)
def test_curves_are_those_of_plain_hooks(method, unit, baseline, name):
    model, images = zoo.make(name, torch.float64), zoo.images(2, dtype=torch.float64)
    values = baseline_of(baseline, model, images)
    scores = cpath.score(model, images, zoo.quick(method), unit=unit, baseline=values)
    found = cpath.faithfulness(model, images, scores, keep=SIZES)
    assert found.keep.tolist() == list(SIZES)
    for index in range(2):
        logits = model(images[index : index + 1])[0]
        target = int(logits.argmax())
        other = best_other(logits, target)
        of_units = {site: score[index].flatten().tolist() for site, score in scores.values.items()}
        sufficiency, necessity = curves(
            model,
            lambda net, index=index: net(images[index : index + 1]),
            margin(target, other),
            of_units,
            SIZES,
            unit=unit,
            baseline=of_input(None if values is None else scores.baseline, index),
        )
        torch.testing.assert_close(found.sufficiency[index].tolist(), sufficiency, **CLOSE)
        torch.testing.assert_close(found.necessity[index].tolist(), necessity, **CLOSE)
        assert found.cpr[index].item() == pytest.approx(sum(sufficiency) / len(SIZES))
        assert found.cmd[index].item() == pytest.approx(sum(abs(1 - f) for f in sufficiency) / len(SIZES))
        assert found.necessity_cpr[index].item() == pytest.approx(sum(necessity) / len(SIZES))
        assert found.necessity_cmd[index].item() == pytest.approx(sum(abs(1 - f) for f in necessity) / len(SIZES))
        assert (int(found.target[index]), int(found.against[index])) == (target, other)


def difference(output: texts.Output) -> Tensor:
    return output.logits[:, 0] - output.hidden.mean((1, 2))


@pytest.mark.parametrize(
    ("sites", "unit", "target"),
    [
        (("gelu",), "neuron", None),
        (("attention",), "head", 2),
        (("gelu", "attention"), "token", difference),
        (("gelu",), "token", [1, 0, 3]),
    ],
)
def test_texts_with_any_unit_and_response(sites, unit, target):
    model, inputs = texts.encoder(), texts.texts()
    with cpath.observe(model, sites=sites) as seen, torch.no_grad():
        model(**{**inputs, "input_ids": inputs["input_ids"].flip(1)})
    baseline = seen.activations if unit == "head" else None
    scores = cpath.score(model, inputs, "neuron_mct", target, sites=sites, unit=unit, baseline=baseline)
    asked = target if callable(target) else None
    found = cpath.faithfulness(model, inputs, scores, asked, keep=(10, 60), max_batch=4)
    for index in range(3):
        one = {name: value[index : index + 1] for name, value in inputs.items()}
        logits = model(**one).logits[0]

        def read(output: texts.Output, index: int = index, logits: Tensor = logits) -> Tensor:
            if callable(target):
                return target(output)[0]
            label = int(scores.target[index])
            return output.logits[0, label] - output.logits[0, best_other(logits, label)]

        sufficiency, necessity = curves(
            model,
            lambda net, one=one: net(**one),
            read,
            {site: score[index].flatten().tolist() for site, score in scores.values.items()},
            (10, 60),
            functions=sites,
            unit=unit,
            baseline=of_input(baseline, index),
        )
        torch.testing.assert_close(found.sufficiency[index].tolist(), sufficiency, **CLOSE)
        torch.testing.assert_close(found.necessity[index].tolist(), necessity, **CLOSE)
    assert (found.target is None) is callable(target)


@pytest.mark.parametrize(
    ("make", "sites"),
    [
        *[(name, ("relu",)) for name in zoo.MODELS],
        (zoo.Discarding, ("relu",)),
        (zoo.InplaceSkip, ("relu",)),
        (zoo.Normalising, ("relu",)),
        (zoo.headless, ("relu",)),
        ("residual", ("BatchNorm2d",)),
        ("residual", ("relu", "layer1.0")),
    ],
)
def test_restricted_networks_are_those_of_the_pathways(make, sites):
    """Also where activations are in place, where modules are sites, and where a site is left out."""
    model, images = zoo.make(make, torch.float64), zoo.images(3, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cpath.OutputSiteWarning)
        scores = cpath.score(model, images, "random", sites=sites)
    found = cpath.faithfulness(model, images, scores, keep=(20, 70), max_batch=5)

    def gap(pathway: cpath.Pathway) -> Tensor:
        with pathway.restrict(model), torch.no_grad():
            logits = model(images.clone())
        return logits.gather(1, pair).diff(dim=1)[:, 0]

    logits = model(images.clone())
    label = logits.argmax(1)
    pair = torch.stack([torch.tensor([best_other(*each) for each in zip(logits, label.tolist())]), label], 1)  # noqa: B905
    whole = logits.gather(1, pair).diff(dim=1)[:, 0].detach()
    nothing = cpath.Pathway(torch.zeros_like(scores.flat).bool(), scores.layout, sites=scores.sites)
    empty = gap(nothing)
    for number, share in enumerate((20, 70)):
        pathway = scores.pathway(100 - share)
        sufficiency = (gap(pathway) - empty) / (whole - empty)
        torch.testing.assert_close(found.sufficiency[:, number], sufficiency, **CLOSE)
        rest = cpath.Pathway(~pathway.flat, scores.layout, sites=scores.sites)
        torch.testing.assert_close(found.necessity[:, number], (whole - gap(rest)) / (whole - empty), **CLOSE)
        torch.testing.assert_close(found.kept[:, number], 100 - pathway.sparsity, **CLOSE)
    torch.testing.assert_close(found.whole, whole, **CLOSE)
    torch.testing.assert_close(found.empty, empty, **CLOSE)


# By hand


class Votes(nn.Module):
    """Four neurons that vote for class 0 with the input's numbers; class 1 has a constant."""

    def __init__(self, constant: float = 0.0, one_logit: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 1.0, 1.0, -1.0], dtype=torch.float64))
        self.constant, self.one_logit = constant, one_logit

    def forward(self, x: Tensor) -> Tensor:
        votes = (F.relu(x) * self.weight).sum(1)
        if self.one_logit:
            return votes - self.constant
        return torch.stack([votes, torch.full_like(votes, self.constant)], 1)


INPUT = torch.tensor([[5.0, 3.0, 1.0, 4.0]], dtype=torch.float64)  # contributions 5, 3, 1 and −4: f(x) = 5


def test_directions_of_sufficiency_and_necessity_by_hand():
    model = Votes().eval()
    scores = cpath.score(model, INPUT, target=0)
    found = cpath.faithfulness(model, INPUT, scores, keep=(25, 50, 75, 100))
    assert found.sufficiency.tolist() == [[5 / 5, 1 / 5, 4 / 5, 5 / 5]]  # 5, 5 − 4, 5 − 4 + 3, all
    assert found.necessity.tolist() == [[5 / 5, 1 / 5, 4 / 5, 5 / 5]]  # what is lost of a sum is what was kept
    assert found.cpr.item() == pytest.approx(3 / 4)
    assert found.cmd.item() == pytest.approx((0 + 4 / 5 + 1 / 5 + 0) / 4)
    positive = torch.tensor([[5.0, 3.0, 1.0, 0.5]], dtype=torch.float64)
    over = cpath.faithfulness(model, INPUT, cpath.score(model, positive, target=0), keep=(50, 75))
    assert over.sufficiency.tolist() == [[8 / 5, 9 / 5]]  # without the neuron against it, the answer overshoots
    assert over.cpr.item() == pytest.approx(17 / 10)
    assert over.cmd.item() == pytest.approx((3 / 5 + 4 / 5) / 2)


def test_the_margin_is_over_the_other_class_of_the_whole_network():
    """Class 2 is the best other class without any unit, and class 1 in the whole network: class 1 counts."""

    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            one, other = (F.relu(x) * self.scale).unbind(1)
            return torch.stack([3 * one, one + other, torch.full_like(one, 1.5)], 1)

    x = torch.tensor([[2.0, 1.0]], dtype=torch.float64)  # logits 6, 3, 1.5
    model = Three().eval()
    found = cpath.faithfulness(model, x, cpath.score(model, x), keep=(50,))
    assert (found.target.tolist(), found.against.tolist()) == ([0], [1])
    assert (found.whole.tolist(), found.empty.tolist()) == ([3.0], [0.0])
    assert found.sufficiency.tolist() == [[4 / 3]]  # 6 − 2 without the second unit


@pytest.mark.parametrize("target", [0, 1, None])
def test_one_logit_is_the_margin_of_a_binary_classifier(target):
    model = Votes(constant=2.0, one_logit=True).eval()
    scores = cpath.score(model, INPUT, target=target)
    found = cpath.faithfulness(model, INPUT, scores, keep=(25, 100))
    sign = -1 if target == 0 else 1
    assert (found.whole.tolist(), found.empty.tolist()) == ([sign * 3.0], [sign * -2.0])
    assert found.sufficiency.tolist() == [[5 / 5, 5 / 5]]


def test_without_a_rise_there_is_no_faithfulness_and_it_is_told_apart():
    model = Votes().eval()
    inputs = torch.tensor([[5.0, 3.0, 1.0, 4.0], [2.0, 1.0, 1.0, 4.0], [1.0, 1.0, 2.0, 4 - 1e-9]]).double()
    found = cpath.faithfulness(model, inputs, cpath.score(model, inputs, target=0), keep=(25, 50))
    assert found.undefined.tolist() == [False, True, True]
    assert found.sufficiency[1:].isnan().all()
    assert found.necessity[1:].isnan().all()
    assert found.cmd.isnan().tolist() == [False, True, True]
    shifted = Votes(constant=1e6).eval()  # the rise of 5 is less than a thousandth of the answer
    found = cpath.faithfulness(shifted, INPUT, cpath.score(shifted, INPUT, target=0), keep=(25,))
    assert found.undefined.tolist() == [True]
    assert math.isnan(found.cpr.item())


def test_roundings_of_large_logits_are_no_rise():
    class Level(nn.Module):
        """Two logits that differ by rounding alone, on a level of 10⁴."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            level = 1e4 + 9e3 * (F.relu(x) * self.scale).sum(1)
            return torch.stack([level + 3e-3, level], 1)

    x = torch.tensor([[0.3, 0.7]])
    found = cpath.faithfulness(Level().eval(), x, cpath.score(Level().eval(), x, "random"), keep=(50,))
    assert found.whole.item() != found.empty.item()
    assert found.undefined.tolist() == [True]


def test_ties_are_never_split_and_zeros_never_kept():
    model = Votes().eval()
    tied = torch.tensor([[2.0, 2.0, 2.0, 0.0]], dtype=torch.float64)
    found = cpath.faithfulness(model, tied, cpath.score(model, tied, target=0), keep=(25, 50, 75, 100))
    assert found.kept.tolist() == [[0.0, 0.0, 75.0, 75.0]]
    assert found.sufficiency.tolist() == [[0.0, 0.0, 1.0, 1.0]]
    assert found.necessity.tolist() == [[0.0, 0.0, 1.0, 1.0]]


# Promises


def test_sizes_are_those_of_the_field_unless_said():
    assert KEEP == (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    model, images = zoo.make("vgg"), zoo.images()
    found = cpath.faithfulness(model, images, cpath.score(model, images))
    assert found.keep.tolist() == list(KEEP)
    assert found.sufficiency.shape == found.necessity.shape == found.kept.shape == (3, 9)
    assert found.sufficiency.dtype == torch.float64


def test_batch_equals_its_inputs_one_by_one_whatever_fits_into_a_pass(model):
    model, images = model.double(), zoo.images(5, dtype=torch.float64)
    scores = cpath.score(model, images)
    whole = cpath.faithfulness(model, images, scores)
    for size in (1, 2, 7, 12, 200):
        part = cpath.faithfulness(model, images, scores, max_batch=size)
        for name in ("sufficiency", "necessity", "kept", "whole", "empty", "target", "against"):
            torch.testing.assert_close(getattr(part, name), getattr(whole, name), **CLOSE)
    for index in range(5):
        one = cpath.faithfulness(model, images[index : index + 1], scores[index])
        torch.testing.assert_close(one.sufficiency[0], whole.sufficiency[index], **CLOSE)
        torch.testing.assert_close(one.necessity[0], whole.necessity[index], **CLOSE)


@pytest.fixture
def rows() -> list[int]:
    """Batch sizes of the passes of `counting_model`."""
    return []


@pytest.fixture
def counting_model(rows: list[int]) -> torch.nn.Module:
    class Counting(zoo.Raising):
        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                rows.append(len(x))
            return super().forward(x)

    return zoo.make(lambda: Counting(at=10**9))


def test_passes_are_counted_and_no_larger_than_asked(counting_model, rows):
    images = zoo.images(4)
    scores = cpath.score(counting_model, images)
    for necessity, passes in ((True, 2 * 9 + 2), (False, 9 + 2)):
        rows.clear()
        found = cpath.faithfulness(counting_model, images, scores, necessity=necessity, max_batch=8)
        assert sum(rows) == passes * 4
        assert max(rows) == 8
    with pytest.raises(cpath.InputError, match="necessity=True"):
        _ = found.necessity


def test_passes_over_large_activations_are_no_larger_than_suits_a_cpu(counting_model, rows, monkeypatch):
    model, images = counting_model.double(), zoo.images(4, dtype=torch.float64)
    scores = cpath.score(model, images)
    whole = cpath.faithfulness(model, images, scores)
    assert max(rows) > 8
    monkeypatch.setattr("cpath.devices._CPU_TENSOR_BYTES", 1)
    rows.clear()
    found = cpath.faithfulness(model, images, scores)
    assert max(rows) == 4  # the inputs themselves, one size at a time
    torch.testing.assert_close(found.sufficiency, whole.sufficiency, **CLOSE)


def test_model_and_inputs_are_left_as_they_were():
    model = zoo.make(zoo.Keeping).train()
    images = zoo.images()
    scores = cpath.score(model, images)
    mine = images.clone()
    with zoo.untouched(model):
        cpath.faithfulness(model, mine, scores)
    assert torch.equal(mine, images)
    for at in (1, 2, 3):
        raising = zoo.make(lambda: zoo.Raising(at=10**9)).train()
        scores = cpath.score(raising, images)
        raising.at = raising.counter.value + at
        with zoo.untouched(raising), pytest.raises(OSError, match="on purpose"):
            cpath.faithfulness(raising, images, scores, max_batch=6)


def test_another_class_and_a_function_can_be_asked_for():
    model, images = zoo.make("residual", torch.float64), zoo.images(dtype=torch.float64)
    scores = cpath.score(model, images, target=[0, 1, 2])
    asked = cpath.faithfulness(model, images, scores, 0, keep=(30,))
    assert asked.target.tolist() == [0, 0, 0]
    first = cpath.faithfulness(model, images, scores, keep=(30,))
    assert first.target.tolist() == [0, 1, 2]
    torch.testing.assert_close(first.sufficiency[0], asked.sufficiency[0], **CLOSE)

    def by_hand(output: Tensor) -> Tensor:
        return output[:, 0] - output[:, int(asked.against[0])]

    function = cpath.faithfulness(model, images[:1], scores[0], by_hand, keep=(30,))
    torch.testing.assert_close(function.sufficiency, asked.sufficiency[:1], **CLOSE)
    of_function = cpath.score(model, images, target=by_hand)
    with pytest.raises(cpath.InputError, match="explain a function of the output"):
        cpath.faithfulness(model, images, of_function)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_scores_of_every_type_are_compared_exactly(dtype):
    model, images = zoo.make("vgg").to(dtype), zoo.images(2).to(dtype)
    for method in ("neuron_mct", "greedy", "active"):
        scores = cpath.score(model, images, zoo.quick(method))
        found = cpath.faithfulness(model, images, scores, keep=(30, 100))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cpath.EmptyPathwayWarning)
            expected = [100 - scores.pathway(sparsity).sparsity for sparsity in (70, 0)]
        torch.testing.assert_close(found.kept, torch.stack(expected, 1), rtol=0, atol=1e-9)
    torch.testing.assert_close(found.sufficiency[:, 1], torch.ones(2).double())  # all active units


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ((), "ascending per cents"),
        ((0, 10), "above 0"),
        ((10, 101), "at most 100"),
        ((10, 5), "ascending"),
        ((5, 5), "ascending"),
        ("50", "per cents"),
        (50, "per cents"),
        ((True,), "keep must be a finite number"),
        ((float("nan"),), "keep must be a finite number"),
    ],
)
def test_unusable_sizes_are_refused(keep: Any, message):
    model, images = zoo.make("vgg"), zoo.images()
    with pytest.raises(cpath.InputError, match=message):
        cpath.faithfulness(model, images, cpath.score(model, images), keep=keep)


def test_scores_of_other_inputs_or_models_are_refused():
    model, images = zoo.make("vgg"), zoo.images()
    scores = cpath.score(model, images)
    with pytest.raises(cpath.MaskError, match="belong to 3 inputs, the batch has 2"):
        cpath.faithfulness(model, images[:2], scores)
    with pytest.raises(cpath.MaskError, match="belong to another model"):
        cpath.faithfulness(zoo.make("residual"), images, scores)
    with pytest.raises(cpath.MaskError, match="another model or input size"):
        cpath.faithfulness(model, zoo.images(size=12), scores)
    with pytest.raises(cpath.InputError, match=r"scores must be cpath.Scores"):
        cpath.faithfulness(model, images, scores.pathway(90))
    with pytest.raises(cpath.InputError, match="target 9 is no class"):
        cpath.faithfulness(model, images, scores, 9)
    with pytest.raises(cpath.InputError, match="max_batch"):
        cpath.faithfulness(model, images, scores, max_batch=0)
