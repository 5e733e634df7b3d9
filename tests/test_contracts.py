"""The promises that every registered method keeps. A new method is tested here the day it is registered."""

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.methods.base import REGISTRY
from tests import zoo

CLOSE = {"rtol": 1e-9, "atol": 1e-12}

# First stands the one that `one_at_a_time` tries together with everything else: the method that runs the model in
# the most ways, and the model that calls a module twice.
METHODS = ("neuron_intgrad", *(name for name in cpath.methods.names() if name != "neuron_intgrad"))
MODELS = ("residual", *(name for name in zoo.MODELS if name != "residual"))


def one_at_a_time(*axes: Sequence[object]) -> list[tuple[object, ...]]:
    """The first value of every axis, and each other value beside the first ones of all other axes.

    For what does not depend on each other, where all combinations would try the same code again and again.
    """
    first = [axis[0] for axis in axes]
    others = [(*first[:at], value, *first[at + 1 :]) for at, axis in enumerate(axes) for value in axis[1:]]
    return [tuple(first), *others]


@pytest.fixture
def double() -> Tensor:
    return zoo.images(dtype=torch.float64)


@pytest.fixture(params=list(zoo.MODELS))
def double_model(request: pytest.FixtureRequest) -> nn.Module:
    return zoo.make(request.param, torch.float64)


def with_gradients(model: nn.Module, images: Tensor) -> nn.Module:
    """The model with gradients of its own, a frozen parameter and a hook, all of which are to survive."""
    model(images).sum().backward()
    next(model.parameters()).requires_grad_(False)
    model.register_forward_hook(lambda *a: None)
    # On the last one, because torch allows no in-place activation behind a module with such a hook.
    list(model.children())[-1].register_full_backward_hook(lambda *a: None)
    return model


# What is left behind


def test_success_leaves_the_model_as_it_was(model, method, images):
    with_gradients(model, images)
    model.train()
    next(model.children()).eval()
    with zoo.untouched(model):
        pathway = cpath.find_pathway(model, images, method, 80)
        with pathway.restrict(model), torch.no_grad():
            model(images)
        cpath.pathway_gradient(model, images, pathway)


