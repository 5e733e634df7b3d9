import copy
import threading
import warnings
from functools import wraps

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn

import cpath
from cpath.sites import evaluating, intercept
from tests import zoo


def site_names(model: nn.Module, images: Tensor, **options: object) -> list[str]:
    with cpath.observe(model, **options) as seen, torch.no_grad():
        model(images)
    return list(seen.activations)


def wrap(forward) -> nn.Module:
    """A module with a convolution, a ReLU module and ``forward(self, x)``."""

    class Custom(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.relu = nn.ReLU()
            self.fc = nn.Linear(4, zoo.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(forward(self, self.conv(x)).mean((2, 3)))

    return zoo.make(Custom)


# Names


NAMES = {
    "sequential": ["1", "4", "8"],
    "residual": ["relu", "layer1.0.relu", "layer1.0.relu#2", "layer1.1.relu", "layer1.1.relu#2"],
    "vgg": ["1", "4", "9"],
    "functional": ["stem:relu", ":relu", "body:relu", ":relu#2"],
    "fire": [
        "1",
        "3.squeeze_activation",
        "3.expand1x1_activation",
        "3.expand3x3_activation",
        "4.squeeze_activation",
        "4.expand1x1_activation",
        "4.expand3x3_activation",
        "6",
    ],
}


@pytest.mark.parametrize("name", list(zoo.MODELS))
def test_sites_are_named_in_call_order(name, images):
    assert site_names(zoo.make(name), images) == NAMES[name]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.relu(x),
        lambda x: F.relu(x, True),
        lambda x: F.relu(x, inplace=True),
        lambda x: F.relu(input=x),
        lambda x: F.relu_(x),
        lambda x: torch.relu(x),
        lambda x: torch.relu_(x),
        lambda x: x.relu(),
        lambda x: x.relu_(),
        lambda x: Tensor.relu(x),
        lambda x: nn.ReLU()(x),  # a module made in forward is no part of the model
        lambda x: nn.ReLU(inplace=True)(x),
    ],
)
def test_every_spelling_of_relu_is_one_site(call, images):
    model = wrap(lambda self, x: call(x))
    with cpath.observe(model) as seen:
        logits = model(images)
    assert list(seen.activations) == [":relu"]
    hidden = model.conv(images).clamp(min=0)
    torch.testing.assert_close(seen.activations[":relu"], hidden)
    torch.testing.assert_close(logits, model.fc(hidden.mean((2, 3))))
    # The same spelling, restricted.
    mask = torch.rand(hidden.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with cpath.Pathway.from_masks({":relu": mask}).restrict(model):
        torch.testing.assert_close(model(images), model.fc((hidden * mask).mean((2, 3))))


def test_functional_call_in_a_nested_module_carries_the_modules_name(images):
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleDict({"a": zoo.FunctionalBlock(3, 4), "b": zoo.FunctionalBlock(4, 4)})
            self.fc = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.blocks["a"](x)
            x = self.blocks["b"](self.blocks["b"](x))
            return self.fc(x.mean((2, 3)))

    assert site_names(zoo.make(Outer), images) == ["blocks.a:relu", "blocks.b:relu", "blocks.b:relu#2"]


def test_shared_module_goes_by_its_first_name(images):
    shared = nn.ReLU()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), shared, nn.Linear(6, 6), shared, nn.Linear(6, 5))
    assert site_names(model, images) == ["2", "2#2"]


def test_subclass_of_relu_is_seen_as_a_functional_call(images):
    class Mine(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + F.relu(-x)

    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), Mine(), nn.Linear(6, 5))
    assert site_names(model, images) == ["2:relu", "2:relu#2"]


def test_activation_outside_the_model_is_no_site(images):
    model, other = zoo.make("vgg"), nn.ReLU()
    with cpath.observe(model) as seen:
        other(images)
        F.relu(images)
        zoo.make("residual")(images)
        assert seen.activations == {}
        model(other(images))
        F.relu(images)
        zoo.make("residual")(images)
    assert list(seen.activations) == NAMES["vgg"]


