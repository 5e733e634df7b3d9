"""Activations that write over their input, restricted and differentiated, against formulas written out."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from torch import Tensor, nn

import cpath
from tests import zoo

TIGHT = {"rtol": 1e-9, "atol": 1e-12}
Function = Callable[[Tensor], Tensor]


def tolerance(kind: str) -> dict[str, float]:
    """torch divides by six in float32 in the gradient of this one."""
    return {"rtol": 1e-6, "atol": 1e-9} if kind == "hardsigmoid" else TIGHT


def _exponential(x: Tensor, alpha: float, scale: float = 1.0) -> Tensor:
    return scale * torch.where(x > 0, x, alpha * (x.clamp(max=0).exp() - 1))


def _between(x: Tensor, low: float, high: float) -> Tensor:
    return torch.where(x < low, low, torch.where(x > high, high, x))


FORMULAS: dict[str, Function] = {
    "relu": lambda x: x * (x > 0),
    "relu6": lambda x: _between(x, 0.0, 6.0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: _exponential(x, 1.0),
    "celu": lambda x: _exponential(x, 1.0),
    "selu": lambda x: _exponential(x, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946),
    "silu": lambda x: x / (1 + (-x).exp()),
    "mish": lambda x: x * (1 - 2 / ((1 + x.exp()) ** 2 + 1)),
    "hardswish": lambda x: x * _between(x + 3, 0.0, 6.0) / 6,
    "hardsigmoid": lambda x: _between(x + 3, 0.0, 6.0) / 6,
    "hardtanh": lambda x: _between(x, -1.0, 1.0),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "tanh": lambda x: 2 / (1 + (-2 * x).exp()) - 1,
}

# By name of the activation function: its in-place form.
SPELLINGS: list[tuple[str, Function]] = [
    *((name, partial(getattr(F, name), inplace=True)) for name in FORMULAS if name not in ("sigmoid", "tanh")),
    *((name, getattr(F, name + "_")) for name in ("leaky_relu", "elu", "hardtanh", "selu", "celu")),
    ("silu", lambda x: F.silu(input=x, inplace=True)),
    ("sigmoid", torch.sigmoid_),
    ("tanh", lambda x: x.tanh_()),
]


class Net(nn.Module):
    """Two sites; the second goes on with the tensor that it passed in, if ``discards``."""

    def __init__(self, function: Function, discards: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3)
        self.conv2 = nn.Conv2d(4, 4, 3)
        self.fc = nn.Linear(4, zoo.CLASSES)
        self.function, self.discards = function, discards

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.function(self.conv1(x)))
        returned = self.function(x)
        return self.fc((x if self.discards else returned).mean((2, 3)))


def by_hand(model: Net, formula: Function, images: Tensor, masks: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Logits and the masked outputs of both sites."""
    first = formula(F.conv2d(images, model.conv1.weight, model.conv1.bias)) * masks[0]
    second = formula(F.conv2d(first, model.conv2.weight, model.conv2.bias)) * masks[1]
    return second.mean((2, 3)) @ model.fc.weight.T + model.fc.bias, [first, second]


def test_every_in_place_activation_of_torch_is_tried():
    def writes(name: str) -> bool:
        function = getattr(F, name)
        by_argument = inspect.isfunction(function) and "inplace" in inspect.signature(function).parameters
        return by_argument or hasattr(torch, name + "_")

    assert {name for name in cpath.ACTIVATIONS if writes(name)} == set(FORMULAS)


@pytest.mark.parametrize("discards", [False, True])
@pytest.mark.parametrize(("kind", "function"), SPELLINGS)
def test_restricted_gradients_equal_those_of_the_formula(kind, function, discards):
    model = zoo.make(lambda: Net(function, discards), torch.float64).requires_grad_(False)
    images = zoo.images(dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(3, 4, size, size, generator=generator) < 0.6 for size in (6, 4)]
    sites = (f":{kind}", f":{kind}#2")
    source = images.clone().requires_grad_()
    logits, outputs = by_hand(model, FORMULAS[kind], source, masks)
    *at_sites, expected = torch.autograd.grad(logits[:, 2].sum(), [*outputs, source])

    record = cpath.Probe(model, images, 2, sites=kind).record(dict(zip(sites, masks, strict=True)))
    torch.testing.assert_close(record.logits, logits.detach(), **TIGHT)
    for site, output, gradient in zip(sites, outputs, at_sites, strict=True):
        torch.testing.assert_close(record.activations[site], output.detach(), **TIGHT)
        torch.testing.assert_close(record.gradients[site], gradient, **tolerance(kind))

    pathway = cpath.Pathway.from_masks(dict(zip(sites, masks, strict=True)), sites=kind)
    torch.testing.assert_close(cpath.pathway_gradient(model, images, pathway, 2), expected, **tolerance(kind))
    mine = images.clone().requires_grad_()
    with pathway.restrict(model):
        model(mine)[:, 2].sum().backward()
    torch.testing.assert_close(mine.grad, expected, **tolerance(kind))


