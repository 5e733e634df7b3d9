"""What messages say: nothing absurd, nothing endless, and the line of the user's own code."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cpath
from cpath.errors import described, unknown_name
from tests import zoo

KNOWN = (
    "neuron_mct",
    "neuron_intgrad",
    "greedy",
    "dgr",
    "random",
    "active",
    "relu",
    "gelu",
    "silu",
    "layer1.0.relu",
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("neuron_mtc", ["neuron_mct"]),
        ("Neuron-MCT", ["neuron_mct"]),
        ("NEURON_INTGRAD", ["neuron_intgrad"]),
        ("intgrad", ["neuron_intgrad"]),
        ("mct", ["neuron_mct"]),
        ("greddy", ["greedy"]),
        ("rnadom", ["random"]),
        ("layer1.0.rleu", ["layer1.0.relu"]),
        *((absurd, []) for absurd in ("", " ", "x", "r", "dg", "gradcam", "shapley", "activations", "resnet50")),
        *((no_name, []) for no_name in (3, None, 0.5, ["greedy"], torch.zeros(3, 4), nn.ReLU())),
    ],
)
def test_only_what_may_have_been_meant_is_suggested(name, meant):
    message = str(unknown_name("method", name, KNOWN))
    hint = f" Did you mean {' or '.join(meant)}?" if meant else ""
    assert message.split(" Known: ")[0].endswith(f".{hint}")
    assert ("Did you mean" in message) == bool(meant)
    assert len(message) < 250


def test_a_name_where_there_are_none_is_not_answered_with_an_empty_list():
    assert str(unknown_name("method", "dgr", ())) == "unknown method 'dgr': there is none to choose from."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.zeros(2, 3), "a tensor of shape (2, 3)"),
        (nn.Sequential(nn.Linear(2, 2)), "a network (Sequential)"),
        (nn.ReLU, "the class ReLU"),
        ("a word", "'a word'"),
        ("x" * 1000, f"'{'x' * 60}'…"),
        (7, "7"),
        (None, "None"),
        ([1, "two"], "[1, 'two']"),
        ([torch.zeros(2)], "an object of type list"),
        ({"relu": torch.zeros(2)}, "an object of type dict"),
        (list(range(1000)), "an object of type list"),
        (np.zeros((30, 30)), "an object of type ndarray"),
        (np.array(3), "array(3)"),
    ],
)
def test_any_value_is_described_in_a_few_words(value, text):
    assert described(value) == text


class _Activations(nn.Module):
    def __init__(self, *functions):
        super().__init__()
        self.fc = nn.Linear(3 * 8 * 8, 4)
        self.functions = functions
        self.head = nn.Linear(4, 4)

    def forward(self, images):
        values = self.fc(images.flatten(1))
        for function in self.functions:
            values = function(values)
        return self.head(values)


def test_without_a_site_the_error_lists_what_the_model_does_call(images):
    model = _Activations(F.gelu, F.gelu, torch.sigmoid, lambda values: F.hardtanh(values, 0, 6))
    for run in (
        lambda: cpath.score(model, images),
        lambda: cpath.attribute(model, images, "gbp"),
        lambda: cpath.attribute(model, images, "gradcam"),
    ):
        with pytest.raises(cpath.SiteError, match=r"gelu \(2×\), sigmoid \(1×\), relu6 \(1×\)") as caught:
            run()
        assert "sites=['gelu', 'sigmoid', 'relu6']" in str(caught.value)
    assert cpath.score(model, images, sites=["gelu", "sigmoid", "relu6"]).layout.units == 16


def test_a_model_without_any_activation_is_told_by_its_parts(images):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.PReLU(), nn.Linear(4, 4))
    with pytest.raises(cpath.SiteError, match=r"made of Linear \(2×\), Flatten \(1×\), PReLU \(1×\)"):
        cpath.score(model, images)


def _swaps(given, others):
    """Every wrong order of the arguments, and every argument replaced by a thing of another kind."""
    for order in permutations(given):
        if any(one is not other for one, other in zip(order, given, strict=True)):
            yield order
    for place, right in enumerate(given):
        for other in others:
            if type(other) is not type(right):
                yield (*given[:place], other, *given[place + 1 :])


CALLS = {
    "score": (cpath.score, "model", "images", "method"),
    "find_pathway": (cpath.find_pathway, "model", "images", "method", "sparsity"),
    "attribute": (cpath.attribute, "model", "images", "method"),
    "pathway_gradient": (cpath.pathway_gradient, "model", "images", "pathway"),
    "Probe": (cpath.Probe, "model", "images"),
    "degrade": (cpath.evaluation.degrade, "model", "images", "maps"),
    "sanity_check": (cpath.evaluation.sanity_check, "model", "images", "method"),
    "response_preservation": (cpath.analysis.response_preservation, "model", "images", "pathway"),
    "affine_radius": (cpath.analysis.affine_radius, "model", "images", "pathway"),
    "compare_pathways": (cpath.analysis.compare_pathways, "pathways", "values"),
    "find_blocks": (cpath.evaluation.find_blocks, "model", "images"),
    "rank_pixels": (cpath.evaluation.rank_pixels, "maps", "images"),
    "load_checkpoint": (cpath.models.load_checkpoint, "model", "path"),
    "decode": (lambda model, pathway: cpath.decode(model, pathway, shape=(3, 8, 8)), "model", "pathway"),
    "observe": (lambda model: cpath.observe(model).__enter__(), "model"),
    "restrict": (lambda pathway, model: cpath.Pathway.restrict(pathway, model).__enter__(), "pathway", "model"),
    "jaccard": (cpath.Pathway.jaccard, "pathway", "pathway"),
    "dead_share": (cpath.Pathway.dead_share, "pathway", "values"),
    "pathway": (cpath.Scores.pathway, "scores", "sparsity"),
    "from_masks": (cpath.Pathway.from_masks, "masks"),
}
METHODS_OF_OBJECTS = ("restrict", "jaccard", "dead_share", "pathway")  # their first argument is always right


@pytest.mark.parametrize("name", CALLS)
def test_swapped_arguments_give_a_short_message(name, images):
    model = zoo.make("sequential")
    scores = cpath.score(model, images)
    pathway = scores.pathway(50)
    things = {
        "model": model,
        "images": images,
        "method": "neuron_mct",
        "sparsity": 50,
        "scores": scores,
        "pathway": pathway,
        "masks": pathway.masks,
        "pathways": {"one": pathway},
        "values": scores.values,
        "maps": cpath.attribute(model, images, "sobel"),
        "path": "nowhere.pth",
    }
    function, *kinds = CALLS[name]
    given = tuple(things[kind] for kind in kinds)
    others = [things[kind] for kind in ("images", "model", "pathway", "scores", "path", "sparsity")]
    kept, rest = (given[:1], given[1:]) if name in METHODS_OF_OBJECTS else ((), given)
    problems = []
    for arguments in _swaps(rest, others):
        what = [described(argument) for argument in (*kept, *arguments)]
        try:
            function(*kept, *arguments)
        except cpath.CpathError as error:
            message = str(error)
            if "tensor([" in message or "(0): " in message or len(message) > 400:
                problems.append(f"{what}: {message[:200]}")
        except Exception as error:
            if "error of the model itself" in str(
                getattr(error, "__notes__", "")
            ):  # maps are images of one channel
                continue
            problems.append(f"{what}: {type(error).__name__}: {str(error)[:100]}")
        else:
            if [*map(type, arguments)] == [*map(type, rest)]:  # maps for images, which can be images
                continue
            problems.append(f"{what}: nothing raised")
    assert not problems, "\n".join(problems)


WARNING_CALLS = {
    "sparsity below 1": lambda model, images: cpath.find_pathway(model, images, sparsity=0.9),
    "sparsity below 1, of scores": lambda model, images: cpath.score(model, images).pathway(0.9),
    "empty": lambda model, images: (
        cpath.find_pathway(model, images, "active", sparsity=50) and _empty(model, images)
    ),
    "attribute": lambda model, images: cpath.attribute(model, images, "neuron_mct", sparsity=0.9),
    "sanity_check": lambda model, images: cpath.evaluation.sanity_check(
        model, images, [cpath.attribution.PathwayGradient(sparsity=0.9)], draws=1, measures=["spearman"]
    ),
    "dgr": lambda model, images: cpath.score(
        zoo.make("vgg", torch.float64),
        images.double(),
        cpath.methods.DGR(iterations=3, learning_rate=1.0, gamma=0.6, retries=0),
    ),
}


def _empty(model, images):
    scores = cpath.score(model, images)
    return type(scores)(torch.zeros_like(scores.flat), scores.layout, "mine", scores.target).pathway(50)


@pytest.mark.parametrize("call", WARNING_CALLS)
def test_a_warning_names_the_line_of_the_caller(call, images):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with torch.no_grad():
            WARNING_CALLS[call](zoo.make("sequential"), images)
    ours = [warning for warning in seen if "sparsity" in str(warning.message) or "gates" in str(warning.message)]
    assert ours
    assert {warning.filename for warning in ours} == {__file__}


def test_an_unreached_restriction_is_reported_at_the_block(images):
    model = zoo.make("sequential")
    pathway = cpath.find_pathway(model, images, sparsity=50)
    with pytest.warns(UserWarning, match="no site was reached") as seen, pathway.restrict(model):
        pass
    assert seen[0].filename == __file__


def test_a_decorated_caller_is_the_line_that_is_named(tmp_path):
    script = tmp_path / "users.py"
    script.write_text(
        textwrap.dedent("""
        import torch, cpath
        from torch import nn
        class Net(nn.Module):
            @torch.no_grad()
            def find(self, images):
                return cpath.find_pathway(self.net, images, sparsity=0.9)
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3))
        Net().find(torch.randn(2, 3, 2, 2))
        """)
    )
    env = {**os.environ, "PYTHONPATH": str(Path(cpath.__file__).parents[1])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, env=env)
    assert f"{script}:7: UserWarning: sparsity=0.9 prunes" in done.stderr


@pytest.mark.parametrize(
    ("inputs", "remedy"),
    [
        (
            lambda images: (255 * images).byte(),
            r"scaled as the model was trained on: \(images / 255 - mean\) / std",
        ),
        (lambda images: images[0], r"A single input is a batch of one: inputs?\[None\]"),
        (lambda images: images.permute(0, 2, 3, 1), r"inputs\.permute\(0, 3, 1, 2\)"),
        (lambda images: images.numpy(), r"torch\.from_numpy"),
        (lambda images: list(images), "torch.stack makes a batch"),
        (lambda images: torch.utils.data.DataLoader(images), "cpath.score_dataset"),
    ],
)
def test_inputs_in_another_form_are_refused_with_what_to_do(images, inputs, remedy):
    with pytest.raises(cpath.CpathError, match=remedy):
        cpath.find_pathway(zoo.make(zoo.sequential), inputs(images), sparsity=90)


def test_a_shape_of_another_kind_is_not_called_a_single_input(images):
    with pytest.raises(cpath.InputError, match="the model raised") as caught:
        cpath.find_pathway(zoo.make(zoo.sequential), images[:, :1], sparsity=90)
    assert "A single input" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("cat", r"not the name of a class: classes\.index\('cat'\)"),
        (["cat", "dog"], r"classes\.index\('cat'\)"),
        (torch.eye(4)[:2], r"not torch\.float32\. Of rows with a 1 at the class, target\.argmax\(1\)"),
    ],
)
def test_classes_that_are_no_numbers_are_refused_with_what_to_do(images, target, message):
    with pytest.raises(cpath.InputError, match=message):
        cpath.find_pathway(zoo.make(zoo.sequential), images, sparsity=90, target=target)


def test_a_name_of_another_kind_or_of_captum_is_answered_with_ours(images):
    with pytest.raises(cpath.UnknownNameError, match=r"'gradcam' is no method: it is an attribution"):
        cpath.find_pathway(zoo.make(zoo.sequential), images, "gradcam", sparsity=90)
    for name, ours in {"IntegratedGradients": "input_intgrad", "saliency": "gradients"}.items():
        with pytest.raises(cpath.UnknownNameError, match=f"what Captum calls so is '{ours}' here"):
            cpath.attribute(zoo.make(zoo.sequential), images, name)
        assert ours in cpath.attribution.names()


def test_an_unknown_setting_is_answered_with_those_that_there_are(images):
    with pytest.raises(cpath.InputError, match="has no setting 'steps': its settings are nodes, baseline, rule"):
        cpath.attribute(zoo.make(zoo.sequential), images, "input_intgrad", steps=10)
    with pytest.raises(cpath.InputError, match="'neuron_mct' has no setting 'steps': it has none"):
        cpath.attribute(zoo.make(zoo.sequential), images, "neuron_mct", steps=10)


def test_a_pathway_in_place_of_a_map_is_told_how_it_is_drawn(images):
    pathway = cpath.find_pathway(zoo.make(zoo.sequential), images, sparsity=50)
    with pytest.raises(cpath.InputError, match=r"not a cpath\.Pathway: pathway\.show\(inputs\) draws"):
        cpath.show(pathway, images)
    with pytest.raises(cpath.InputError, match=r"torch\.from_numpy"):
        cpath.show(cpath.attribute(zoo.make(zoo.sequential), images, "gradients"), images.numpy())
    with pytest.raises(cpath.InputError, match=r"labels must be \(3,\) whole numbers, not \['a', 'b'\]"):
        cpath.PathwayCounter(4).update(pathway, ["a", "b"])
