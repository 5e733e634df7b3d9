"""GradCAM against its oracle: single sites, branches, layers that are no site, and errors."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from cpath.errors import InputError, SiteError, UnknownNameError
from cpath.methods.quadrature import quadrature
from tests import zoo
from tests.attribution.networks import one_by_one, predicted
from tests.oracles import attribution as oracle


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


def test_gradcam_takes_one_pass_for_all_branches() -> None:
    rows: list[int] = []

    class Counting(Branches):
        def forward(self, x: Tensor) -> Tensor:
            rows.append(len(x))
            return super().forward(x)

    model, images = zoo.make(Counting), zoo.images(3)
    cpath.attribute(model, images, "gradcam")  # the first call looks at the model, too
    rows.clear()
    cpath.attribute(model, images, "gradcam")
    assert rows.count(3) == 1
    assert sum(rows) <= 4  # one image tells which sites are joined


def test_gradcam_of_a_frozen_model_is_that_of_a_trainable_one(images64: Tensor) -> None:
    model = zoo.make(Branches, torch.float64)
    trainable = cpath.attribute(model, images64, "gradcam")
    assert torch.equal(cpath.attribute(model.requires_grad_(False), images64, "gradcam"), trainable)


def test_gradcam_equals_that_of_captum_where_the_site_is_a_module(images64: Tensor) -> None:
    from captum.attr import LayerGradCam

    model = zoo.make("vgg", torch.float64)
    last = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    sites = list(cpath.score(model, images64).layout.shapes)
    site = cpath.attribution.ResponseProbe(model, images64).spatial_sites(None)[0]
    theirs = LayerGradCam(model, last[sites.index(site)]).attribute(
        images64, target=predicted(model, images64), relu_attributions=True
    )
    expected = F.interpolate(theirs.detach(), images64.shape[2:], mode="bilinear", align_corners=False)
    assert torch.allclose(cpath.attribute(model, images64, "gradcam"), expected, atol=1e-12)
    assert expected.abs().max() > 0
