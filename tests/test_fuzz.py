"""Bad and odd input: every case gives the right result, or a cpath error that names the cause.

Models, images and targets are drawn together. The odd ones must give what their plain equals give; where any of
them is bad, the error has to be that of a bad one.
"""

from __future__ import annotations

import dataclasses
import pickle
import re
import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

import cpath
from cpath.evaluation import degrade
from cpath.models import load_checkpoint
from tests import zoo
from tests.oracles.threshold import kept, trues

SIZE = 3  # images
NAN, INF = float("nan"), float("inf")


class Case(NamedTuple):
    """One value of an argument: how it is made, and what the error says if it is a bad one."""

    make: Callable[[], Any]
    error: str | None = None


class Returning(nn.Module):
    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner, self.change = zoo.make("vgg"), change

    def forward(self, x: Tensor) -> object:
        return self.change(self.inner(x))


def spoiled(value: float) -> Tensor:
    images = zoo.images()
    images[2, 0, 1, 1] = value
    return images


def in_inference_mode() -> Tensor:
    with torch.inference_mode():
        return zoo.images() + 0


def in_a_dict() -> nn.Module:
    model = zoo.make("vgg")
    model.register_forward_hook(lambda _, __, logits: {"logits": logits})
    return model


def compiled_in_place() -> nn.Module:
    model = zoo.make("vgg")
    model.compile(backend="eager")
    return model


NO_LOGITS = r"the model returned .* wrap it in a module|must return floats"
SCRIPTED = "scripted model has no sites"
NO_SITES = "no site found|never reached site"
NO_MODULE = r"model must be a torch\.nn\.Module"
NO_GRADIENT = "logits have no gradient|does not depend on site|has no gradient"

MODELS = {
    "plain": Case(partial(zoo.make, "vgg")),
    "in training mode": Case(lambda: zoo.make("vgg").train()),
    "frozen": Case(lambda: zoo.make("vgg").requires_grad_(False)),
    "compiled": Case(lambda: torch.compile(zoo.make("vgg"), backend="eager")),
    "compiled in place": Case(compiled_in_place),
    "data parallel": Case(lambda: nn.DataParallel(zoo.make("vgg"))),
    "traced by fx": Case(lambda: torch.fx.symbolic_trace(zoo.make("vgg"))),
    "scripted": Case(lambda: torch.jit.script(zoo.make("vgg")), SCRIPTED),
    "traced by jit": Case(lambda: torch.jit.trace(zoo.make("vgg"), zoo.images()), SCRIPTED),
    "a tuple": Case(lambda: Returning(lambda y: (y,)), NO_LOGITS),
    "a dict of logits": Case(in_a_dict),
    "a dict": Case(lambda: Returning(lambda y: {"scores": y}), NO_LOGITS),
    "nothing": Case(lambda: Returning(lambda y: None), NO_LOGITS),
    "(1, classes)": Case(lambda: Returning(lambda y: y[:1]), NO_LOGITS),
    "(B, C, H, W)": Case(lambda: Returning(lambda y: y[:, :, None, None]), NO_LOGITS),
    "no classes": Case(lambda: Returning(lambda y: y[:, :0]), NO_LOGITS),
    "integers": Case(lambda: Returning(lambda y: y.long()), NO_LOGITS),
    "NaN": Case(lambda: Returning(lambda y: y * NAN), "logits hold NaN"),
    "detached": Case(lambda: Returning(Tensor.detach), NO_GRADIENT),
    "no sites": Case(lambda: zoo.make(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5))), NO_SITES),
    "on meta": Case(
        lambda: zoo.make("vgg").to("meta"), "(inputs|images) are cpu but the model's parameters are meta"
    ),
    "in double": Case(lambda: zoo.make("vgg").double(), r"pass (inputs|images)\.to\(torch\.float64\)"),
    "None": Case(lambda: None, NO_MODULE),
    "a function": Case(lambda: zoo.make("vgg").forward, NO_MODULE),
    "a class": Case(lambda: nn.ReLU, NO_MODULE),
    "a name": Case(lambda: "resnet18", NO_MODULE),
}
# Gradients and images alone are enough for some, the activations for others.
WITHOUT_SITES = {f"attribute {name}" for name in ("gradients", "input_mct", "input_intgrad", "smoothgrad")}
WITHOUT_GRADIENTS = {"score random", "score active", "degrade"}
WITHOUT_BOTH = {"attribute random", "attribute sobel"}
FINE_FOR = {
    "no sites": WITHOUT_SITES | WITHOUT_BOTH | {"degrade"},
    "detached": WITHOUT_GRADIENTS | WITHOUT_BOTH,
}