@pytest.mark.parametrize("error", [OSError, RuntimeError, KeyboardInterrupt])
def test_model_that_raises_is_left_as_it_was(method, images, error):
    counting = zoo.make(lambda: zoo.Raising(at=10**9))
    cpath.score(counting, images, method)
    passes = counting.passes
    for at in {1, 2, (1 + passes) // 2, passes, passes + 1}:
        model = zoo.make(lambda at=at: zoo.Raising(at, error)).train()
        raises = pytest.raises(error, match="on purpose") if at <= passes else nullcontext()
        with zoo.untouched(model), raises:
            cpath.score(model, images, method)


def test_model_that_raises_while_restricted_is_left_as_it_was(images):
    model = zoo.make(lambda: zoo.Raising(at=4)).train()  # two passes look at the model
    pathway = cpath.find_pathway(model, images, "random")
    for use in (lambda: model(images), lambda: cpath.pathway_gradient(model, images, pathway)):
        with zoo.untouched(model), pytest.raises(OSError, match="on purpose"), pathway.restrict(model):
            use()


def test_what_the_model_keeps_on_itself_is_left_as_it_was(method, images):
    counting = zoo.make(zoo.Keeping)
    expected = cpath.score(counting, images, method)
    passes = counting.counter.value
    for at in (10**9, 2, (1 + passes) // 2, passes):
        for run_before in (False, True):
            model = zoo.make(zoo.Keeping)
            if run_before:
                model(images)
            model.at, model.counter.value = at, 0
            raises = pytest.raises(OSError, match="on purpose") if at <= passes else nullcontext()
            with zoo.untouched(model), raises:
                assert torch.equal(cpath.score(model, images, method).flat, expected.flat)
            if run_before:
                torch.testing.assert_close(model.features, model.conv1(images).clamp(min=0))
                assert model.calls == int(model.total) == len(model.history) == 1


@pytest.mark.parametrize("name", cpath.attribution.names())
def test_what_the_model_keeps_on_itself_is_left_as_it_was_by_attributions(name, images):
    model = zoo.make(zoo.Keeping)
    model(images)
    with zoo.untouched(model):
        cpath.attribute(model, images, zoo.quick_attribution(name))
    with zoo.untouched(model):
        cpath.pathway_gradient(model, images, cpath.find_pathway(model, images))


def test_what_the_model_keeps_in_the_callers_own_pass_stays(images):
    model = zoo.make(zoo.Keeping)
    pathway = cpath.find_pathway(model, images)
    with pathway.restrict(model):
        model(images)
    expected = model.conv1(images).clamp(min=0) * pathway.masks[":relu"]
    torch.testing.assert_close(model.features, expected)
    assert model.calls == 1


WRONG_TARGETS = (5, -1, 0.0, torch.tensor([0, 1]), torch.tensor([0, 1, 5]))  # the first is noticed after a pass


@pytest.mark.parametrize(("method", "name", "target"), one_at_a_time(METHODS, MODELS, WRONG_TARGETS))
def test_wrong_target_is_refused_and_the_model_left_as_it_was(method, name, images, target):
    model = zoo.make(name).train()
    with zoo.untouched(model), pytest.raises(cpath.InputError, match="target"):
        cpath.score(model, images, zoo.quick(method), target)


def test_images_are_left_as_they_were(method, images):
    for module in (*zoo.MODELS, zoo.Normalising):
        model = zoo.make(module)
        mine = images.clone()
        pathway = cpath.find_pathway(model, mine, method, 50)
        cpath.pathway_gradient(model, mine, pathway)
        assert torch.equal(mine, images)
        assert mine._version == 0
        assert mine.grad is None


def test_model_that_changes_its_input_in_place_is_scored_as_one_that_does_not(method, images):
    class Gentle(zoo.Normalising):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.clone())

    found = cpath.score(zoo.make(zoo.Normalising), images, method)
    assert torch.equal(found.flat, cpath.score(zoo.make(Gentle), images, method).flat)


def test_importing_patches_nothing():
    assert F.relu.__module__ == "torch.nn.functional"
    assert nn.ReLU.forward.__module__ == "torch.nn.modules.activation"
    assert nn.Module.__call__ is nn.Module._wrapped_call_impl
    assert torch.overrides._get_current_function_mode_stack() == []


def test_copies_of_a_scored_model_work(method, images):
    model = zoo.make("residual")
    scores = cpath.score(model, images, method)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(images), model(images))
    assert torch.equal(cpath.score(twin, images, method).flat, scores.flat)
    with scores.pathway(80).restrict(model):
        inner = copy.deepcopy(model)
    assert torch.equal(inner(images), model(images))


# What a score is


def test_scores_are_finite_non_negative_and_one_for_each_neuron(model, method, images):
    scores = cpath.score(model, images, method)
    with cpath.observe(model) as seen:
        model(images)
    assert {name: values.shape for name, values in scores.values.items()} == {
        name: output.shape for name, output in seen.activations.items()
    }
    assert list(scores.values) == list(seen.activations)
    assert scores.flat.isfinite().all()
    assert (scores.flat >= 0).all()
    assert (scores.flat > 0).any(1).all()
    assert not scores.flat.requires_grad
    assert scores.method == method.name
    assert torch.equal(scores.target, model(images).argmax(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_scores_have_the_type_and_device_of_the_images(method, dtype):
    scores = cpath.score(zoo.make("residual", dtype), zoo.images(dtype=dtype), method)
    # Greedy's hold a round of removal and a contribution.
    assert scores.flat.dtype == (torch.float64 if method.name == "greedy" else dtype)
    assert scores.flat.device.type == scores.target.device.type == "cpu"
    assert scores.target.dtype == torch.int64
    assert scores.pathway(90).flat.dtype == torch.bool


def test_pathways_of_rising_sparsity_are_nested(model, method, images):
    scores = cpath.score(model, images, method)
    pathways = [scores.pathway(sparsity) for sparsity in (0, 30, 80, 90, 99)]
    for many, few in pairwise(pathways):
        assert not (few.flat & ~many.flat).any()
        assert (few.sparsity >= few.requested_sparsity - 1e-9).all()


# What a score depends on, and what not


def test_same_call_gives_the_same_bits(model, method, images):
    first = cpath.score(model, images, method)
    torch.manual_seed(7)  # the global seed is no business of a method
    again = cpath.score(model, images, method)
    assert torch.equal(first.flat, again.flat)


def test_batch_equals_its_images_one_by_one(double_model, method, double):
    batch = cpath.score(double_model, double, method)
    for index in range(3):
        alone = cpath.score(double_model, double[index : index + 1], method)
        assert len(alone) == 1
        torch.testing.assert_close(alone.flat[0], batch.flat[index], **CLOSE)
        assert alone.target[0] == batch.target[index]
        assert torch.equal(alone.pathway(80).flat[0], batch.pathway(80).flat[index])
        if batch.residual is not None:
            for name, values in alone.residual.items():
                torch.testing.assert_close(
                    values[0], batch.residual[name][index], rtol=1e-6, atol=1e-9, equal_nan=True
                )


class PatchEmbedding(nn.Module):
    """Normalised channels that become tokens: the gradient comes back with the channels next to each other."""

    def __init__(self, norm) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU()
        self.patches, self.norm = nn.Conv2d(4, 8, 3, 2, 1), norm
        self.fc = nn.Linear(8, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.patches(self.relu(self.conv(x))))
        tokens = F.relu(F.layer_norm(x.flatten(2).transpose(1, 2), (8,)))
        return self.fc(tokens.mean(1))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, lambda c: nn.InstanceNorm2d(c, affine=True)])
