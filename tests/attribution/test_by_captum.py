from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.errors import InputError, SiteError, UnknownNameError
from cpath.methods.quadrature import quadrature
from tests import zoo
from tests.attribution.networks import SkipBeforeRelu, predicted
from tests.oracles import attribution as oracle


def one_by_one(model: nn.Module, images: Tensor, of: Callable[[Tensor, int], Tensor]) -> Tensor:
    return torch.stack([of(x, c) for x, c in zip(images, predicted(model, images), strict=True)])


# Values


def test_gradients(model64: nn.Module, images64: Tensor) -> None:
    expected = one_by_one(model64, images64, lambda x, c: oracle.gradient(model64, x, c))
    assert torch.allclose(cpath.attribute(model64, images64, "gradients"), expected, atol=1e-12)
    assert torch.allclose(cpath.attribute(model64, images64, "input_mct"), images64 * expected, atol=1e-12)
    # Dead neurons have no gradient: nothing is lost with them.
    assert torch.allclose(cpath.attribute(model64, images64, "active"), expected, atol=1e-12)


def test_input_intgrad(model64: nn.Module, images64: Tensor) -> None:
    expected = one_by_one(model64, images64, lambda x, c: oracle.integrated(model64, x, c))
    # Captum rounds its nodes to float32.
    assert torch.allclose(cpath.attribute(model64, images64, "input_intgrad"), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "nodes", "written_out"),
    [
        ("legendre", 3, oracle.legendre(3)),
        ("midpoint", 1, ([0.5], [1.0])),
        ("midpoint", 4, ([0.125, 0.375, 0.625, 0.875], [0.25] * 4)),
        ("trapezoid", 2, ([0.0, 1.0], [0.5, 0.5])),
        ("trapezoid", 5, ([0.0, 0.25, 0.5, 0.75, 1.0], [0.125, 0.25, 0.25, 0.25, 0.125])),
    ],
)
def test_input_intgrad_has_the_quadratures_of_neuron_intgrad(images64: Tensor, rule, nodes, written_out) -> None:
    model = zoo.make("vgg", torch.float64)
    expected = one_by_one(model, images64, lambda x, c: oracle.integrated(model, x, c, written_out))
    found = cpath.attribute(model, images64, "input_intgrad", rule=rule, nodes=nodes)
    assert torch.allclose(found, expected, atol=1e-6)
    in_pieces = cpath.attribute(model, images64, "input_intgrad", rule=rule, nodes=nodes, max_batch=2)
    assert torch.allclose(in_pieces, expected, atol=1e-6)


def test_quadratures_that_captum_has_not_are_refused() -> None:
    for rule in ("endpoint", "gausslegendre"):
        with pytest.raises(cpath.UnknownNameError, match=r"Known: legendre, midpoint, trapezoid\."):
            cpath.attribution.InputIntGrad(rule=rule)
    with pytest.raises(cpath.InputError, match="nodes ≥ 2"):
        cpath.attribution.InputIntGrad(rule="trapezoid", nodes=1)
    with pytest.raises(cpath.InputError, match="nodes must be at least 1"):
        cpath.attribution.InputIntGrad(nodes=0)


def test_smoothgrad(model64: nn.Module, images64: Tensor) -> None:
    def of(x: Tensor, c: int) -> Tensor:
        (generator,) = cpath.methods.image_generators(x.unsqueeze(0), 7, "smoothgrad")
        sigma = 0.2 * (x.max() - x.min())
        noises = [sigma * torch.randn(x.shape, generator=generator) for _ in range(5)]
        return oracle.smooth(model64, x, c, noises)

    found = cpath.attribute(model64, images64, "smoothgrad", samples=5, noise=0.2, seed=7)
    assert torch.allclose(found, one_by_one(model64, images64, of), atol=1e-10)


