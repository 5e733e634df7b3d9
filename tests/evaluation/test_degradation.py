from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.evaluation import PERCENT, NoisyLinear, degrade, rank_pixels, remove_pixels
from tests import zoo


def slow_change(
    model: nn.Module, image: Tensor, its_map: Tensor, percent: float, target: int | None, **settings: object
) -> float:
    """|p_c(x) − p_c(x′)| / p_c(x) of one image, one forward pass at a time."""
    ranks = rank_pixels(its_map.unsqueeze(0), image.unsqueeze(0))
    worse = remove_pixels(image.unsqueeze(0), ranks, percent, **settings)
    with torch.no_grad():
        before, after = (model(x).double().exp()[0] for x in (image.unsqueeze(0), worse))
    c = int(before.argmax()) if target is None else target
    p, q = before[c] / before.sum(), after[c] / after.sum()
    return float(abs(p - q) / p)


@pytest.mark.parametrize("order", ["least", "most"])
@pytest.mark.parametrize("target", [None, 0])
@pytest.mark.parametrize("fill", [0.0, (0.5, 1.0, -1.0), NoisyLinear()])
def test_equals_the_oracle(order: str, target: int | None, fill: object) -> None:
    model, images = zoo.make("residual", torch.float64), zoo.images(dtype=torch.float64)
    maps = cpath.attribute(model, images, "gradients", target)
    found = degrade(model, images, maps, target, order=order, percent=(0, 5, 30, 90), fill=fill)
    expected = [
        [slow_change(model, x, its, percent, target, order=order, fill=fill) for percent in (0, 5, 30, 90)]
        for x, its in zip(images, maps, strict=True)
    ]
    assert torch.allclose(found.change, torch.tensor(expected, dtype=torch.float64), atol=1e-10)
    assert found.order == order
    assert found.percent == (0, 5, 30, 90)


def test_untouched_images_do_not_change(model: nn.Module, images: Tensor) -> None:
    found = degrade(model, images, images, percent=[0])
    assert found.change.abs().max() < 1e-5
    with torch.no_grad():
        expected = model(images).double().softmax(1).max(1)
    assert torch.allclose(found.probability, expected.values, atol=1e-6)
    assert torch.equal(found.target, expected.indices)


def test_most_relevant_pixels_matter_more(images: Tensor) -> None:
    """A model that looks at the first column of pixels only, and a map that says so."""

    class FirstColumn(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :, :, 0].mean(2)

    truth = torch.zeros(3, 1, 8, 8)
    truth[:, :, :, 0] = 1
    least = degrade(FirstColumn(), images, truth, order="least", percent=(12.5, 50, 87.5, 100))
    most = degrade(FirstColumn(), images, truth, order="most", percent=(12.5, 50, 87.5, 100))
    assert (least.change[:, :3] == 0).all()
    assert (least.change[:, 3] > 0).all()
    assert torch.equal(most.change, least.change[:, 3:].expand(3, 4))


def test_batch_and_default_percent() -> None:
    model, images = zoo.make("functional", torch.float64), zoo.images(dtype=torch.float64)
    maps = cpath.attribute(model, images, "sobel")
    whole = degrade(model, images, maps)
    assert whole.change.shape == (3, len(PERCENT)) == (3, 18)
    assert len(whole) == 3
    for max_batch in (1, 2, 7):
        assert torch.allclose(degrade(model, images, maps, max_batch=max_batch).change, whole.change, atol=1e-12)
    alone = torch.cat([degrade(model, images[i : i + 1], maps[i : i + 1]).change for i in range(3)])
    assert torch.allclose(alone, whole.change, atol=1e-12)


def test_leaves_the_model_as_it_was_and_needs_no_gradient() -> None:
    model, images = zoo.make("vgg").train(), zoo.images().requires_grad_()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = degrade(model, images, images)
    assert not found.change.requires_grad
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(found.change, degrade(model.eval(), images.detach(), images.detach()).change)
    raising = zoo.make(lambda: zoo.Raising(2)).train()
    with pytest.raises(OSError, match="on purpose"):
        degrade(raising, images, images)
    assert all(module.training for module in raising.modules())


def test_errors() -> None:
    model, images = zoo.make("vgg"), zoo.images()
    with pytest.raises(cpath.InputError, match="belong"):
        degrade(model, images, images[:2])
    with pytest.raises(cpath.InputError, match="no class"):
        degrade(model, images, images, target=zoo.CLASSES)
    with pytest.raises(cpath.InputError, match="NaN"):
        degrade(model, images, images * float("nan"))
    with pytest.raises(cpath.InputError, match="percent is empty"):
        degrade(model, images, images, percent=())
    with pytest.raises(cpath.InputError, match="percent"):
        degrade(model, images, images, percent=(1, 101))
    with pytest.raises(cpath.InputError, match="max_batch"):
        degrade(model, images, images, max_batch=0)
    with pytest.raises(cpath.UnknownNameError, match="order"):
        degrade(model, images, images, order="random")
    with pytest.raises(cpath.UnknownNameError, match="rank_by"):
        degrade(model, images, images, rank_by="random")