def test_gradient_of_one_normalised_image_is_right(norm, double):
    """torch itself gives a wrong one; the batch of two, written out, tells the right one."""
    model = zoo.make(lambda: PatchEmbedding(norm(8)), torch.float64)
    method = cpath.methods.NeuronIntGrad(nodes=3)
    calls = {
        "neuron_mct": lambda images, part: cpath.score(model, images, "neuron_mct", 1).flat,
        "neuron_intgrad": lambda images, part: cpath.score(model, images, method, 1).flat,
        "greedy": lambda images, part: cpath.score(model, images, cpath.methods.Greedy(rounds=3), 1).flat,
        "dgr": lambda images, part: cpath.score(model, images, cpath.methods.DGR(iterations=3)).flat,
        "pathway_gradient": lambda images, part: cpath.pathway_gradient(model, images, pathway[part], 1),
        **{
            name: lambda images, part, name=name: cpath.attribute(model, images, zoo.quick_attribution(name), 1)
            for name in ("gradients", "input_mct", "input_intgrad", "smoothgrad", "gbp", "gradcam")
        },
    }
    pathway = cpath.find_pathway(model, double, sparsity=30)
    for name, call in calls.items():
        together = call(double, slice(0, 3))
        for index in range(3):
            part = slice(index, index + 1)
            assert_close = torch.testing.assert_close
            assert_close(call(double[part], part)[0], together[index], **CLOSE, msg=lambda m, name=name: name + m)

    def by_hand(x: Tensor) -> Tensor:
        """Logits of one image, without a function of torch that normalises."""
        x = model.patches(model.conv(x).clamp(min=0))
        mean = x.mean((2, 3), keepdim=True)
        variance = (x - mean).pow(2).mean((2, 3), keepdim=True)
        if isinstance(model.norm, nn.BatchNorm2d):
            mean, variance = (each.view(1, -1, 1, 1) for each in (model.norm.running_mean, model.norm.running_var))
        x = (x - mean) / (variance + 1e-5).sqrt()
        x = x * model.norm.weight.view(1, -1, 1, 1) + model.norm.bias.view(1, -1, 1, 1)
        tokens = x.flatten(2).transpose(1, 2).contiguous()
        spread = (tokens - tokens.mean(2, keepdim=True)).pow(2).mean(2, keepdim=True)
        return model.fc(((tokens - tokens.mean(2, keepdim=True)) / (spread + 1e-5).sqrt()).clamp(min=0).mean(1))

    source = double[:1].clone().requires_grad_()
    (expected,) = torch.autograd.grad(by_hand(source.repeat(2, 1, 1, 1))[0, 1], source)
    torch.testing.assert_close(cpath.attribute(model, double[:1], "gradients", 1), expected, **CLOSE)
    everything = cpath.find_pathway(model, double[:1], "active", 0)
    mine = double[:1].clone().requires_grad_()
    with everything.restrict(model):
        model(mine)[0, 1].backward()
    torch.testing.assert_close(mine.grad, expected, **CLOSE)