DTYPE, DEVICE = r"(inputs|images) are torch\.\w+ but .* pass \w+\.to\(torch\.float32\)", "(inputs|images) are meta"
IMAGES = {
    "plain": Case(zoo.images),
    "not contiguous": Case(lambda: zoo.images().transpose(2, 3).contiguous().transpose(2, 3)),
    "channels last": Case(lambda: zoo.images().contiguous(memory_format=torch.channels_last)),
    "expanded": Case(lambda: zoo.images()[:1].expand(SIZE, -1, -1, -1)),
    "requiring gradients": Case(lambda: zoo.images().requires_grad_()),
    "inside a graph": Case(lambda: zoo.images().requires_grad_() * 1),
    "a parameter": Case(lambda: nn.Parameter(zoo.images())),
    "made in inference mode": Case(in_inference_mode),
    "lazily negated": Case(lambda: torch._neg_view(-zoo.images())),
    "half": Case(lambda: zoo.images().half(), DTYPE),
    "bfloat16": Case(lambda: zoo.images().bfloat16(), DTYPE),
    "double": Case(lambda: zoo.images().double(), DTYPE),
    "float8": Case(lambda: zoo.images().to(torch.float8_e4m3fn), DTYPE),
    "bytes": Case(lambda: zoo.images().byte(), "(inputs|images) must be floats"),
    "booleans": Case(lambda: zoo.images() > 0, "(inputs|images) must be floats"),
    "complex": Case(lambda: zoo.images().to(torch.complex64), "(inputs|images) must be floats"),
    "on meta": Case(lambda: zoo.images().to("meta"), DEVICE),
    "sparse": Case(lambda: zoo.images().to_sparse(), r"must be dense.*to_dense\(\)"),
    "none at all": Case(lambda: zoo.images()[:0], "B ≥ 1"),
    "without pixels": Case(lambda: zoo.images()[:, :, :0], "B ≥ 1"),
    "a vector": Case(lambda: torch.ones(3), "must be a batch"),
    "NaN": Case(lambda: spoiled(NAN), "NaN or infinite"),
    "infinite": Case(lambda: spoiled(-INF), "NaN or infinite"),
    "an array": Case(lambda: zoo.images().numpy(), "must be a tensor"),
    "a list": Case(lambda: [zoo.images()], "must be a tensor"),
    # More memory than an address can name: refused before anything is touched.
    "far too many": Case(lambda: zoo.images()[:1].expand(10**13, -1, -1, -1), "out of memory: pass"),
}

CLASSES = [4, 0, 2]
TARGETS = {
    "predicted": Case(lambda: None),
    "a class": Case(lambda: 0),
    "of numpy": Case(lambda: np.int16(3)),
    "a list": Case(lambda: CLASSES),
    "a tuple": Case(lambda: tuple(CLASSES)),
    "an array": Case(lambda: np.array(CLASSES)),
    "bytes": Case(lambda: torch.tensor(CLASSES, dtype=torch.uint8)),
    "not contiguous": Case(lambda: torch.tensor([CLASSES, CLASSES]).T[:, 0]),
    "sparse": Case(lambda: torch.tensor(CLASSES).to_sparse()),
    "negative": Case(lambda: -1, "no class of the model"),
    "too large": Case(lambda: [0, 5, 1], "no class of the model"),
    "beyond 64 bits": Case(lambda: 2**70, "must be a class index"),
    "true": Case(lambda: True, "integers"),
    "a float": Case(lambda: 1.0, "integers"),
    "NaN": Case(lambda: NAN, "integers"),
    "floats": Case(lambda: torch.tensor([0.0, 1.0, 2.0]), "integers"),
    "masks": Case(lambda: torch.tensor([True, False, True]), "integers"),
    "too few": Case(lambda: [0, 1], "one per input"),
    "a column": Case(lambda: torch.tensor([[0], [1], [2]]), "one per input"),
    "a word": Case(lambda: "cat", "must be a class index"),
    "a dict": Case(dict, "must be a class index"),
    "on meta": Case(lambda: torch.zeros(SIZE, dtype=torch.long, device="meta"), "must be a class index"),
}