@pytest.mark.parametrize(("kind", "function"), SPELLINGS)
def test_guided_gradients_equal_those_of_the_formula(kind, function):
    model = zoo.make(lambda: Net(function), torch.float64).requires_grad_(False)
    images = zoo.images(dtype=torch.float64)
    ones = [torch.ones(()), torch.ones(())]
    source = images.clone().requires_grad_()
    logits, (first, second) = by_hand(model, FORMULAS[kind], source, ones)
    (slope,) = torch.autograd.grad(logits[:, 2].sum(), second, retain_graph=True)
    (slope,) = torch.autograd.grad(second, first, slope * (slope > 0), retain_graph=True)
    (expected,) = torch.autograd.grad(first, source, slope * (slope > 0))
    found = cpath.attribute(model, images, "gbp", 2, sites=kind)
    torch.testing.assert_close(found, expected, **tolerance(kind))


@pytest.mark.parametrize(("kind", "function"), SPELLINGS)
def test_methods_that_edit_find_what_they_find_without_writing_in_place(kind, function, method):
    images = zoo.images(dtype=torch.float64)
    model = zoo.make(lambda: Net(function), torch.float64)
    twin = zoo.make(lambda: Net(getattr(F, kind)), torch.float64)
    found = cpath.score(model, images, method, 1, sites=kind)
    torch.testing.assert_close(found.flat, cpath.score(twin, images, method, 1, sites=kind).flat, **TIGHT)


def test_output_that_is_written_to_a_given_tensor_is_restricted():
    def forward(x: Tensor) -> Tensor:
        other = torch.empty_like(x)
        torch.sigmoid(x, out=other)
        return other

    model = zoo.make(lambda: Net(forward), torch.float64)
    images = zoo.images(dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    masks = [torch.rand(3, 4, size, size, generator=generator) < 0.6 for size in (6, 4)]
    pathway = cpath.Pathway.from_masks({":sigmoid": masks[0], ":sigmoid#2": masks[1]}, sites="sigmoid")
    with torch.no_grad(), pathway.restrict(model):
        torch.testing.assert_close(model(images), by_hand(model, FORMULAS["sigmoid"], images, masks)[0], **TIGHT)


@pytest.mark.parametrize(
    ("architecture", "kinds"),
    [("efficientnet_b0", "silu"), ("mobilenet_v3_small", ("hardswish", "relu")), ("mobilenet_v2", "relu6")],
)
def test_mobile_networks_are_restricted_and_decoded(architecture, kinds):
    torch.manual_seed(0)
    model = getattr(tv, architecture)(num_classes=5).eval()
    plain = getattr(tv, architecture)(num_classes=5).eval()
    plain.load_state_dict(model.state_dict())
    for module in plain.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    images = torch.randn(1, 3, 32, 32)
    scores = cpath.score(model, images, cpath.methods.Greedy(rounds=2), 1, sites=kinds)
    pathway = scores.pathway(30)
    found = cpath.pathway_gradient(model, images, pathway, 1)
    assert found.abs().max() > 0
    torch.testing.assert_close(found, cpath.pathway_gradient(plain, images, pathway, 1), rtol=1e-4, atol=1e-6)
    guided = [cpath.attribute(each, images, "gbp", 1, sites=kinds) for each in (model, plain)]
    assert guided[0].abs().max() > 0
    torch.testing.assert_close(*guided, rtol=1e-4, atol=1e-6)
    decoded = [cpath.decode(each, pathway, shape=(3, 32, 32), steps=2).images for each in (model, plain)]
    torch.testing.assert_close(*decoded, rtol=1e-3, atol=1e-3)


class WritesOver(nn.Module):
    """Network that changes what a function has returned, in place; ``write`` does so."""

    def __init__(self, write: Callable[[Tensor], object], *, branches: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 4)
        self.write, self.branches = write, branches

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.gelu(self.first(x))
        self.write(hidden)
        if self.branches and bool(hidden.detach().sum() > 1e9):  # torch.vmap cannot run this
            hidden = hidden * 2
        return self.last(hidden).tanh()


WRITES: dict[str, Callable[[Tensor], object]] = {
    "all": lambda hidden: hidden.add_(1),
    "part": lambda hidden: hidden[:, :2].mul_(3),
    "view": lambda hidden: hidden.view(-1, 2, 4)[:, 0].add_(1),
}


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize("write", WRITES)
def test_integrated_gradients_of_an_output_that_is_written_over_equal_a_plain_loop(write, branches):
    torch.manual_seed(0)
    model = WritesOver(WRITES[write], branches=branches).double().eval()
    x = torch.randn(3, 6, dtype=torch.float64)
    scores = cpath.score(model, x, cpath.methods.NeuronIntGrad(nodes=40), 0, sites="gelu")

    z = F.gelu(model.first(x)).detach()
    expected = torch.zeros_like(z)
    for step in range(400):
        point = ((step + 0.5) / 400 * z).requires_grad_()
        hidden = point.clone()
        WRITES[write](hidden)
        (gradient,) = torch.autograd.grad(model.last(hidden).tanh()[:, 0].sum(), point)
        expected += z * gradient / 400
    torch.testing.assert_close(scores.signed[":gelu"], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("branches", [False, True])
def test_replacements_that_the_model_writes_over_stay_as_they_were(branches):
    torch.manual_seed(0)
    model = WritesOver(WRITES["all"], branches=branches).double().eval()
    x = torch.randn(3, 6, dtype=torch.float64)
    values = torch.randn(2, 3, 8, dtype=torch.float64)
    before = values.clone()
    found = cpath.Probe(model, x, 0, sites=("gelu",)).responses(":gelu", values)
    assert torch.equal(values, before)
    torch.testing.assert_close(found, model.last(before + 1).tanh()[..., 0].detach(), **TIGHT)