def test_order_of_the_images_does_not_matter(method, double):
    model = zoo.make("residual", torch.float64)
    order = [2, 0, 1]
    found = cpath.score(model, double[order], method).flat
    torch.testing.assert_close(found, cpath.score(model, double, method).flat[order], **CLOSE)


SIZES = [
    *product(METHODS, MODELS, (2,)),
    *one_at_a_time(METHODS, MODELS, (1,)),
    *one_at_a_time(METHODS, MODELS, (4,)),
]


@pytest.mark.parametrize(("method", "name", "max_batch"), SIZES)
def test_max_batch_does_not_change_the_result(method, name, double, max_batch):
    model, method = zoo.make(name, torch.float64), zoo.quick(method)
    whole = cpath.score(model, double, method, target=[4, 0, 1])
    part = cpath.score(model, double, method, target=[4, 0, 1], max_batch=max_batch)
    torch.testing.assert_close(part.flat, whole.flat, **CLOSE)
    assert torch.equal(part.target, whole.target)
    assert part.layout == whole.layout


@pytest.mark.parametrize(("method", "name"), one_at_a_time(METHODS, MODELS))
def test_training_mode_gives_the_result_of_eval_mode(method, images, name):
    model, method = zoo.make(name), zoo.quick(method)
    expected = cpath.score(model, images, method).flat
    model.train()
    assert torch.equal(cpath.score(model, images, method).flat, expected)
    assert all(module.training for module in model.modules())


def test_class_zero_is_a_class(method, double):
    model = zoo.make("residual", torch.float64)
    assert 0 not in model(double).argmax(1)[:2]
    as_int = cpath.score(model, double[:2], method, 0)
    as_tensor = cpath.score(model, double[:2], method, torch.tensor([0, 0]))
    assert as_int.target.tolist() == [0, 0]
    assert torch.equal(as_int.flat, as_tensor.flat)
    predicted = cpath.score(model, double[:2], method)
    depends_on_target = method.name not in ("random", "active") and not method.name.startswith("dgr")
    assert torch.equal(as_int.flat, predicted.flat) is not depends_on_target


FORMS = (lambda t: t.tolist(), lambda t: t, lambda t: t.to(torch.uint8), lambda t: t.numpy())


@pytest.mark.parametrize(("method", "form"), one_at_a_time(METHODS, FORMS))
def test_target_is_taken_in_any_form(method, images, form):
    model, method, target = zoo.make("vgg"), zoo.quick(method), torch.tensor([0, 4, 2])
    scores = cpath.score(model, images, method, form(target))
    assert torch.equal(scores.target, target)
    assert torch.equal(scores.flat, cpath.score(model, images, method, target).flat)


def test_frozen_parameters_change_nothing(model, method, images):
    expected = cpath.score(model, images, method).flat
    model.requires_grad_(False)
    assert torch.equal(cpath.score(model, images, method).flat, expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


SWITCHES = one_at_a_time(METHODS, MODELS, (torch.inference_mode,)) + one_at_a_time(
    METHODS, MODELS, (torch.no_grad,)
)


@pytest.mark.parametrize(("method", "name", "outer"), SWITCHES)
def test_gradients_that_the_caller_switched_off_change_nothing(method, name, images, outer):
    model, method = zoo.make(name), zoo.quick(method)
    expected = cpath.score(model, images, method, [0, 1, 2])
    pathway = expected.pathway(70)
    with outer():
        mine = images.clone()
        target = torch.tensor([0, 1, 2])
        found = cpath.score(model, mine, method, target)
        assert torch.equal(found.flat, expected.flat)
        gradient = cpath.pathway_gradient(model, mine, pathway)
        assert not torch.is_grad_enabled()
    assert torch.equal(gradient, cpath.pathway_gradient(model, images, pathway))
    # What was made under inference_mode stays usable outside of it.
    assert torch.equal(cpath.score(model, mine, method, target).flat, expected.flat)


def test_images_that_require_gradients_change_nothing(method, images):
    model = zoo.make("fire")
    expected = cpath.score(model, images, method).flat
    found = cpath.score(model, images.clone().requires_grad_(), method).flat
    assert torch.equal(found, expected)
    assert not found.requires_grad


@pytest.mark.parametrize(("method", "size"), one_at_a_time(METHODS, [(13, 9), (8, 8), (32, 32)]))
def test_any_size_of_images_is_taken(method, size):
    model, method = zoo.make("fire"), zoo.quick(method)
    images = zoo.images(2, 32)[:, :, : size[0], : size[1]]  # not contiguous
    scores = cpath.score(model, images, method)
    assert scores.values["1"].shape == (2, 4, *size)
    assert torch.equal(scores.flat, cpath.score(model, images.contiguous(), method).flat)


# Bad input


def no_sites() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))