@cache
def scores() -> cpath.Scores:
    return cpath.score(zoo.make("vgg"), zoo.images(), cpath.methods.NeuronIntGrad(nodes=2))


@cache
def pathway() -> cpath.Pathway:
    return cpath.find_pathway(zoo.make("vgg"), zoo.images(), sparsity=60)


def calls() -> dict[str, Callable[[Any, Any, Any], Tensor]]:
    made: dict[str, Callable[[Any, Any, Any], Tensor]] = {
        "pathway_gradient": lambda model, images, target: cpath.pathway_gradient(model, images, pathway(), target),
        "degrade": lambda model, images, target: (
            degrade(model, images, torch.ones(SIZE, 1, 8, 8), target, percent=[10, 50]).change
        ),
    }
    for name in cpath.methods.names():
        method = zoo.quick(name)
        made[f"score {name}"] = lambda model, images, target, method=method: (
            cpath.score(model, images, method, target).flat
        )
    for name in cpath.attribution.names():
        one = zoo.quick_attribution(name)
        made[f"attribute {name}"] = lambda model, images, target, one=one: cpath.attribute(
            model, images, one, target
        )
    return made


CALLS = calls()
MODEL = cache(lambda name: MODELS[name].make())


def plain(images: Tensor) -> Tensor:
    """Their values and nothing else."""
    return torch.tensor(images.tolist())


@st.composite
def mixtures(draw: Any) -> tuple[str, str, str]:
    """Any of each; the plain one half of the time, or nearly everything would be bad."""
    return tuple(
        next(iter(cases)) if draw(st.booleans()) else draw(st.sampled_from(list(cases)))
        for cases in (MODELS, IMAGES, TARGETS)
    )


def check(call: str, model: str, images: str, target: str) -> None:
    """Asserts the rule for one mixture."""
    drawn = {"model": MODELS[model], "images": IMAGES[images], "target": TARGETS[target]}
    errors = [case.error for case in drawn.values() if case.error is not None]
    if model in FINE_FOR and call in FINE_FOR[model]:
        errors.remove(MODELS[model].error)
        if not errors and model == "no sites":
            return  # another network than the one that is compared with
    given_images, given_target = IMAGES[images].make(), TARGETS[target].make()
    if (model, images) == ("in double", "double"):
        return  # each would be bad alone
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if errors:
            with pytest.raises(cpath.CpathError) as raised:
                CALLS[call](MODEL(model), given_images, given_target)
            # What is bad may also not fit the pathway, or an attribution, which may say so first.
            others = ["belongs? to", "needs images"]
            assert re.search("|".join([*errors, *others]), str(raised.value)), str(raised.value)
            return
        found = CALLS[call](MODEL(model), given_images, given_target)
    labels = given_target if given_target is None else torch.as_tensor(given_target).to_dense().long()
    expected = CALLS[call](MODEL("plain"), plain(given_images), labels)
    assert not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("call", list(CALLS))
@given(mixtures())
@settings(max_examples=10)
def test_odd_input_gives_the_right_result_and_bad_input_its_error(call, mixture):
    check(call, *mixture)


@pytest.mark.parametrize(
    ("model", "images", "target"),
    [
        *((name, "plain", "predicted") for name in MODELS),
        *(("plain", name, "predicted") for name in IMAGES),
        *(("plain", "plain", name) for name in TARGETS),
        ("no sites", "a vector", "predicted"),  # torch says "Dimension out of range"
    ],
)
@pytest.mark.parametrize("call", ["score neuron_mct", "attribute gradcam"])
def test_every_odd_or_bad_argument_alone(call, model, images, target):
    check(call, model, images, target)


@pytest.mark.slow
@pytest.mark.parametrize("call", list(CALLS))
@given(mixtures())
@settings(max_examples=300)
def test_many_mixtures(call, mixture):
    check(call, *mixture)


# Settings

PLAIN = (bool, int, float, str)
ABSURD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**70, 10**400, NAN, INF, -INF, 0.5, 1.5, -0.1, "", "x", "../x", "midpoint"]),
    st.just([]),
    st.just({}),
    st.just(torch.tensor(1.5)),
)


def settings_of(made: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(made)]


def score_with(name: str, **settings: Any) -> Tensor:
    method = cpath.methods.get(name, **{**zoo.QUICK_SETTINGS.get(name, {}), **settings})
    return cpath.score(zoo.make("vgg"), zoo.images(1), method).flat