def test_counts_restart_with_each_forward_pass(images):
    model = zoo.make("residual")
    names = []
    with intercept(model, lambda name, output: names.append(name)), evaluating(model):
        for size in (3, 3, 1):
            model(images[:size])
    assert names == 3 * NAMES["residual"]


def test_observation_holds_the_last_forward_pass(images):
    model = zoo.make("residual")
    with cpath.observe(model) as seen:
        model(images)
        model(images[:1])
    assert list(seen.activations) == NAMES["residual"]
    with cpath.observe(model) as alone:
        model(images[:1])
    for name, output in alone.activations.items():
        assert torch.equal(seen.activations[name], output)


def test_counts_restart_after_a_forward_pass_that_raised(images):
    model = zoo.make(lambda: zoo.Raising(at=2))
    with cpath.observe(model) as seen:
        model(images)
        with pytest.raises(OSError, match="on purpose"):
            model(images)
        model.at = 100
        model(images)
    assert list(seen.activations) == ["relu1", "relu2"]


def test_calling_a_part_of_the_model_keeps_the_names(images):
    model = zoo.make("residual")
    with cpath.observe(model) as seen:
        model.layer1(torch.ones(2, 4, 8, 8))
    assert list(seen.activations) == NAMES["residual"][1:]


def test_hooks_of_the_user_do_not_disturb_the_names(images):
    model = zoo.make("residual")
    calls = []
    for module in model.modules():
        module.register_forward_pre_hook(lambda *a: calls.append("pre"))
        module.register_forward_hook(lambda *a: calls.append("post"))
    assert site_names(model, images) == NAMES["residual"]
    assert calls.count("pre") == calls.count("post") > 10


# Other activation functions


OTHERS = {
    "relu6": [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, lambda x: F.hardtanh_(x, 0, 6)],
    "leaky_relu": [
        nn.LeakyReLU(0.2),
        nn.LeakyReLU(0.2, inplace=True),
        lambda x: F.leaky_relu(x, 0.2, True),
        lambda x: F.leaky_relu_(x, 0.2),
    ],
    "elu": [nn.ELU(), nn.ELU(inplace=True), lambda x: F.elu_(x, 1.5), lambda x: F.elu(x, 1.5, True)],
    "selu": [nn.SELU(), nn.SELU(inplace=True), torch.selu, torch.selu_],
    "celu": [nn.CELU(), nn.CELU(inplace=True), torch.celu_],
    "gelu": [nn.GELU(), nn.GELU("tanh"), F.gelu],
    "silu": [nn.SiLU(), nn.SiLU(inplace=True), F.silu],
    "mish": [nn.Mish(), nn.Mish(inplace=True)],
    "hardswish": [nn.Hardswish(), nn.Hardswish(inplace=True)],
    "hardtanh": [nn.Hardtanh(), nn.Hardtanh(inplace=True), lambda x: F.hardtanh_(x, -2, 2)],
    "hardsigmoid": [nn.Hardsigmoid(), nn.Hardsigmoid(inplace=True)],
    "softplus": [nn.Softplus(), F.softplus],
    "sigmoid": [nn.Sigmoid(), torch.sigmoid, F.sigmoid, lambda x: x.sigmoid(), lambda x: x.sigmoid_()],
    "tanh": [nn.Tanh(), torch.tanh, F.tanh, lambda x: x.tanh(), lambda x: x.tanh_(), torch.tanh_],
    "logsigmoid": [nn.LogSigmoid(), F.logsigmoid],
    "softsign": [nn.Softsign(), F.softsign],
    "tanhshrink": [nn.Tanhshrink(), F.tanhshrink],
}


def test_every_known_activation_is_tried():
    assert sorted(cpath.ACTIVATIONS) == sorted(["relu", *OTHERS])