class Returning(nn.Module):
    """A model that returns something else than logits."""

    def __init__(self, wrap: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner = zoo.make("vgg")
        self.wrap = wrap

    def forward(self, x: Tensor) -> object:
        return self.wrap(self.inner(x))


def spoiled(value: float) -> Tensor:
    images = zoo.images()
    images[1, 2, 3, 4] = value
    return images


BAD_IMAGES = {
    "NaN": (spoiled(float("nan")), "NaN or infinite"),
    "infinite": (spoiled(float("inf")), "NaN or infinite"),
    "empty": (zoo.images()[:0], r"B ≥ 1; got shape \(0, 3, 8, 8\)"),
    "no pixels": (zoo.images()[:, :, :0], r"got shape \(3, 3, 0, 8\)"),
    "bytes": (torch.zeros(3, 3, 8, 8, dtype=torch.uint8), "floats.*uint8"),
    "ints": (torch.zeros(3, 3, 8, 8, dtype=torch.int64), "floats.*int64"),
    "float64": (
        zoo.images(dtype=torch.float64),
        r"inputs are torch.float64.*torch.float32.*inputs.to\(torch.float32\)",
    ),
    "elsewhere": (zoo.images().to("meta"), r"inputs are meta .* parameters are cpu: pass inputs.to\('cpu'\)"),
    "list": ([[1.0]], "must be a tensor.*not an object of type list"),
    "none": (None, "must be a tensor.*not None"),
    "vector": (torch.ones(3), "must be a batch"),
}


@pytest.mark.parametrize(("method", "case"), one_at_a_time(METHODS, list(BAD_IMAGES)))
def test_unusable_images_are_refused(method, case):
    images, message = BAD_IMAGES[case]
    model, method = zoo.make("vgg"), zoo.quick(method)
    with zoo.untouched(model), pytest.raises(cpath.InputError, match=message):
        cpath.score(model, images, method)


def test_model_without_a_site_is_refused(method, images):
    with pytest.raises(
        cpath.SiteError, match=r"no site found.*\(relu\).*Flatten \(1×\), Linear \(1×\).*Known: relu, .*gelu"
    ):
        cpath.score(no_sites(), images, method)


NO_LOGITS = {
    "NaN": (lambda y: y / 0 - y / 0, "logits hold NaN"),
    "tuple": (lambda y: (y, y), "returned a tuple, not logits"),
    "dict": (lambda y: {"scores": y}, "returned a dict, not logits"),
    "maps": (lambda y: y[:, :, None], r"returned shape \(3, 5, 1\), not logits \(3, classes\)"),
    "one row": (lambda y: y[:1], r"returned shape \(1, 5\), not logits \(3, classes\)"),
    "number": (lambda y: y.sum(), r"returned shape \(\)"),
}


@pytest.mark.parametrize(("method", "case"), one_at_a_time(METHODS, list(NO_LOGITS)))
def test_model_that_returns_no_logits_is_refused(method, images, case):
    wrap, message = NO_LOGITS[case]
    model, method = Returning(wrap), zoo.quick(method)
    with zoo.untouched(model), pytest.raises(cpath.InputError, match=message):
        cpath.score(model, images, method)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, "target 5 is no class of the model: it has 5, 0 to 4"),
        (torch.tensor([0, 7, 1]), "target 7 is no class"),
        (-1, "target -1 is no class"),
        (1.0, "integers.*float"),
        (True, "integers.*bool"),
        (torch.tensor([0.0, 1, 2]), "integers.*float32"),
        (torch.tensor([0, 1]), r"shape \(3,\), not \(2,\)"),
        (torch.tensor([[0], [1], [2]]), r"shape \(3,\), not \(3, 1\)"),
        ([], r"target"),
        ("cat", "target must be a class index"),
        ([None, 1, 2], "target must be a class index"),
    ],
)
def test_wrong_targets_are_named(images, target, message):
    model = zoo.make("vgg")
    with pytest.raises(cpath.InputError, match=message):
        cpath.score(model, images, "active", target)
    pathway = cpath.find_pathway(model, images)
    with pytest.raises(cpath.InputError, match=message):
        cpath.pathway_gradient(model, images, pathway, target)