@pytest.mark.parametrize("kind", [*zoo.MODELS, zoo.Discarding, zoo.InplaceSkip, SkipBeforeRelu])
def test_gbp(kind: Any, images64: Tensor) -> None:
    model = zoo.make(kind, torch.float64)
    expected = one_by_one(model, images64, lambda x, c: oracle.guided(model, x, c))
    assert torch.allclose(cpath.attribute(model, images64, "gbp"), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "right"),
    [("sequential", True), ("vgg", True), ("residual", True), ("functional", False), (SkipBeforeRelu, False)],
)
@pytest.mark.filterwarnings("ignore")
def test_gbp_and_captums_own(kind: Any, right: bool, images64: Tensor) -> None:
    """Where Captum's GuidedBackprop is right, ours is the same; where this differs, Captum's is wrong."""
    from captum.attr import GuidedBackprop

    model = zoo.make(kind, torch.float64)
    theirs = GuidedBackprop(model).attribute(images64.clone(), target=predicted(model, images64))
    ours = cpath.attribute(model, images64, "gbp")
    assert torch.allclose(ours, theirs, atol=1e-12) == right


@pytest.mark.parametrize("kind", [*zoo.MODELS, zoo.Discarding, zoo.InplaceSkip])
def test_gradcam_and_star(kind: Any, images64: Tensor) -> None:
    model = zoo.make(kind, torch.float64)
    call = oracle.last_spatial_call(model, images64[0])
    cam = one_by_one(model, images64, lambda x, c: oracle.gradcam(model, x, c, call))
    assert torch.allclose(cpath.attribute(model, images64, "gradcam"), cam, atol=1e-10)
    rule = quadrature("midpoint", 4)
    star = one_by_one(model, images64, lambda x, c: oracle.neuron_intgrad_star(model, x, c, call, *rule))
    found = cpath.attribute(model, images64, "neuron_intgrad_star", nodes=4, rule="midpoint")
    assert torch.allclose(found, star, atol=1e-10)


@pytest.mark.parametrize("number", range(5))
def test_gradcam_at_each_call_of_reused_modules(number: int, images64: Tensor) -> None:
    model = zoo.make("residual", torch.float64)
    with cpath.observe(model) as seen:
        model(images64)
    site = list(seen.activations)[number]
    expected = one_by_one(model, images64, lambda x, c: oracle.gradcam(model, x, c, number))
    assert torch.allclose(cpath.attribute(model, images64, "gradcam", site=site), expected, atol=1e-10)