@pytest.mark.parametrize(
    ("kind", "function"), [(kind, function) for kind, functions in OTHERS.items() for function in functions]
)
def test_other_activations_are_sites_when_named(kind, function, images):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.act = function if isinstance(function, nn.Module) else None
            self.fc = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(function(self.conv(x)).mean((2, 3)))

    model = zoo.make(Net)
    assert site_names(model, images) == []
    name = "act" if isinstance(function, nn.Module) else f":{kind}"
    with cpath.observe(model, sites=[kind]) as seen:
        logits = model(images)
    assert list(seen.activations) == [name]
    expected = function(model.conv(images))
    torch.testing.assert_close(seen.activations[name], expected)
    torch.testing.assert_close(logits, model.fc(expected.mean((2, 3))))
    mask = torch.rand(expected.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with cpath.Pathway.from_masks({name: mask}, sites=[kind]).restrict(model):
        torch.testing.assert_close(model(images), model.fc((expected * mask).mean((2, 3))))


def test_several_activations_can_be_sites_together(images):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Sigmoid())
    assert site_names(model, images) == ["3"]
    assert site_names(model, images, sites="gelu") == ["1"]
    assert site_names(model, images, sites=("relu", "gelu")) == ["1", "3"]


def test_unknown_activation_is_refused_with_a_close_match(images):
    with (
        pytest.raises(cpath.UnknownNameError, match=r"unknown activation function 'rellu'.*Did you mean.* relu"),
        cpath.observe(zoo.make("vgg"), sites=["rellu"]),
    ):
        pass


# Models in wrappers


def test_scripted_model_is_refused(images):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that scripting is deprecated is no concern of this test
        scripted = torch.jit.script(zoo.make("sequential"))
    with pytest.raises(cpath.SiteError, match=r"scripted model has no sites.*nn.Module"), cpath.observe(scripted):
        pass
    with pytest.raises(cpath.SiteError, match="scripted"):
        cpath.score(scripted, images)


def test_compiled_model_is_run_as_its_plain_module(images):
    model = zoo.make("vgg").train()
    compiled = torch.compile(model)
    scores = cpath.score(compiled, images, "neuron_mct")
    assert torch.equal(scores.flat, cpath.score(model, images, "neuron_mct").flat)
    assert list(scores.values) == NAMES["vgg"]
    assert model.training
    assert all(module.training for module in compiled.modules())
    with intercept(compiled, lambda name, output: torch.zeros_like(output), edits={"9"}), evaluating(model):
        torch.testing.assert_close(model(images), model[11].bias.expand(3, 5))