@pytest.mark.parametrize("sparsity", [-1, 100, float("nan"), "x", None])
def test_wrong_sparsity_is_refused_before_any_work(images, sparsity):
    model = zoo.make(zoo.Raising)
    with pytest.raises(cpath.InputError, match="sparsity"):
        cpath.find_pathway(model, images, sparsity=sparsity)
    assert model.passes == 0
    scores = cpath.score(zoo.make("vgg"), images)
    with pytest.raises(cpath.InputError, match="sparsity"):
        scores.pathway(sparsity)


def test_unknown_method_is_refused_with_a_close_match(images):
    with pytest.raises(cpath.UnknownNameError, match=r"unknown method 'neuron_mtc'.*Did you mean neuron_mct"):
        cpath.score(zoo.make("vgg"), images, "neuron_mtc")
    with pytest.raises(KeyError):  # also what dictionaries raise
        cpath.methods.get("nothing like it")


@pytest.mark.parametrize("method", [cpath.methods.NeuronMCT, None, 3])
def test_what_is_no_method_is_refused(images, method):
    with pytest.raises(cpath.InputError, match=r"a registered name or a cpath.Method"):
        cpath.score(zoo.make("vgg"), images, method)


@pytest.mark.parametrize("max_batch", [0, -4])
def test_max_batch_must_be_positive(images, max_batch):
    with pytest.raises(cpath.InputError, match="max_batch must be at least 1"):
        cpath.score(zoo.make("vgg"), images, max_batch=max_batch)


def test_every_error_is_a_cpath_error_and_a_builtin_one():
    for error, builtin in [
        (cpath.InputError, ValueError),
        (cpath.MaskError, ValueError),
        (cpath.SiteError, RuntimeError),
        (cpath.UnknownNameError, KeyError),
    ]:
        assert issubclass(error, cpath.CpathError)
        assert issubclass(error, builtin)
    assert str(cpath.UnknownNameError("plain words")) == "plain words"


# A user's own method


@pytest.fixture
def own_method():
    def build(values: Callable[[cpath.Probe], object]) -> type[cpath.Method]:
        @cpath.register("own")
        @dataclass(frozen=True, kw_only=True)
        class Own(cpath.Method):
            factor: float = 1.0

            def contributions(self, probe: cpath.Probe) -> object:
                found = values(probe)
                return {name: self.factor * value for name, value in found.items()}

        return Own

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cpath.methods.base.REGISTRY", REGISTRY)
        yield build
    REGISTRY.pop("own", None)


def test_registered_method_is_a_name_everywhere(own_method, images):
    own = own_method(lambda probe: probe.record(gradients=False).activations)
    model = zoo.make("vgg")
    assert "own" in cpath.methods.names()
    with cpath.observe(model) as seen:
        model(images)
    scores = cpath.score(model, images, cpath.methods.get("own", factor=-2))
    assert scores.method == "own"
    for name, output in seen.activations.items():
        torch.testing.assert_close(scores.values[name], 2 * output)  # the score is the magnitude
    assert torch.equal(cpath.find_pathway(model, images, "own").flat, scores.pathway(90).flat)
    assert isinstance(cpath.methods.get("own"), own)
    with pytest.raises(cpath.InputError, match=r"method 'own'.*faktor"):
        cpath.methods.get("own", faktor=2)


@pytest.mark.parametrize("found", [None, torch.zeros(3), {}, {"relu": torch.zeros(2, 4)}, {"relu": "none"}])
def test_what_is_no_tensor_a_site_is_refused(images, found):
    @dataclass(frozen=True, kw_only=True)
    class Wrong(cpath.Method):
        def contributions(self, probe):
            return found

    with pytest.raises(cpath.InputError, match=r"must return .*\*site"):
        cpath.score(zoo.make("vgg"), images, Wrong())