class Branches(nn.Module):
    """Ends in concatenations within a concatenation, as inception modules do, and a branch that is no site."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(4, 2, 1) for _ in range(3))
        self.fc = nn.Linear(10, zoo.CLASSES)

    def branches(self, x: Tensor) -> Tensor:
        first, second, third = (F.relu(conv(x)) for conv in self.convs)
        inner = torch.cat((first, second), 1)
        return torch.cat(tensors=[inner, third, F.max_pool2d(x, 3, 1, 1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.branches(F.relu(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("name", ["gradcam", "neuron_intgrad_star"])
def test_gradcam_joins_concatenated_branches(name: str, images64: Tensor) -> None:
    model = zoo.make(Branches, torch.float64)
    assert cpath.attribution.ResponseProbe(model, images64).spatial_sites(None) == (":relu#2", ":relu#3", ":relu#4")
    # After the branches the model is linear: the weights of the last layer are the channels' gradients.
    weights = model.fc.weight[predicted(model, images64)][:, :6] / 64
    joined = model.branches(F.relu(model.stem(images64)))[:, :6]
    expected = torch.einsum("bc,bchw->bhw", weights, joined).clamp(min=0).detach()
    assert torch.allclose(cpath.attribute(model, images64, name)[:, 0], expected, atol=1e-12)


# Sites


def test_gradcam_at_the_output_of_a_layer_that_is_no_site(images64: Tensor) -> None:
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2))
    model = nn.Sequential(OrderedDict(features=features, act=nn.ReLU(inplace=True), flat=nn.Flatten()))
    model.append(nn.Linear(5 * (images64.shape[2] // 2) * (images64.shape[3] // 2), 4))
    model = model.double().eval()
    pooled = features(images64).detach().requires_grad_()
    logits = model[3](pooled.relu().flatten(1))
    (gradient,) = torch.autograd.grad(logits.max(1).values.sum(), pooled)
    cam = (pooled * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True).clamp(min=0).detach()
    expected = F.interpolate(cam, images64.shape[2:], mode="bilinear", align_corners=False)
    found = cpath.attribute(model, images64, "gradcam", layer="features")
    assert torch.allclose(found, expected, atol=1e-12)
    assert found.abs().max() > 0
    assert not torch.allclose(found, cpath.attribute(model, images64, "gradcam", site="features.1"), atol=1e-6)
    assert not any(module._forward_hooks for module in model.modules())


def test_gradcam_layer_errors() -> None:
    block = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU())
    unused = nn.Conv2d(3, 3, 1)
    model = nn.Sequential(OrderedDict(one=block, two=block, flat=nn.Flatten(), fc=nn.Linear(3 * 8 * 8, 2)))
    model.one.add_module("beside", nn.Identity())
    images = torch.randn(2, 3, 8, 8)
    with pytest.raises(UnknownNameError, match="layer 'flatt'"):
        cpath.attribute(model, images, "gradcam", layer="flatt")
    with pytest.raises(SiteError, match=r"layer 'flat' does not give \(B, C, h, w\)"):
        cpath.attribute(model, images, "gradcam", layer="flat")
    with pytest.raises(SiteError, match="calls layer 'one' 2 times"):
        cpath.attribute(model, images, "gradcam", layer="one")
    model.unused = unused
    model.forward = lambda x: model.fc(model.flat(block(x)))
    with pytest.raises(SiteError, match="calls layer 'unused' 0 times"):
        cpath.attribute(model, images, "gradcam", layer="unused")
    with pytest.raises(InputError, match="name one of them"):
        cpath.attribution.GradCAM(site="a", layer="b")
    assert not any(module._forward_hooks for module in model.modules())


def test_gradcam_site_errors() -> None:
    model, images = zoo.make("sequential"), zoo.images()
    with pytest.raises(cpath.SiteError, match="no site 'nowhere'"):
        cpath.attribute(model, images, "gradcam", site="nowhere")
    with pytest.raises(cpath.SiteError, match="channels, height and width"):
        cpath.attribute(model, images, "gradcam", site="8")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, zoo.CLASSES))
    with pytest.raises(cpath.SiteError, match="no convolutional site"):
        cpath.attribute(flat, images, "gradcam")


@pytest.mark.parametrize("name", ["gbp", "gradcam", "neuron_mct", "neuron_intgrad_star"])
def test_no_site(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, zoo.CLASSES))
    with pytest.raises(cpath.SiteError, match="no site found"):
        cpath.attribute(model, zoo.images(), name)
    assert torch.isfinite(cpath.attribute(model, zoo.images(), name, sites="gelu")).all()


def test_gbp_where_gradients_are_switched_off() -> None:
    class Off(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                stem = F.relu(self.conv(x)).mean((2, 3))
            return self.fc(stem + x.mean((1, 2, 3)).unsqueeze(1))

    with pytest.raises(cpath.SiteError, match="no_grad"):
        cpath.attribute(Off(), zoo.images(), "gbp")


def test_gradcam_prefers_sites_with_more_than_one_position() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.squeeze, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, zoo.CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.conv(x))
            x = x * F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
            return self.fc(x.mean((2, 3)))

    model, images = zoo.make(Squeeze), zoo.images()
    named = cpath.attribute(model, images, "gradcam", site=":relu")
    assert torch.equal(cpath.attribute(model, images, "gradcam"), named)
    one_pixel = zoo.images(size=3)
    assert cpath.attribute(model, one_pixel, "gradcam").shape == (3, 1, 3, 3)
