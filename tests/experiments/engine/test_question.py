"""The question of a job: units, baseline, response, and inputs that are no images."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import cpath
from cpath.errors import InputError
from experiments.engine.images import Images
from experiments.engine.predictions import predictions
from tests.rows import row_of

JOB = ["experiment=path_analysis", "method=neuron_intgrad", "experiment.images=5", "sparsity=[50]"]
FAST = [*JOB, "experiment.by_site=false", "experiment.self_overlap=0"]

TEXTS = """
import torch
from torch import nn

def texts(seed=0):
    tokens = torch.randint(9, (12, 4), generator=torch.Generator().manual_seed(seed))
    weights = torch.rand(12, 4, generator=torch.Generator().manual_seed(1))
    return {"tokens": tokens, "weights": weights}, tokens[:, 0] % 2

class Reader(nn.Module):
    def __init__(self, classes, shape):
        super().__init__()
        assert shape is None
        self.embed, self.hidden, self.out = nn.Embedding(9, 6), nn.Linear(6, 7), nn.Linear(7, classes)

    def forward(self, tokens, weights):
        z = torch.relu(self.hidden(self.embed(tokens)))
        return self.out((z * weights.unsqueeze(-1)).sum(1))

def margin(output):
    return output[:, 0] - output[:, 1]
"""
OWN = [
    *("dataset=custom", "dataset.name=texts", "dataset._target_=my_texts.texts"),
    *("model=custom", "model.name=reader", "model._target_=my_texts.Reader"),
]


def test_units_and_a_mean_are_those_of_the_library(job, trained):
    made = job(*FAST, "unit=channel", "baseline=mean", "baseline_inputs=7", "target=label")
    table = made.run()
    split = made.data.train
    images = split.batch(split.sample(7, 0))
    mean = cpath.mean_activations(made.model, [images])
    batch = next(made.sample(5).batches(5))
    assert torch.equal(batch.labels, made.data.test.labels[batch.indices])
    scores = cpath.score(made.model, batch.images, "neuron_intgrad", batch.labels, unit="channel", baseline=mean)
    for site, residual in scores.residual.items():
        assert row_of(table, "neuron_intgrad", f"residual/{site}").value == pytest.approx(float(residual.nanmean()))
    pathway = scores.pathway(50)
    assert row_of(table, "neuron_intgrad", "realised_sparsity", 50).value == pytest.approx(
        float(pathway.sparsity.mean())
    )
    with torch.no_grad():
        before = made.model(batch.images).softmax(1)
        with pathway.restrict(made.model):
            after = made.model(batch.images).softmax(1)
    rows = batch.labels.unsqueeze(1)
    change = (after.gather(1, rows) / before.gather(1, rows) - 1).mean()
    assert row_of(table, "neuron_intgrad", "response_change", 50).value == pytest.approx(float(change), rel=1e-4)


def test_the_image_of_another_class_is_the_same_in_any_batch(job, trained):
    made = job(*FAST, "baseline=other_class")
    (whole,) = made.sample(5).batches(5)
    at_once = made.question.arguments(whole)["baseline"]
    for start, batch in enumerate(made.sample(5).batches(2)):
        for site, output in made.question.arguments(batch)["baseline"].items():
            rows = at_once[site][2 * start : 2 * start + len(batch)]
            torch.testing.assert_close(output, rows, rtol=1e-5, atol=1e-6)
    with cpath.observe(made.model) as seen, torch.no_grad():
        predicted = made.model(made.data.test.batch(torch.arange(len(made.data.test)))).argmax(1)
    assert len(predicted) == len(made.data.test)
    every = torch.cat([output.flatten(1) for output in seen.activations.values()], 1)
    found = torch.cat([output.flatten(1) for output in at_once.values()], 1)
    sources = torch.cdist(found, every).argmin(1)
    assert (torch.cdist(found, every).amin(1) < 0.1).all()
    assert (made.data.test.labels[sources] != whole.labels).all()


def test_another_experiment_says_that_it_heeds_no_such_question(job, trained):
    for setting in ("unit=channel", "baseline=mean", "target=label"):
        name = setting.partition("=")[0]
        with pytest.raises(InputError, match=rf"{setting}: experiment=degradation works with {name}=\w+ only"):
            job("experiment=degradation", "attribution=random", setting).check()


def test_a_function_of_the_output_has_no_class_to_keep(users, job):
    users.write("my_texts", TEXTS)
    table = job(*FAST, *OWN, "target=my_texts.margin", small=False).run()
    assert {"residual", "dead_share", "realised_sparsity"} <= {name.partition("/")[0] for name in table.metric}
    assert not {"class_kept", "response_change"} & set(table.metric)
    for target, message in (
        ("my_texts.nothing", "there is no such function"),
        ("margin", "target must be predicted, label, the number of a class"),
    ):
        with pytest.raises(InputError, match=message):
            job(*FAST, *OWN, f"target={target}", small=False).check()


WRONG = """
import torch

def broken(output):
    raise KeyError("answers")

def alone():
    return 1