@pytest.mark.parametrize("spelling", [lambda block: torch.compile(block, backend="eager"), lambda block: block])
def test_blocks_that_are_compiled_one_by_one_have_the_sites_of_plain_ones(spelling, images):
    plain = zoo.make("residual")
    model = copy.deepcopy(plain)
    model.layer1[0] = spelling(model.layer1[0])
    model.layer1[1].compile(backend="eager")
    expected = cpath.score(plain, images, cpath.methods.NeuronIntGrad(nodes=3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns of hooks that what is compiled passes by
        cpath.score(model, images)
    for run_before in (False, True):  # compiled by then
        if run_before:
            model(images)
        assert site_names(model, images) == NAMES["residual"]
        found = cpath.score(model, images, cpath.methods.NeuronIntGrad(nodes=3))
        assert torch.equal(found.flat, expected.flat)
        pathway = expected.pathway(80)
        gradients = [cpath.pathway_gradient(each, images, pathway) for each in (model, plain)]
        assert torch.equal(*gradients)
        maps = [cpath.attribute(each, images, "gradients") for each in (model, plain)]
        assert torch.equal(*maps)


def test_what_is_compiled_runs_compiled_again_afterwards(images):
    compilations = []

    def backend(graph, _):
        compilations.append(graph)
        return graph

    model = nn.Sequential(torch.compile(zoo.make("sequential"), backend=backend)).eval()
    outer, inner = cpath.observe(model), cpath.observe(model)
    with outer, inner:
        model(images)
    cpath.score(model, images)
    barrier = threading.Barrier(2)

    def work(first: bool) -> None:  # blocks that overlap in two threads
        with intercept(model, lambda name, output: None):
            barrier.wait()
            if not first:
                barrier.wait()
        if first:
            barrier.wait()

    threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert compilations == []
    model(images)
    assert len(compilations) == 1


class OwnCall(nn.Module):
    """Runs its forward pass itself, past the function behind `nn.Module.__call__`."""

    def __call__(self, *inputs):
        return self.forward(*inputs)


class WrappedCall(nn.Module):
    @wraps(nn.Module.__call__)
    def __call__(self, *inputs):
        return super().__call__(*inputs)


@pytest.mark.parametrize("base", [OwnCall, WrappedCall])
def test_modules_with_a_call_of_their_own_have_sites(base, images):
    class Activation(base):
        def forward(self, x: Tensor) -> Tensor:
            return F.relu(x)

    class Net(base):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.relu, self.own = nn.ReLU(), Activation()
            self.fc = nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.relu(F.relu(self.relu(self.conv(x))) - 0.1)
            return self.fc(F.relu(self.own(x - 0.1) - 0.1).mean((2, 3)))

    model = zoo.make(Net)
    names = ["relu", ":relu", "relu#2", "own:relu", ":relu#2"]
    for _ in range(2):
        assert site_names(model, images) == names
    first = model.conv(images).clamp(min=0)
    second = (first - 0.1).clamp(min=0)
    third = (second - 0.1).clamp(min=0)
    outputs = [first, first, second, third, (third - 0.1).clamp(min=0)]
    for name, output in zip(names, outputs, strict=True):
        torch.testing.assert_close(cpath.Probe(model, images).record().activations[name], output.detach())


@pytest.mark.parametrize("kind", ["relu", "relu6", "leaky_relu", "silu", "hardswish", "logsigmoid", "sigmoid"])
def test_exported_models_are_refused_with_the_cause(kind, images):
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return getattr(F, kind)(self.fc(x.mean((2, 3))))

    exported = torch.export.export(Net().eval(), (images,))
    for model, part in ((exported.module(), ""), (nn.Sequential(exported.module()), "0")):
        message = rf"the part '{part}' of the model comes from torch.export: its {kind} is an operator"
        with pytest.raises(cpath.SiteError, match=message):
            cpath.score(model, images, sites=kind)
        with pytest.raises(cpath.SiteError, match=message), cpath.observe(model, sites=kind):
            pass
    with pytest.raises(cpath.InputError, match=r"ExportedProgram.*pass the nn\.Module that was exported"):
        cpath.score(exported, images)


def test_transformer_layers_do_not_take_a_path_around_their_sites():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)).eval()
    assert site_names(model, torch.randn(2, 5, 8)) == ["0.layers.0:relu", "0.layers.1:relu"]


# What the model computes


@pytest.mark.parametrize("module", [*zoo.MODELS, zoo.Discarding, zoo.InplaceSkip, zoo.Scaled])
def test_outputs_are_the_same_with_and_without_observe(module, images):
    model = zoo.make(module)
    plain = model(images)
    with cpath.observe(model):
        assert torch.equal(model(images), plain)
    assert torch.equal(model(images), plain)


def test_observed_activations_are_copies(images):
    def forward(self, x):
        x = F.relu(x)
        with torch.no_grad():
            x *= 0
        return x

    model = wrap(forward)
    with cpath.observe(model) as seen, torch.no_grad():
        model(images)
    torch.testing.assert_close(seen.activations[":relu"], model.conv(images).clamp(min=0))
    assert not seen.activations[":relu"].requires_grad


def test_in_place_activation_whose_return_value_is_ignored_is_restricted(images):
    model = zoo.make(zoo.Discarding)
    generator = torch.Generator().manual_seed(0)
    masks = {
        ":relu": torch.rand(3, 4, 8, 8, generator=generator) < 0.4,
        ":relu#2": torch.rand(3, 8, generator=generator) < 0.4,
    }
    first = model.conv(images).clamp(min=0) * masks[":relu"]
    second = model.hidden(first.mean((2, 3))).clamp(min=0) * masks[":relu#2"]
    with cpath.Pathway.from_masks(masks).restrict(model):
        torch.testing.assert_close(model(images), model.fc(second))