def attribute_with(name: str, **settings: Any) -> Tensor:
    one = dataclasses.replace(zoo.quick_attribution(name), **settings)
    return cpath.attribute(zoo.make("vgg"), zoo.images(1), one)


SETTINGS = [
    *((score_with, name, field) for name in cpath.methods.names() for field in settings_of(zoo.quick(name))),
    *(
        (attribute_with, name, field)
        for name in cpath.attribution.names()
        for field in settings_of(zoo.quick_attribution(name))
    ),
]


@pytest.mark.filterwarnings("ignore:sparsity=")  # that 0.5 is half a per cent
@given(st.sampled_from(SETTINGS), ABSURD)
@settings(max_examples=100)
def test_absurd_settings_are_refused_or_give_finite_numbers(setting, value):
    use, name, field = setting
    try:
        found = use(name, **{field: value})
    except cpath.CpathError:
        return
    assert torch.isfinite(found).all()


@pytest.mark.parametrize(("use", "name", "field"), SETTINGS)
def test_settings_of_another_type_are_refused(use, name, field):
    made = zoo.quick(name) if use is score_with else zoo.quick_attribution(name)
    current = getattr(made, field)
    if not isinstance(current, PLAIN):
        pytest.skip("takes objects")
    wrong = 1.5 if isinstance(current, bool | str) else "many"
    with pytest.raises(cpath.CpathError, match=f"{field} must be|{field}|unknown"):
        use(name, **{field: wrong})


SEEDED: list[Callable[[Any], Any]] = [
    lambda seed: cpath.methods.Random(seed=seed),
    lambda seed: cpath.methods.DGRRandomInit(seed=seed),
    lambda seed: cpath.attribution.RandomMap(seed=seed),
    lambda seed: cpath.attribution.SmoothGrad(seed=seed),
    lambda seed: cpath.evaluation.NoisyLinear(seed=seed),
    lambda seed: cpath.decode(zoo.make("vgg"), None, cpath.decoding.Logit(0), shape=(3, 8, 8), seed=seed),
    lambda seed: cpath.evaluation.sanity_check(zoo.make("vgg"), zoo.images(), ["sobel"], seed=seed),
]


@pytest.mark.parametrize("seed", [-1, 1.5, NAN, True, "3", None, [1], 2**70])
@pytest.mark.parametrize("use", SEEDED)
def test_a_seed_is_a_whole_number_from_0_on(use, seed):
    with pytest.raises(cpath.InputError, match=r"seed must be (at least 0|a whole number)"):
        use(seed)


COUNTED: list[Callable[[Any], Any]] = [
    lambda count: cpath.methods.Greedy(rounds=count),
    lambda count: cpath.methods.GreedyReleased(rounds=count),
    lambda count: cpath.methods.DGR(iterations=count),
    lambda count: cpath.attribution.InputIntGrad(nodes=count),
    lambda count: cpath.attribution.SmoothGrad(samples=count),
    lambda count: cpath.analysis.affine_radius(zoo.make("vgg"), zoo.images(), pathway(), neurons=count),
    lambda count: cpath.evaluation.sanity_check(zoo.make("vgg"), zoo.images(), ["sobel"], draws=count),
]


@pytest.mark.parametrize("count", [0, -1, 1.5, NAN, True, "3"])
@pytest.mark.parametrize("use", COUNTED)
def test_a_count_is_a_whole_number_above_0(use, count):
    with pytest.raises(cpath.InputError, match=r"must be (at least 1|a whole number)"):
        use(count)


@pytest.mark.parametrize("max_batch", [0, -1, 1.5, NAN, True, "3", None, [1]])
@pytest.mark.parametrize("call", [cpath.score, cpath.attribute, cpath.find_pathway])
def test_max_batch_is_a_whole_number_above_0(images, call, max_batch):
    with pytest.raises(cpath.InputError, match="max_batch must be at least 1"):
        call(zoo.make("vgg"), images, "neuron_mct", max_batch=max_batch)


@pytest.mark.parametrize("sites", [None, 3, [3], [["relu"]], ["relu", "nope"], "sofmax", {"relu": 1, 4: 2}])
def test_sites_are_names(images, sites):
    model = zoo.make("vgg")
    for use in (
        lambda: cpath.score(model, images, sites=sites),
        lambda: cpath.attribute(model, images, sites=sites),
        lambda: cpath.observe(model, sites=sites).__enter__(),
    ):
        with pytest.raises(cpath.CpathError, match=r"activation function|sites must be names"):
            use()