def pairs(output):
    return output[:, :2]

def detached(output):
    return output.detach()[:, 0]

class Margin:
    def __init__(self, output):
        pass
"""


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("my_wrong.broken", r"target=my_wrong\.broken fails on the output of the model: KeyError: 'answers'"),
        ("my_wrong.alone", r"target=my_wrong\.alone fails on the output of the model: TypeError: .*positional"),
        ("my_wrong.pairs", r"must return one number per input, shape \(1,\), not \(1, 2\)"),
        ("my_wrong.detached", "has no gradient"),
        ("my_wrong.Margin", r"target=my_wrong\.Margin is a class: name a function"),
        ("10", "target 10 is no class of the model: it has 10, 0 to 9"),
    ],
)
def test_a_target_that_cannot_be_answered_is_refused_before_a_training(job, users, monkeypatch, target, message):
    users.write("my_wrong", WRONG)
    monkeypatch.setattr("experiments.engine.network.trained_entry", None)  # calling it would be another error
    with pytest.raises(InputError, match=message):
        _ = job(*FAST, f"target={target}").model


def test_another_version_of_the_target_s_function_is_another_job(job, trained, users):
    settings = [*FAST, "experiment.keep_scores_gb=1", "target=my_margin.margin"]
    values = []
    for first in (3, 5):
        users.write("my_margin", f"def margin(output):\n    return output[:, {first}] - output[:, 1]\n")
        made = job(*settings)
        values.append((made.folder, float(row_of(made.run(), "neuron_intgrad", "residual/relu").value)))
        batch = next(made.sample(5).batches(5))
        exact = cpath.score(
            made.model, batch.images, "neuron_intgrad", lambda output, first=first: output[:, first] - output[:, 1]
        )
        assert values[-1][1] == pytest.approx(float(exact.residual["relu"].nanmean()), rel=1e-4)
    assert values[0][0] != values[1][0]


def test_methods_that_cannot_answer_are_refused_before_any_other_runs(job, users):
    users.write("my_texts", TEXTS)
    every = "method=[neuron_mct,dgr,random,dgr_random_init,greedy_released,neuron_intgrad_released]"
    asked = [FAST[0], *FAST[2:]]
    for question, problem, left in (
        (
            "target=my_texts.margin",
            "dgr and dgr_random_init need classes, which target=my_texts.margin does not",
            4,
        ),
        ("unit=channel", "greedy_released and neuron_intgrad_released know no unit=channel", 4),
        ("baseline=mean", "greedy_released and neuron_intgrad_released know no baseline=mean", 4),
    ):
        with pytest.raises(InputError, match=rf"these methods cannot answer: {problem}") as caught:
            job(*asked, every, question).check()
        (names,) = re.findall(r"method=\[(.*)\]", str(caught.value))
        assert len(names.split(",")) == left
        job(*asked, f"method=[{names}]", question).check()
    job("experiment=quadrature", "unit=channel").check()  # it uses none of the methods named by default


HELD = """
from my_texts import Reader as Whole

class Reader(Whole):
    def forward(self, tokens, weights):
        return {"found": super().forward(tokens, weights)}

def first(output):
    return output["found"][:, 0]