def test_output_that_the_model_changes_in_place_is_masked_before(images):
    def forward(self, x):
        x = F.gelu(x)
        x += 1
        return x

    model = wrap(forward)
    hidden = F.gelu(model.conv(images))
    mask = torch.rand(hidden.shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with cpath.Pathway.from_masks({":gelu": mask}, sites=["gelu"]).restrict(model):
        torch.testing.assert_close(model(images), model.fc((hidden * mask + 1).mean((2, 3))))


def test_edits_apply_to_the_named_sites_only(images):
    model = zoo.make("residual")
    visited = []

    def visit(name: str, output: Tensor) -> Tensor:
        visited.append(name)
        return output * 0

    with intercept(model, visit, edits={"layer1.0.relu#2"}):
        changed = model(images)
    assert visited == NAMES["residual"]
    # The first block's output is gone, so nothing of the image is left.
    torch.testing.assert_close(changed, changed[:1].expand(3, -1))
    assert not torch.allclose(model(images), changed)


def test_visitor_that_returns_none_changes_nothing(images):
    model = zoo.make("vgg")
    with intercept(model, lambda name, output: None, edits={"1", "4", "9"}):
        changed = model(images)
    assert torch.equal(changed, model(images))


def test_observe_inside_restrict_sees_the_masked_outputs(images):
    model = zoo.make("residual")
    pathway = cpath.find_pathway(model, images, sparsity=80)
    with pathway.restrict(model), cpath.observe(model) as seen:
        model(images)
    for name, mask in pathway.masks.items():
        assert (seen.activations[name][~mask] == 0).all()
    assert seen.activations["relu"].count_nonzero() > 0


# Threads and modes


def test_forward_pass_of_another_thread_is_not_recorded(images):
    model = zoo.make("residual")
    plain = model(images)
    results = {}

    def other() -> None:
        results["logits"] = model(images[:1])

    pathway = cpath.Pathway.from_masks(
        {name: torch.zeros_like(m) for name, m in cpath.find_pathway(model, images).masks.items()}
    )
    with cpath.observe(model) as seen, pathway.restrict(model):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert seen.activations == {}
        torch.testing.assert_close(results["logits"], plain[:1])
        assert not torch.allclose(model(images), plain)
    assert len(seen.activations["relu"]) == 3


def test_two_threads_observe_at_the_same_time_without_mixing(images):
    model = zoo.make("residual")
    barrier = threading.Barrier(2)
    found: dict[int, dict[str, Tensor]] = {}

    def work(index: int) -> None:
        with cpath.observe(model) as seen:
            for _ in range(20):
                barrier.wait()
                model(images[index : index + 1])
        found[index] = seen.activations

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        with cpath.observe(model) as alone:
            model(images[index : index + 1])
        assert list(found[index]) == NAMES["residual"]
        for name, output in alone.activations.items():
            assert torch.equal(found[index][name], output)


def test_observe_runs_in_eval_mode_and_restores_each_modules_mode(images):
    model = zoo.make("residual").train()
    model.layer1[0].bn1.eval()
    before = {name: module.training for name, module in model.named_modules()}
    with cpath.observe(model):
        assert not any(module.training for module in model.modules())
        model(images)
    assert {name: module.training for name, module in model.named_modules()} == before
    with pytest.raises(ZeroDivisionError), cpath.observe(model):
        raise ZeroDivisionError
    assert {name: module.training for name, module in model.named_modules()} == before


def test_a_copy_of_the_model_made_inside_is_another_model(images):
    model = zoo.make("vgg")
    with cpath.observe(model) as seen:
        copy.deepcopy(model)(images)
    assert seen.activations == {}


# Architectures, with tensors that have shapes but no contents


COUNTS = {
    "resnet18": 17,
    "resnet50": 49,
    "vgg11": 10,
    "vgg16": 15,
    "alexnet": 7,
    "squeezenet1_0": 26,
    "densenet121": 121,
    "googlenet": 57,
    "inception_v3": 94,
    "shufflenet_v2_x0_5": None,
    "regnet_x_400mf": None,
    "resnext50_32x4d": 49,
    "mnasnet0_5": None,
}


def calls_of_relu(model: nn.Module, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """Counted the crude way: by another function in the place of F.relu."""
    calls = []
    original = F.relu
    with monkeypatch.context() as patch:
        patch.setattr(F, "relu", lambda *a, **k: (calls.append(1), original(*a, **k))[1])
        model(images)
    return len(calls)


@pytest.mark.parametrize("architecture", list(COUNTS))
def test_torchvision_models_have_as_many_sites_as_calls(architecture, monkeypatch):
    options = {"weights": None}
    if architecture in ("googlenet", "inception_v3"):
        options |= {"init_weights": False, "aux_logits": False}
    # The widths of RegNets are computed with tensors, so these must have contents at first.
    with torch.device("cpu" if architecture.startswith("regnet") else "meta"):
        model = getattr(tv, architecture)(**options).eval()
    images = torch.empty(2, 3, 96, 96, device="meta")
    model.to("meta")
    count = calls_of_relu(model, images, monkeypatch)
    names = site_names(model, images)
    assert len(names) == len(set(names)) == count
    assert COUNTS[architecture] in (None, count)


def test_relu6_of_mobilenet_is_found():
    with torch.device("meta"):
        model = tv.mobilenet_v2(weights=None).eval()
    names = site_names(model, torch.empty(1, 3, 64, 64, device="meta"), sites=["relu6"])
    assert names == [name for name, module in model.named_modules() if isinstance(module, nn.ReLU6)]
    assert len(names) == 35


@pytest.mark.parametrize("architecture", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_torchvision_models_compute_the_same_when_observed(architecture):
    torch.manual_seed(0)
    model = getattr(tv, architecture)(weights=None).eval()
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        plain = model(images)
        with cpath.observe(model) as seen:
            assert torch.equal(model(images), plain)
    assert all(len(output) == 1 for output in seen.activations.values())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["googlenet", "densenet121", "vgg11"])
def test_larger_torchvision_models_are_scored_and_restricted(architecture):
    torch.manual_seed(0)
    options = {"init_weights": False, "aux_logits": False} if architecture == "googlenet" else {}
    model = getattr(tv, architecture)(weights=None, **options).eval()
    images = torch.randn(1, 3, 64, 64)
    scores = cpath.score(model, images)
    pathway = scores.pathway(90)
    assert len(scores.values) == COUNTS[architecture]
    with pathway.restrict(model), cpath.observe(model) as seen, torch.no_grad():
        model(images)
    assert all((seen.activations[name][~mask] == 0).all() for name, mask in pathway.masks.items())


def _script(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that scripting is deprecated is no concern of these tests
        return torch.jit.script(module)


@pytest.mark.parametrize(
    ("activation", "kind"),
    [(nn.ReLU(), "relu"), (nn.ReLU(inplace=True), "relu"), (nn.ReLU6(), "relu6"), (nn.LogSigmoid(), "logsigmoid")],
)
def test_a_scripted_part_that_hides_a_site_is_refused(activation, kind, images):
    part = _script(nn.Sequential(nn.Conv2d(3, 4, 3), activation))
    model = nn.Sequential(nn.Sequential(part), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    message = rf"the part '0\.0' of the model is scripted, so that its {kind} runs outside Python"
    with pytest.raises(cpath.SiteError, match=message):
        cpath.score(model, images, sites=(kind, "elu"))
    with pytest.raises(cpath.SiteError, match=message), cpath.observe(model, sites=kind):
        pass
    assert site_names(model, images, sites="elu") == []


def test_a_scripted_part_without_a_site_is_taken(images):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    model = nn.Sequential(_script(plain[0]), *plain[1:]).eval()
    assert torch.equal(cpath.score(model, images).flat, cpath.score(plain, images).flat)


def test_data_parallel_is_refused_where_it_runs_in_threads(images):
    model = zoo.make("residual")
    pathway = cpath.find_pathway(model, images)
    parallel = nn.DataParallel(model)
    if len(parallel.device_ids) < 2:  # here it is a plain call
        assert site_names(parallel, images) == NAMES["residual"]
    parallel.device_ids = [0, 1]
    for context in (cpath.observe(parallel), pathway.restrict(parallel)):
        with pytest.raises(cpath.SiteError, match=r"DataParallel.*pass model\.module"), context:
            pass
    assert torch.equal(cpath.score(parallel, images).flat, cpath.score(model, images).flat)
