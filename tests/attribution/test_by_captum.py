from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cpath
from tests import zoo
from tests.attribution.networks import SkipBeforeRelu, one_by_one, predicted
from tests.oracles import attribution as oracle

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


# Sites


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