def test_what_is_no_method_is_not_registered():
    with pytest.raises(cpath.InputError, match=r"subclass of cpath.Method"):
        cpath.register("wrong")(int)
    with pytest.raises(cpath.InputError, match=r"len must be a subclass of cpath.Method"):
        cpath.register("wrong")(len)


def test_sparsity_that_looks_like_a_fraction_is_warned_of(images):
    with pytest.warns(UserWarning, match="for 90 per cent say sparsity=90"):
        cpath.find_pathway(zoo.make("vgg"), images, sparsity=0.9)


def test_taken_name_is_refused(own_method):
    own_method(lambda probe: {})
    with pytest.raises(cpath.InputError, match="method name 'neuron_mct' is taken"):
        cpath.register("neuron_mct")(cpath.methods.get("own").__class__)


def test_nan_scores_are_refused(own_method, images):
    own_method(lambda probe: {name: z / 0 - z / 0 for name, z in probe.record(gradients=False).activations.items()})
    with pytest.raises(cpath.InputError, match="method 'own' gave NaN"):
        cpath.score(zoo.make("vgg"), images, "own")


def test_sites_that_differ_between_images_are_refused(images):
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            z = F.relu(self.conv(x))
            if x[0, 0, 0, 0] > 2:
                z = F.relu(z - 1)
            return self.fc(z.mean((2, 3)))

    images = images.clone()
    images[:, 0, 0, 0] = torch.tensor([1.0, 3.0, 1.0])
    with pytest.raises(cpath.SiteError, match="sites differ from one input to another"):
        cpath.score(zoo.make(Choosy), images, max_batch=1)
    assert len(cpath.score(zoo.make(Choosy), images, max_batch=3)) == 3


@dataclass(frozen=True, kw_only=True)
class Free(cpath.Method):
    """Settings of types that only the author knows how to check, beside one that anybody can."""

    layers: tuple[int, int] = (0, 1)
    names: list[str] | None = None
    weights: dict[str, float] | None = None
    function: Callable[[Tensor], Tensor] = torch.abs
    kind: Literal["a", "b"] = "a"
    count: int | None = None

    def contributions(self, probe: cpath.Probe) -> object:
        return probe.record(gradients=False).activations


def test_settings_of_any_type_are_taken_and_plain_ones_checked():
    settings = {"layers": (2, 3), "names": ["a"], "weights": {"a": 0.5}, "function": torch.relu, "kind": "b"}
    made = Free(**settings, count=4)
    assert {name: getattr(made, name) for name in settings} == settings
    assert Free(layers=5, count=None).layers == 5  # as in any dataclass
    with pytest.raises(cpath.InputError, match=r"Free: count must be a whole number or None, not 1\.5"):
        Free(count=1.5)


@pytest.mark.parametrize("annotation", ["Nowhere", "torch.nowhere", "int |", "3"])
def test_annotations_that_cannot_be_evaluated_check_nothing(annotation):
    own = dataclass(frozen=True, kw_only=True)(
        type("Own", (Free,), {"__annotations__": {"extra": annotation}, "extra": 0, "__module__": __name__})
    )
    assert own(extra="anything").extra == "anything"


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_scores_that_are_no_floats_are_taken_as_numbers(images, dtype):
    model = zoo.make("vgg")

    @dataclass(frozen=True, kw_only=True)
    class Keeping(cpath.Method):
        def contributions(self, probe: cpath.Probe) -> object:
            return {name: (z > 0).to(dtype) for name, z in probe.record(gradients=False).activations.items()}

    scores = cpath.score(model, images, Keeping())
    assert scores.flat.dtype == (torch.float32 if dtype == torch.bool else torch.float64)
    active = cpath.find_pathway(model, images, "active", 0)
    assert torch.equal(scores.pathway(0).flat, active.flat)
    assert scores.flat.unique().tolist() == [0, 1]


def test_complex_scores_are_refused(own_method, images):
    own_method(lambda probe: {name: 1j * z for name, z in probe.record(gradients=False).activations.items()})
    with pytest.raises(cpath.InputError, match=r"method 'own' must return real numbers, not torch\.complex64"):
        cpath.score(zoo.make("vgg"), images, "own")