@pytest.mark.parametrize("name", [None, 3, [], {}, "", "../neuron_mct", "neuron_mct\0", cpath.methods.NeuronMCT])
def test_names_of_methods_are_those_registered(name):
    for get in (cpath.methods.get, cpath.attribution.get):
        with pytest.raises(cpath.UnknownNameError, match="Known: "):
            get(name)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "a b", "|", "a\nb", None, 3])
def test_names_that_could_not_name_a_file_are_not_registered(name):
    for register in (cpath.register, cpath.attribution.register):
        with pytest.raises(cpath.InputError, match="letters, digits"):
            register(name)


# Sparsity

SPARSITY = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([True, False, np.True_, None, "often", "", b"90", "nan", [90], 1j, 10**400, -0.0, 100 - 1e-14]),
    st.floats(0, 100, width=32).map(np.float32),
    st.integers(0, 99).map(torch.tensor),
)


@given(SPARSITY)
@example(99.99999999999999)
@settings(max_examples=150)
def test_a_sparsity_is_a_number_from_0_to_below_100_or_refused(sparsity):
    scores = torch.tensor([[0.0, 3.0, 1.0, 1.0, 2.0]])
    one = cpath.Scores(scores, cpath.layout.SiteLayout({"a": (5,)}), "own", torch.tensor([0]))
    number = isinstance(sparsity, int | float | np.floating | Tensor) and not isinstance(sparsity, bool)
    if number and 0 <= sparsity < 100:
        found = one.pathway(sparsity)
        assert trues(found.flat[0].tolist()) == kept(scores[0].tolist(), float(sparsity))
        assert found.requested_sparsity == float(sparsity)
        return
    with pytest.raises(cpath.InputError, match="sparsity"):
        one.pathway(sparsity)


# Masks


@given(
    st.dictionaries(
        st.sampled_from(["1", "4", "9", "elsewhere"]),
        st.lists(st.integers(0, 4), max_size=4).map(tuple),
        max_size=4,
    ),
    st.sampled_from([torch.bool, torch.uint8, torch.float32]),
)
@settings(max_examples=30)
def test_masks_of_any_shape_are_refused_unless_they_fit(shapes, dtype):
    model, images = zoo.make("vgg"), zoo.images()
    with cpath.observe(model) as seen:
        expected = model(images)
    right = {name: tuple(output.shape[1:]) for name, output in seen.activations.items()}
    fits = dtype == torch.bool and {name: shape[1:] for name, shape in shapes.items()} == right
    masks = {name: torch.ones(shape, dtype=dtype) for name, shape in shapes.items()}
    try:
        own = cpath.Pathway.from_masks(masks)
        with own.restrict(model):
            found = model(images)
    except cpath.MaskError:
        assert not fits
        return
    assert fits
    torch.testing.assert_close(found, expected)


def test_masks_that_fit_are_taken():
    # What the property above can hardly draw: right names, shapes and type.
    model, images = zoo.make("vgg"), zoo.images()
    with cpath.observe(model) as seen:
        expected = model(images)
    masks = {name: torch.ones_like(output, dtype=torch.bool) for name, output in seen.activations.items()}
    with cpath.Pathway.from_masks(masks).restrict(model):
        torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(
    "masks", [None, [], 3, {"1": None}, {"1": [True]}, {1: torch.ones(3, 2, dtype=torch.bool)}]
)
def test_what_are_no_masks_is_refused(masks):
    with pytest.raises(cpath.MaskError, match="mask"):
        cpath.Pathway.from_masks(masks)


@pytest.mark.parametrize("model", ["sequential", "residual", "functional", "fire"])
@pytest.mark.parametrize("size", [8, 16])
def test_pathways_of_another_model_or_size_are_refused(model, size):
    with pytest.raises(cpath.MaskError, match=r"another model|input size"):
        cpath.pathway_gradient(zoo.make(model), zoo.images(size=size), pathway())
    other = cpath.find_pathway(zoo.make(model), zoo.images(size=size))
    with pytest.raises(cpath.MaskError, match="different networks or input sizes"):
        pathway().jaccard(other)


@given(st.integers(-10, 10))
def test_an_image_of_a_pathway_is_there_or_refused(index):
    if -SIZE <= index < SIZE:
        assert torch.equal(pathway()[index].flat[0], pathway().flat[index])
        return
    with pytest.raises(cpath.MissingImageError, match=f"no image {index}"):
        pathway()[index]