"""


def test_a_model_without_logits_answers_a_function_of_its_output(users, job):
    users.write("my_texts", TEXTS)
    users.write("my_held", HELD)
    held = [setting.replace("my_texts.Reader", "my_held.Reader") for setting in OWN]
    made = job(*FAST, *held, "target=my_held.first", small=False)
    table = made.run()
    assert not {"class_kept", "response_change"} & set(table.metric)
    batch = next(made.sample(5).batches(5))
    scores = cpath.score(made.model, batch.inputs, "neuron_intgrad", lambda output: output["found"][:, 0])
    assert row_of(table, "neuron_intgrad", "realised_sparsity", 50).value == pytest.approx(
        float(scores.pathway(50).sparsity.mean())
    )
    with pytest.raises(InputError, match="the model returned a dict, not logits"):
        job(*FAST, *held, small=False).run()


def test_inputs_and_labels_of_one_s_own_go_through_the_path_analysis(users, job):
    users.write("my_texts", TEXTS)
    made = job(*FAST, *OWN, "experiment.batch=3", "experiment.self_overlap=4", "dataset.name=mine", small=False)
    table = made.run()
    assert set(table.dataset) == {"mine"}
    batch = next(made.sample(5).batches(5))
    scores = cpath.score(made.model, batch.inputs, "neuron_intgrad")
    value = row_of(table, "neuron_intgrad", "residual/:relu").value
    assert value == pytest.approx(float(scores.residual[":relu"].nanmean()), rel=1e-3, abs=1e-6)
    overlap = row_of(table, "neuron_intgrad", "self_overlap", 50)
    assert (overlap.n, overlap.value) == (4, pytest.approx(1))  # the weights were changed by a rounding
    with pytest.raises(
        InputError, match="experiment=saliency is about images, but dataset 'mine' has inputs of an"
    ):
        job("experiment=saliency", "attribution=random", *OWN, "dataset.name=mine", small=False).run()


class OneLogit(nn.Module):
    """Tells two classes apart by one logit."""

    def __init__(self, classes, shape):
        super().__init__()
        assert classes == 2
        self.hidden, self.out = nn.Linear(shape[1] * shape[2], 6), nn.Linear(6, 1)

    def forward(self, images):
        return self.out(torch.relu(self.hidden(images.flatten(1))))


def test_one_logit_has_two_classes_in_captions():
    torch.manual_seed(0)
    model, images = OneLogit(2, (1, 4, 4)).eval(), torch.randn(5, 1, 4, 4)
    scale = cpath.data.Normalisation((0.0,), (1.0,))
    split = cpath.data.TensorSplit(images, torch.arange(5) % 2, list("abcde"), scale)
    data = cpath.data.ImageData("pairs", ("no", "yes"), (1, 4, 4), scale, split)
    batch = next(Images(data, torch.arange(5), torch.device("cpu")).batches(5))
    found = predictions(model, batch)
    with torch.no_grad():
        share = model(images).double().sigmoid().squeeze(1)
    assert found.target.tolist() == (share >= 0.5).long().tolist()
    torch.testing.assert_close(found.probability, torch.maximum(share, 1 - share), rtol=1e-6, atol=1e-7)
    said = "yes" if share[0] >= 0.5 else "no"
    assert found.titles[0] == f"predicted {said}\n({100 * float(found.probability[0]):.0f} %)\ntrue no"


def test_axes_of_units_are_those_of_the_library(job, trained):
    for setting, unit in (
        ("{kind: channel, axis: -1}", cpath.Units("channel", axis=-1)),
        (
            "{kind: token, axis: {stage?.*: [1, 2], '*': 0}}",
            cpath.Units("token", axis={"stage?.*": (1, 2), "*": 0}),
        ),
        ("{kind: channel, axis: null}", "channel"),
    ):
        made = job(*FAST, f"unit={setting}".replace("'*'", "*"))
        table = made.run()
        batch = next(made.sample(5).batches(5))
        scores = cpath.score(made.model, batch.images, "neuron_intgrad", unit=unit)
        assert row_of(table, "neuron_intgrad", "realised_sparsity", 50).value == pytest.approx(
            float(scores.pathway(50).sparsity.mean())
        )
        for site, residual in scores.residual.items():
            assert row_of(table, "neuron_intgrad", f"residual/{site}").value == pytest.approx(
                float(residual.nanmean()), nan_ok=True
            )


def test_axes_of_units_determine_the_job_and_their_order_counts(job):
    def folder(unit):
        return job(*FAST, f"unit={unit}").folder

    assert folder("{kind: channel, axis: null}") == folder("channel")
    assert folder("{axis: -1, kind: channel}") == folder("{kind: channel, axis: -1}")
    units = ["channel", "token", "{kind: channel, axis: -1}", "{kind: channel, axis: 1}", "{kind: token, axis: -1}"]
    units += ["{kind: channel, axis: {a*: 1, '*': 0}}".replace("'", ""), "{kind: channel, axis: {*: 0, a*: 1}}"]
    assert len({folder(unit) for unit in units}) == len(units)


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("channels", "unit must be 'neuron', 'channel', 'token' or 'head', or one of them with axes"),
        ("3", r"unit must be 'neuron'.*; got 3"),
        ("{axis: 1}", "unit must be 'neuron', "),
        ("{kind: channel, axes: 1}", "unit must be 'neuron', "),
        ("{kind: channel, axis: last}", "unit must name axes by a whole number.*: axis is 'last'"),
        (
            "{kind: channel, axis: {*:relu: 0}}",
            r"'\?' in a pattern stands for the colon of a name\): axis is 'relu: 0'",
        ),
        ("{kind: channel, axis: []}", "unit must name axes by a whole number"),
        ("{kind: channel, axis: true}", "unit must name axes by a whole number"),
        ("{kind: channel, axis: {features: 0.5}}", r"unit must name axes by a whole number.*: axis is 0\.5"),
        ("{kind: neuron, axis: 1}", "unit is unusable: a neuron is one element of a site's output: it has no axis"),
    ],
)
def test_unusable_units_are_refused_at_once(job, unit, message):
    with pytest.raises(InputError, match=message):
        job(*FAST, f"unit={unit}")


@pytest.mark.parametrize(
    ("unit", "message"),
    [
        ("head", "model 'resnet8_narrow': site '.*' gives .* for each input"),
        ("{kind: channel, axis: 3}", "which has no axis 3"),
        ("{kind: channel, axis: {featurs.*: -1}}", r"axis names 'featurs\.\*', which fits no site. The sites are "),
    ],
)
def test_units_that_the_sites_have_not_are_refused_before_a_training(job, monkeypatch, unit, message):
    monkeypatch.setattr("experiments.engine.network.trained_entry", None)  # calling it would be another error
    with pytest.raises(cpath.SiteError, match=message):
        _ = job(*FAST, f"unit={unit}").model
