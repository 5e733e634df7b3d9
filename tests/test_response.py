"""The response: one logit, an object with logits, and functions of the output, through all that reads an output."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.data import Normalisation, TensorSplit
from cpath.response import class_logits, predicted
from tests import zoo

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


class Returning(nn.Module):
    """A network whose logits are changed."""

    def __init__(self, change, name="residual") -> None:
        super().__init__()
        self.inner, self.change = zoo.make(name, torch.float64), change

    def forward(self, x: Tensor) -> object:
        return self.change(self.inner(x))


def one_logit(logits: Tensor) -> Tensor:
    return logits[:, 1] - 2 * logits[:, 3]


def binary() -> nn.Module:
    return Returning(one_logit)


def two_logits(share: float) -> nn.Module:
    """The same classifier with a logit for each class, ± ``share`` times the one."""
    return Returning(lambda logits: share * torch.stack([-one_logit(logits), one_logit(logits)], 1))


@pytest.fixture
def images() -> Tensor:
    return zoo.images(6, dtype=torch.float64)


# One logit


def test_both_classes_occur(images):
    assert (binary()(images) >= 0).unique().tolist() == [False, True]


@pytest.mark.parametrize("target", [None, 0, 1])
@pytest.mark.parametrize("column", [False, True])
def test_scores_of_one_logit_are_those_of_a_logit_for_each_class(method, images, target, column):
    model = Returning(lambda logits: one_logit(logits)[:, None]) if column else binary()
    found = cpath.score(model, images, method, target)
    # The response is ± the logit; what compares classes sees the half of it with either sign.
    twin = two_logits(0.5 if method.name.startswith("dgr") else 1.0)
    expected = cpath.score(twin, images, method, target)
    assert torch.equal(found.target, expected.target)
    torch.testing.assert_close(found.flat, expected.flat, **CLOSE)
    if method.name.startswith("dgr"):
        assert len(found.flat.unique()) > (100 if method.name == "dgr" else 20)


@pytest.mark.parametrize("name", cpath.attribution.names())
def test_attributions_of_one_logit_are_those_of_a_logit_for_each_class(name, images):
    one = zoo.quick_attribution(name)
    twin = two_logits(0.5 if name.startswith("dgr") else 1.0)
    found, expected = (cpath.attribute(model, images, one) for model in (binary(), twin))
    scale = 2 if name.startswith("dgr") else 1  # of the gradient in the network that was pruned alike
    torch.testing.assert_close(found, scale * expected, **CLOSE)


def test_class_1_is_predicted_where_the_logit_is_not_negative():
    logits = torch.tensor([-2.0, 0.0, 1e-30, 3.0])
    assert predicted(logits).tolist() == predicted(logits[:, None]).tolist() == [0, 1, 1, 1]
    columns = class_logits(logits[:, None], 4)
    torch.testing.assert_close(columns.softmax(1)[:, 1], logits.sigmoid())
    with pytest.raises(cpath.InputError, match="target 2 is no class of the model: it has 2, 0 to 1"):
        cpath.score(binary(), zoo.images(dtype=torch.float64), target=2)


def test_response_of_one_logit_has_its_sign_and_a_probability_is_its_sigmoid(images):
    model = binary()
    logits = model(images).detach()
    probe = cpath.attribution.ResponseProbe(model, images)
    torch.testing.assert_close(probe.response(images).detach(), logits.abs(), **CLOSE)
    torch.testing.assert_close(probe.probability(images).detach(), logits.abs().sigmoid(), **CLOSE)
    for target, sign in ((0, -1), (1, 1)):
        record = cpath.Probe(model, images, target).record()
        torch.testing.assert_close(record.response, sign * logits, **CLOSE)
        torch.testing.assert_close(record.logits.softmax(1)[:, target], (sign * logits).sigmoid(), **CLOSE)


def test_degradation_of_one_logit_is_the_change_of_its_sigmoid(images):
    model = binary()
    maps = cpath.attribute(model, images, "gradients")
    found = cpath.evaluation.degrade(model, images, maps, order="most", percent=[10, 50])
    signs = 2 * (model(images) >= 0).long() - 1
    whole = (signs * model(images)).sigmoid().detach()
    torch.testing.assert_close(found.probability, whole, **CLOSE)
    ranks = cpath.evaluation.rank_pixels(maps, images)
    for column, percent in enumerate((10, 50)):
        altered = cpath.evaluation.remove_pixels(images, ranks, percent, order="most")
        now = (signs * model(altered)).sigmoid().detach()
        torch.testing.assert_close(found.change[:, column], (whole - now).abs() / whole, **CLOSE)
    assert found.change.min() > 0


def test_response_preservation_of_one_logit_is_that_of_its_sigmoid(images):
    model = binary()
    pathway = cpath.find_pathway(model, images, "neuron_mct", 80)
    change, kept = cpath.analysis.response_preservation(model, images, pathway)
    whole = model(images).detach()
    with pathway.restrict(model):
        restricted = model(images).detach()
    signs = 2 * (whole >= 0).long() - 1
    expected = (signs * restricted).sigmoid() / (signs * whole).sigmoid() - 1
    torch.testing.assert_close(change, expected, **CLOSE)
    assert torch.equal(kept, (whole >= 0) == (restricted >= 0))
    assert change.abs().min() > 0


def test_accuracy_of_one_logit(images):
    model = binary()
    labels = (model(images) >= 0).long()
    labels[::2] = 1 - labels[::2]
    scale = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)
    pixels = torch.rand(6, 3, 8, 8)
    split = TensorSplit(pixels, labels, ["no", "yes"], scale)
    model.float()
    expected = (model(pixels) >= 0).long() == labels
    assert torch.equal(cpath.evaluation.accuracy(model, split), expected)


def test_decoding_maximises_the_logit_of_either_class():
    model = Returning(one_logit, "sequential").float()
    for target, sign in ((0, -1), (1, 1)):
        found = cpath.decode(model, None, cpath.decoding.Logit(target), shape=(3, 8, 8), steps=60)
        start = cpath.decode(model, None, cpath.decoding.Logit(target), shape=(3, 8, 8), steps=1)
        assert sign * float(model(found.images)) > sign * float(model(start.images)) + 0.1
    with pytest.raises(cpath.InputError, match=r"asks for \(2,\) of the model, which gives \(2,\)"):
        cpath.decode(model, None, cpath.decoding.Logit(2), shape=(3, 8, 8), steps=1)


def test_sanity_checks_of_one_logit_are_those_of_a_logit_for_each_class(images):
    found, expected = (
        cpath.evaluation.sanity_check(model, images, ["gradients"], blocks=["inner.fc"], draws=1)
        for model in (binary(), two_logits(1.0))
    )
    assert torch.equal(found.target, expected.target)
    for measure, values in expected.similarity["gradients"].items():
        assert values == pytest.approx(found.similarity["gradients"][measure], nan_ok=True)


# Objects with logits


@pytest.mark.parametrize(
    "wrap", [lambda y: {"logits": y}, lambda y: SimpleNamespace(logits=y, hidden=[y, None])], ids=["dict", "object"]
)
def test_an_output_that_holds_logits_is_read_as_they_are(wrap, images):
    plain, model = Returning(lambda y: y), Returning(wrap)
    for name in ("neuron_mct", "neuron_intgrad", "greedy", "dgr", "random"):
        method = zoo.quick(name)
        assert torch.equal(cpath.score(model, images, method).flat, cpath.score(plain, images, method).flat)
    pathway = cpath.find_pathway(plain, images, "neuron_mct", 60)
    maps = cpath.attribute(plain, images, "gradcam")
    assert torch.equal(cpath.attribute(model, images, "gradcam"), maps)
    for one, other in zip(
        cpath.analysis.response_preservation(model, images, pathway),
        cpath.analysis.response_preservation(plain, images, pathway),
        strict=True,
    ):
        assert torch.equal(one, other)
    one, other = (cpath.evaluation.degrade(net, images, maps, percent=[50]) for net in (model, plain))
    assert torch.equal(one.change, other.change)
    plain, model = Returning(lambda y: y, "sequential").float(), Returning(wrap, "sequential").float()
    decoded = [
        cpath.decode(net, None, cpath.decoding.Logit(1), shape=(3, 8, 8), steps=4).images for net in (plain, model)
    ]
    assert torch.equal(*decoded)


# Functions of the output


def of_class_3(output: Tensor) -> Tensor:
    return output[:, 3]


NEEDING_CLASSES = ("dgr", "dgr_random_init")
OTHER_AIM = "learned_ranking"  # a function has to reach its value, a class the lead of the predicted one


@pytest.mark.parametrize(
    "name", [name for name in cpath.methods.names() if name not in (*NEEDING_CLASSES, OTHER_AIM)]
)
def test_scores_of_a_function_that_is_a_class_are_those_of_the_class(name, images, tmp_path):
    model, method = zoo.make("residual", torch.float64), zoo.quick(name)
    found = cpath.score(model, images, method, of_class_3)
    expected = cpath.score(model, images, method, 3)
    torch.testing.assert_close(found.flat, expected.flat, **CLOSE)
    for site, values in (expected.residual or {}).items():
        torch.testing.assert_close(found.residual[site], values, **CLOSE)
    found.save(tmp_path / "scores")
    pathway = found.pathway(50)
    pathway.save(tmp_path / "pathway")
    for one in (found, found[1:], cpath.Scores.load(tmp_path / "scores"), pathway, pathway[0]):
        assert one.target is None
    assert cpath.Pathway.load(tmp_path / "pathway").target is None
    gradients = cpath.pathway_gradient(model, images, pathway, of_class_3)
    assert torch.equal(gradients, cpath.pathway_gradient(model, images, pathway, 3))


@pytest.mark.parametrize(
    "name", [name for name in cpath.attribution.names() if name not in (*NEEDING_CLASSES, OTHER_AIM)]
)
def test_attributions_of_a_function_that_is_a_class_are_those_of_the_class(name, images):
    model, one = zoo.make("residual", torch.float64), zoo.quick_attribution(name)
    found = cpath.attribute(model, images, one, of_class_3)
    torch.testing.assert_close(found, cpath.attribute(model, images, one, 3), **CLOSE)
    torch.testing.assert_close(cpath.attribute(model, images, one, of_class_3, max_batch=2), found, **CLOSE)


def test_a_function_may_read_what_is_no_logits(images):
    """The mean of the first hidden layer, whose contributions are known."""
    model = Returning(lambda y: None, "sequential")
    seen = {}
    model.inner[1].register_forward_hook(lambda _, __, output: seen.update(first=output))
    scores = cpath.score(model, images, "neuron_mct", lambda _: seen["first"].pow(2).flatten(1).mean(1))
    first = model.inner[1](model.inner[0](images)).detach()
    torch.testing.assert_close(scores.values["inner.1"], 2 * first**2 / first[0].numel(), **CLOSE)
    assert scores.values["inner.4"].count_nonzero() == 0
    with pytest.raises(
        cpath.InputError, match=r"returned a NoneType, not logits.*or pass a function of the output"
    ):
        cpath.score(model, images)


@pytest.mark.parametrize("name", NEEDING_CLASSES)
def test_what_compares_classes_refuses_a_function(name, images):
    model, method = zoo.make("residual", torch.float64), zoo.quick(name)
    with pytest.raises(
        cpath.InputError, match=f"'{name}' needs the model's classes.*function.*leave the target out"
    ):
        cpath.score(model, images, method, of_class_3)
    with pytest.raises(cpath.InputError, match="degradation needs the model's classes"):
        cpath.evaluation.degrade(model, images, images, of_class_3)
    probe = cpath.attribution.ResponseProbe(model, images, of_class_3)
    assert probe.target is None
    with pytest.raises(cpath.InputError, match="a probability needs the model's classes"):
        probe.probability(images)
    with pytest.raises(cpath.InputError, match="no logits of classes"):
        _ = probe.record().logits


def test_sanity_checks_of_a_function_compare_its_maps(images):
    model = zoo.make("residual", torch.float64)
    found, expected = (
        cpath.evaluation.sanity_check(model, images, ["gradients"], target, blocks=["fc"], draws=1)
        for target in (of_class_3, 3)
    )
    assert found.target is None
    for measure, values in expected.similarity["gradients"].items():
        assert values == pytest.approx(found.similarity["gradients"][measure], nan_ok=True)


WRONG = {
    "no tensor": (lambda y: 1.0, "must return a tensor .B,. of floats, not 1.0"),
    "one number": (
        lambda y: y.sum(),
        r"one number per input, shape \(6,\), not \(\).*must not count on the number",
    ),
    "rows": (lambda y: y, r"one number per input, shape \(6,\), not \(6, 5\)"),
    "whole numbers": (lambda y: y.argmax(1), r"must return floats, not torch.int64"),
    "NaN": (lambda y: y[:, 0] / 0 - y[:, 0] / 0, "holds NaN or infinite"),
    "detached": (lambda y: y[:, 0].detach(), "has no gradient: the function or the model detaches it"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_function_returns_is_checked(case, images):
    function, message = WRONG[case]
    model = zoo.make("residual", torch.float64)
    calls = {
        "score": lambda: cpath.score(model, images, "neuron_mct", function),
        "attribute": lambda: cpath.attribute(model, images, "gradients", function),
    }
    if case != "detached":  # which is fine where nothing is differentiated
        calls["random"] = lambda: cpath.attribute(model, images, "random", function)
    for call in calls.values():
        with zoo.untouched(model), pytest.raises(cpath.InputError, match=message):
            call()


def test_an_error_of_the_function_says_whose_it_is(images):
    labels = torch.zeros(6, dtype=torch.int64)

    def counts_on_six(output: Tensor) -> Tensor:
        return output[torch.arange(6), labels]

    with pytest.raises(IndexError) as caught:
        cpath.score(zoo.make("residual", torch.float64), images, "neuron_mct", counts_on_six, max_batch=4)
    assert any(
        "function that is the target" in note and "parts of the batch" in note for note in caught.value.__notes__
    )
    with pytest.raises(cpath.InputError, match=r"target must be a class index, .* or a function"):
        cpath.score(zoo.make("residual", torch.float64), images, "neuron_mct", int)