def test_a_pathway_is_iterated_over_image_by_image():
    assert [len(one) for one in pathway()] == [1, 1, 1]


@given(st.integers(-10, 10))
def test_an_image_of_scores_is_there_or_refused(index):
    if -SIZE <= index < SIZE:
        one = scores()[index]
        assert torch.equal(one.flat, scores().flat[index][None])
        assert one.target.tolist() == [scores().target[index].item()]
        assert {name: value.tolist() for name, value in one.residual.items()} == {
            name: [value[index].item()] for name, value in scores().residual.items()
        }
        assert torch.equal(one.pathway(60).flat[0], scores().pathway(60).flat[index])
        return
    with pytest.raises(cpath.MissingImageError, match=f"no image {index}: the scores belong to {SIZE}"):
        scores()[index]


def test_scores_are_cut_and_iterated_over_image_by_image():
    assert torch.equal(scores()[1:].flat, scores().flat[1:])
    assert (scores()[1:].method, scores()[1:].layout) == (scores().method, scores().layout)
    assert torch.equal(torch.cat([one.flat for one in scores()]), scores().flat)
    without = cpath.score(zoo.make("vgg"), zoo.images(), "active")[0]
    assert without.residual is None
    assert len(without) == 1


@pytest.mark.parametrize("other", [None, 3, "pathway", {}, torch.ones(3)])
def test_what_is_no_pathway_is_refused(images, other):
    for use in (
        pathway().jaccard,
        pathway().jaccard_by_site,
        partial(cpath.pathway_gradient, zoo.make("vgg"), images),
    ):
        with pytest.raises(cpath.CpathError, match=r"a cpath\.Pathway, not"):
            use(other)


# A site that leads nowhere


class DeadEnd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.aside, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        z = torch.relu(self.conv(x))
        torch.relu(self.aside(z))
        return self.fc(z.mean((2, 3)))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_site_that_leads_nowhere_contributes_nothing(images, frozen):
    model = zoo.make(DeadEnd).requires_grad_(not frozen)
    for name in ("neuron_mct", "neuron_intgrad", "neuron_intgrad_released"):
        scores = cpath.score(model, images, name)
        assert not scores.values[":relu#2"].any()
        assert scores.values[":relu"].any()
    for name in ("gradcam", "neuron_intgrad_star"):
        with pytest.raises(cpath.SiteError, match="does not depend on site ':relu#2'"):
            cpath.attribute(model, images, name)
        assert cpath.attribute(model, images, name, site=":relu").any()


# Files


class Bomb:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self.path, "w")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "wrap", [lambda x: x, lambda x: {"state_dict": x}, lambda x: {"0.weight": x}, lambda x: [x]]
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_in_a_checkpoint_never_runs(tmp_path, suffix, wrap, zipped):
    exploded, file = tmp_path / "exploded", tmp_path / f"weights{suffix}"
    torch.save(wrap(Bomb(str(exploded))), file, _use_new_zipfile_serialization=zipped)
    model = zoo.make("vgg")
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(cpath.InputError, match=r"could run code|damaged"):
        load_checkpoint(model, file)
    file.write_bytes(pickle.dumps(wrap(Bomb(str(exploded)))))
    with pytest.raises(cpath.InputError, match=r"could run code|damaged"):
        load_checkpoint(model, file)
    assert not exploded.exists()
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


@cache
def checkpoints() -> dict[str, bytes]:
    import io
    import tempfile

    state, buffer = zoo.make("vgg").state_dict(), io.BytesIO()
    torch.save(state, buffer)
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
        save_file(state, file.name)
        return {".pth": buffer.getvalue(), ".safetensors": open(file.name, "rb").read()}


@given(st.sampled_from([".pth", ".safetensors"]), st.floats(0, 1, exclude_max=True), st.binary(max_size=64))
@settings(max_examples=25)
def test_truncated_checkpoints_and_noise_are_refused(tmp_path_factory, suffix, share, noise):
    file = tmp_path_factory.mktemp("files") / f"weights{suffix}"
    data = checkpoints()[suffix]
    for content in (data[: int(share * len(data))], noise, data[:64] + noise):
        file.write_bytes(content)
        with pytest.raises(cpath.InputError, match=r"damaged|could run code|no state dict"):
            load_checkpoint(zoo.make("vgg"), file)
