"""Sites that are outputs of modules, chosen by class, name or pattern, against forward hooks set by hand."""

from __future__ import annotations

import copy
import threading
import warnings
from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.functional import gelu as bound_at_import
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import checkpoint

import cpath
from cpath.sites import EVERY_SITE, evaluating, intercept
from tests import zoo

TIGHT = {"rtol": 1e-9, "atol": 1e-12}
WIDTH = 6


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class Square(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x / 50

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return ctx.saved_tensors[0] * gradient / 25


class Custom(nn.Module):
    """An autograd function of the user's, which no mode sees."""

    def forward(self, x: Tensor) -> Tensor:
        return Square.apply(x)


class Act(nn.Module):
    """As the activation classes of Hugging Face: a function that was bound when the file was imported."""

    def forward(self, x: Tensor) -> Tensor:
        return bound_at_import(x)


class Pair(nn.Module):
    """Returns a tuple, as attention modules do."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.fc(x), None


class Block(nn.Module):
    """A residual block whose result is changed in place after the module that gave it."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.pair = Pair()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, WIDTH), act, nn.Linear(WIDTH, WIDTH))
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.pair(x)[0])
        out = self.mlp(x)
        out += x
        return out


class Net(nn.Module):
    def __init__(self, wrapped: Callable[[nn.Module, Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.stem = nn.Linear(3 * 8 * 8, WIDTH)
        acts = (nn.PReLU(WIDTH), QuickGELU(), Custom(), Act(), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList(Block(act) for act in acts)
        self.fc = nn.Linear(WIDTH, zoo.CLASSES)
        self.wrapped = wrapped

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.flatten(1))
        for block in self.blocks:
            x = block(x) if self.wrapped is None else self.wrapped(block, x)
        return self.fc(x)


def net(wrapped: Callable[[nn.Module, Tensor], Tensor] | None = None) -> nn.Module:
    model = zoo.make(lambda: Net(wrapped), torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.div_(2)  # logits of thousands would make much of roundings
    return model


@pytest.fixture
def images() -> Tensor:
    return zoo.images(dtype=torch.float64)


@contextmanager
def hooked(model: nn.Module, names: list[str], masks: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Hooks that multiply the modules' outputs by masks, if any, and note them."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., object]:
        def hook(module: nn.Module, args: object, output: Tensor | tuple[Tensor, None]) -> object:
            value = output[0] if isinstance(output, tuple) else output
            seen[name] = value * masks.get(name, torch.ones(()))
            # A copy, as what follows may write over it.
            return (seen[name].clone(), None) if isinstance(output, tuple) else seen[name].clone()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(note(name)) for name in names]
    yield seen
    for handle in handles:
        handle.remove()


def masks_for(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(output.shape, generator=generator) < 0.6 for name, output in outputs.items()}


CHOICES: dict[str, tuple[object, list[str]]] = {
    "class": (nn.PReLU, ["blocks.0.mlp.1"]),
    "bare class name": ("QuickGELU", ["blocks.1.mlp.1"]),
    "dotted class name": ("torch.nn.PReLU", ["blocks.0.mlp.1"]),
    "the class's own dotted name": ("tests.sites.test_module_sites.Custom", ["blocks.2.mlp.1"]),
    "several classes": ([QuickGELU, Custom], ["blocks.1.mlp.1", "blocks.2.mlp.1"]),
    "exact name": ("blocks.3.mlp", ["blocks.3.mlp"]),
    "pattern": ("blocks.*.mlp", [f"blocks.{number}.mlp" for number in range(5)]),
    "residual stream": ("blocks.?", [f"blocks.{number}" for number in range(5)]),
    "tuples": (Pair, [f"blocks.{number}.pair" for number in range(5)]),
    "bound at import": ("Act", ["blocks.3.mlp.1"]),
    "in place": ("blocks.4.mlp.1", ["blocks.4.mlp.1"]),
    "taken out": (("blocks.*.mlp", "!blocks.[13].*"), ["blocks.0.mlp", "blocks.2.mlp", "blocks.4.mlp"]),
    "identity": (nn.Dropout, [f"blocks.{number}.drop" for number in range(5)]),
}


@pytest.mark.parametrize("choice", list(CHOICES))
def test_outputs_and_gradients_are_those_of_hooks(choice, images):
    sites, names = CHOICES[choice]
    model = net().requires_grad_(False)
    with hooked(model, names, {}) as seen:
        plain = model(images)
    masks = masks_for(seen)
    for given in ({}, masks):
        record = cpath.Probe(model, images, 2, sites=sites).record(given or None)
        assert list(record.activations) == names
        source = images.clone().requires_grad_()
        with hooked(model, names, given) as seen:
            logits = model(source)
        expected = torch.autograd.grad(logits[:, 2].sum(), list(seen.values()))
        torch.testing.assert_close(record.logits, logits.detach(), **TIGHT)
        for name, gradient in zip(names, expected, strict=True):
            torch.testing.assert_close(record.activations[name], seen[name].detach(), **TIGHT)
            torch.testing.assert_close(record.gradients[name], gradient, **TIGHT)
    assert torch.equal(model(images), plain)


@pytest.mark.parametrize("choice", list(CHOICES))
def test_restricted_networks_are_those_with_masks_in_hooks(choice, images):
    sites, names = CHOICES[choice]
    model = net().requires_grad_(False)
    with hooked(model, names, {}) as seen:
        model(images)
    masks = masks_for(seen)
    pathway = cpath.Pathway.from_masks(masks, sites=sites)
    with zoo.untouched(model), pathway.restrict(model) as reached, cpath.observe(model, sites=sites) as observed:
        found = model(images)
    source = images.clone().requires_grad_()
    with hooked(model, names, masks) as seen:
        expected = model(source)
    torch.testing.assert_close(found, expected.detach(), **TIGHT)
    assert reached == set(names)
    assert list(observed.activations) == names
    for name, output in observed.activations.items():
        torch.testing.assert_close(output, seen[name].detach(), **TIGHT)
    (gradient,) = torch.autograd.grad(expected[:, 1].sum(), source)
    torch.testing.assert_close(cpath.pathway_gradient(model, images, pathway, 1), gradient, **TIGHT)


@pytest.mark.parametrize("choice", ["class", "pattern", "residual stream", "tuples", "in place", "identity"])
def test_a_replaced_output_gives_the_answer_of_a_hook_that_replaces_it(choice, images):
    """In lanes of `torch.vmap`, and without writing to what the caller passed in."""
    sites, names = CHOICES[choice]
    model = net()
    probe = cpath.Probe(model, images, 1, sites=sites).remembering()
    for name in (names[0], names[-1]):
        with hooked(model, [name], {}) as seen:
            model(images)
        scales = (0.0, 0.5, 1.0)
        values = torch.stack([scale * seen[name].detach() for scale in scales])
        before = values.clone()
        responses = probe.responses(name, values)
        assert torch.equal(values, before)
        for scale, response in zip(scales, responses, strict=True):
            with hooked(model, [name], {name: torch.tensor(scale)}):
                torch.testing.assert_close(response, model(images)[:, 1], **TIGHT)


class Marked(nn.Module):
    """Calls a function that changes nothing behind a module, so that the call is a site in the module's place."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, None]:
        output = self.module(x)
        if isinstance(output, tuple):
            return 1 * F.hardtanh(output[0], -1e9, 1e9), None
        return 1 * F.hardtanh(output, -1e9, 1e9)  # which the model may write over


@pytest.mark.parametrize("choice", ["class", "pattern", "tuples", "in place", "taken out"])
def test_methods_find_at_modules_what_they_find_at_functions_behind_them(choice, images, method):
    sites, names = CHOICES[choice]
    model = net()
    with zoo.untouched(model):
        scores = cpath.score(model, images, method, 1, sites=sites)
    assert list(scores.values) == names
    assert scores.left_out == ()
    twin = copy.deepcopy(model)
    for name in names:
        path, _, last = name.rpartition(".")
        setattr(twin.get_submodule(path), last, Marked(twin.get_submodule(name)))
    expected = cpath.score(twin, images, method, 1, sites="hardtanh")
    torch.testing.assert_close(scores.flat, expected.flat, rtol=1e-7, atol=1e-10)


def test_the_integral_over_a_module_is_complete(images):
    model = net()
    scores = cpath.score(model, images, cpath.methods.NeuronIntGrad(nodes=40), 1, sites=("blocks.3*", "gelu"))
    names = [f"blocks.3{part}" for part in (".pair.fc", ".drop", ".mlp.0", ".mlp.1:gelu", ".mlp.2", "")]
    assert list(scores.residual) == names
    with torch.no_grad():
        logits = model(images)[:, 1]
        for name in ("blocks.3.mlp.0", "blocks.3"):
            with hooked(model, [name], {name: torch.zeros(())}):
                rise = logits - model(images)[:, 1]
            # The signed contributions of a site sum to what the response loses with it, up to the residual.
            assert (scores.residual[name] <= 1e-3 * rise.abs()).all()


# One call, one site


def test_an_activation_that_two_entries_name_is_one_site(images):
    model = zoo.make("residual", torch.float64)
    plain = cpath.score(model, images)
    names = list(plain.values)
    for sites in (("relu", "*relu"), ("*relu", "relu"), ("relu", nn.ReLU), nn.ReLU, ["layer1.?.relu", "relu"]):
        scores = cpath.score(model, images, sites=sites)
        assert list(scores.values) == names
        assert torch.equal(scores.flat, plain.flat)


def test_a_sequential_and_its_last_module_are_one_site(images):
    model = nn.Sequential(
        nn.Flatten(), nn.Sequential(nn.Linear(192, 6), nn.Sequential(nn.ReLU(inplace=True))), nn.Linear(6, 5)
    ).double()
    for sites, names in (
        ("1*", ["1.0", "1.1.0"]),
        (("relu", "1"), ["1.1.0"]),
        (("1", "1.1"), ["1.1"]),
        ("1", ["1"]),
        (("1*", "!1.1*"), ["1.0", "1"]),
    ):
        with cpath.observe(model, sites=sites) as seen, torch.no_grad():
            model(images)
        assert list(seen.activations) == names
        torch.testing.assert_close(seen.activations[names[-1]], model[1](images.flatten(1)).detach())
        mask = {name: torch.zeros(3, 6, dtype=torch.bool) for name in names}
        with cpath.Pathway.from_masks(mask, sites=sites).restrict(model):
            assert torch.equal(model(images), model[2].bias.expand(3, 5))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_what_is_changed_in_place_behind_a_module_is_another_site(mode, images):
    model = net()
    with hooked(model, ["blocks.0.mlp", "blocks.0"], {}) as expected, mode():
        model(images)
    with cpath.observe(model, sites=("blocks.0", "blocks.0.mlp")) as seen, mode():
        model(images)
    assert list(seen.activations) == ["blocks.0.mlp", "blocks.0"]
    for name, output in seen.activations.items():
        torch.testing.assert_close(output, expected[name].detach(), **TIGHT)
    probe = cpath.Probe(model, images, 0, sites=("blocks.0", "blocks.0.mlp"))
    values = torch.zeros(2, 3, WIDTH, dtype=torch.float64)
    with hooked(model, ["blocks.0"], {"blocks.0": torch.zeros(())}):
        torch.testing.assert_close(probe.responses("blocks.0", values)[1], model(images)[:, 0], **TIGHT)


def test_calls_of_a_reused_module_are_numbered(images):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.act, self.fc = nn.Linear(192, 6), nn.PReLU(), nn.Linear(6, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.act(self.act(self.stem(x.flatten(1))) - 0.5))

    model = zoo.make(Twice, torch.float64)
    for _ in range(2):
        with cpath.observe(model, sites="act") as seen:
            model(images)
        assert list(seen.activations) == ["act", "act#2"]
    first = F.prelu(model.stem(images.flatten(1)), model.act.weight)
    torch.testing.assert_close(seen.activations["act"], first.detach())
    torch.testing.assert_close(seen.activations["act#2"], F.prelu(first - 0.5, model.act.weight).detach())
    assert list(cpath.score(model, images, "active", sites=("act", "!act#2")).values) == ["act"]


# Calls of functions in modules of a name


def test_calls_of_functions_are_chosen_by_the_names_of_their_modules(images):
    model = zoo.make("functional", torch.float64)
    with cpath.observe(model) as every, torch.no_grad():
        model(images)
    for sites, names in (
        (":relu", [":relu", ":relu#2"]),
        ("body:relu", ["body:relu"]),
        ("*:relu", list(every.activations)),
        ("*:*", list(every.activations)),
        (("relu", "!:relu*"), ["stem:relu", "body:relu"]),
    ):
        with cpath.observe(model, sites=sites) as seen, torch.no_grad():
            model(images)
        assert list(seen.activations) == names
        assert all(torch.equal(seen.activations[name], every.activations[name]) for name in names)


# What modules return


def test_the_first_tensor_of_what_a_module_returns_is_the_site(images):
    Result = namedtuple("Result", ["number", "values"])

    class Returning(nn.Module):
        def __init__(self, form: Callable[[Tensor], object], read: Callable[[object], Tensor]) -> None:
            super().__init__()
            self.stem, self.fc = nn.Linear(192, 6), nn.Linear(6, 5)
            self.part = nn.Identity()
            self.part.forward = form
            self.read = read

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.read(self.part(self.stem(x.flatten(1)))))

    class Output(OrderedDict):
        """As the output objects of Hugging Face: values by key and by attribute."""

        def __getattr__(self, name: str) -> object:
            return self[name]

    for form, read in (
        (lambda x: (None, [x, 2]), lambda output: output[1][0]),
        (lambda x: Result(3, x), lambda output: output.values),
        (lambda x: {"loss": None, "hidden": (x,)}, lambda output: output["hidden"][0]),
        (lambda x: Output(first=x, second=x), lambda output: output.first),
    ):
        model = zoo.make(lambda form=form, read=read: Returning(form, read))
        hidden = model.stem(images.float().flatten(1))
        mask = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)) < 0.5
        with cpath.Pathway.from_masks({"part": mask}, sites="part").restrict(model):
            torch.testing.assert_close(model(images.float()), model.fc(hidden * mask))


def test_modules_without_neurons_are_refused_with_what_to_do(images):
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.arange(len(x))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.fc = Counting(), nn.Linear(192, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x.flatten(1)) + 0 * self.count(x)[:, None]

    model = zoo.make(Net)
    message = r"module 'count' returns a tensor of torch\.int64 first.*take it out with sites='!count'"
    with pytest.raises(cpath.SiteError, match=message):
        cpath.score(model, images.float(), sites="*")
    with pytest.raises(cpath.SiteError, match=message), cpath.observe(model, sites="*"):
        model(images.float())
    assert list(cpath.score(model, images.float(), "active", sites=("*", "!count")).values) == ["fc"]


# Nothing is left behind, nothing else is seen


def hooks() -> int:
    return len(torch.nn.modules.module._global_forward_hooks)


def test_hooks_are_gone_afterwards_also_after_an_error(images):
    model = zoo.make(lambda: zoo.Raising(at=100), torch.float64)
    before = hooks()
    cpath.score(model, images, sites="conv*")
    assert hooks() == before
    model.at = 1
    with pytest.raises(OSError, match="on purpose"), cpath.observe(model, sites="conv*") as seen:
        assert hooks() == before + 1
        model(images)
    assert list(seen.activations) == ["conv1"]
    assert hooks() == before


def test_other_models_and_threads_are_not_seen(images):
    model, other = net(), net()
    with cpath.observe(model, sites="blocks.?") as seen:
        other(images)
        copy.deepcopy(model)(images)
        thread = threading.Thread(target=model, args=(images,))
        thread.start()
        thread.join()
        assert seen.activations == {}
        model(images)
    assert list(seen.activations) == [f"blocks.{number}" for number in range(5)]


def test_hooks_of_the_user_stay_and_run(images):
    model, calls = net(), []
    handle = register_module_forward_hook(lambda module, args, output: calls.append(type(module)))
    try:
        cpath.score(model, images, "active", sites="blocks.?")
        before = len(calls)
        model(images)
        assert len(calls) > before > 0
    finally:
        handle.remove()


# Compiled, checkpointed, scripted


def test_compiled_blocks_have_the_outputs_of_plain_ones(images):
    model = net()
    expected = cpath.score(model, images, cpath.methods.NeuronIntGrad(nodes=3), 1, sites="blocks.?")
    model.blocks[0] = torch.compile(model.blocks[0], backend="eager")
    model.blocks[1].compile(backend="eager")
    for run_before in (False, True):
        if run_before:
            model(images)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns of hooks on what is compiled
            found = cpath.score(model, images, cpath.methods.NeuronIntGrad(nodes=3), 1, sites="blocks.?")
        assert list(found.values) == list(expected.values)
        assert torch.equal(found.flat, expected.flat)


@pytest.mark.parametrize("name", ["neuron_mct", "neuron_intgrad", "greedy", "dgr"])
def test_checkpointed_blocks_have_the_scores_of_plain_ones(name, images):
    def saving(block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False)

    sites = ("blocks.*.mlp", "blocks.?")
    plain, saved = net(), net(saving)
    for model in (plain, saved):
        model.blocks[2].mlp[1] = QuickGELU()
    expected = cpath.score(plain, images, zoo.quick(name), 1, sites=sites)
    found = cpath.score(saved, images, zoo.quick(name), 1, sites=sites)
    assert list(found.values) == list(expected.values)
    torch.testing.assert_close(found.flat, expected.flat, **TIGHT)
    pathway = expected.pathway(40)
    gradients = [cpath.pathway_gradient(model, images, pathway, 1) for model in (plain, saved)]
    torch.testing.assert_close(*gradients, **TIGHT)


@pytest.mark.parametrize("sites", ["relu", "blocks.*.mlp", "blocks.*.pair"])
def test_autograd_functions_inside_checkpoints_are_refused_where_gradients_would_be_wrong(sites, images):
    def saving(block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=False)

    model = net(saving)
    pathway = cpath.find_pathway(net(), images, target=1, sites=sites)
    if sites != "relu":  # of a network that is not changed
        found, expected = (cpath.score(each, images, target=1, sites=sites).flat for each in (model, net()))
        torch.testing.assert_close(found, expected, **TIGHT)
    with torch.no_grad(), pathway.restrict(model):
        model(images)
    with pytest.raises(cpath.SiteError, match=r"around an autograd function of its own, Square: .* off"):
        cpath.pathway_gradient(model, images, pathway, 1)


def test_reentrant_checkpointing_is_refused_where_it_hides_gradients(images):
    def saving(block: nn.Module, x: Tensor) -> Tensor:
        return checkpoint(block, x, use_reentrant=True)

    with pytest.raises(cpath.SiteError, match="use_reentrant=True"):
        cpath.score(net(saving), images, zoo.quick("greedy"), sites="blocks.*.mlp")


def test_modules_that_run_past_their_hooks_are_told(images):
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part, self.fc = nn.Linear(192, 5), nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(torch.relu(self.part.forward(x.flatten(1))))

    with pytest.raises(
        cpath.SiteError, match=r"calls nothing that matches 'part'.*not by calling it.*seen are :relu"
    ):
        cpath.score(zoo.make(Direct), images.float(), sites=("relu", "part"))


def test_edits_of_a_module_may_be_left_to_the_visitor(images):
    model = net()
    with intercept(model, lambda name, output: None, edits=EVERY_SITE, sites="blocks.?"), evaluating(model):
        assert torch.equal(model(images), model(images))


def test_outputs_of_modules_have_no_preactivation(images):
    model = net()
    pathway = cpath.find_pathway(model, images, sites="blocks.?")
    with pytest.raises(cpath.SiteError, match=r"'blocks\.0' is no call of an activation function"):
        cpath.analysis.affine_radius(model, images, pathway)
