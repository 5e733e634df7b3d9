from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.attribution import CaptumAttribution, quantus_explain
from tests import zoo

pytestmark = pytest.mark.filterwarnings("ignore")  # other packages' warnings


def logits(model: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)


# Captum


@pytest.mark.parametrize("name", cpath.attribution.names())
def test_captum_form(name: str) -> None:
    model, images = zoo.make("residual"), zoo.images()
    method = zoo.quick_attribution(name)
    explainer = CaptumAttribution(model, method)
    maps = explainer.attribute(images, target=[0, 4, 2])
    expected = cpath.attribute(model, images, method, torch.tensor([0, 4, 2]))
    assert maps.shape == images.shape
    if expected.shape == images.shape:
        assert torch.equal(maps, expected)
    else:  # one number a pixel, shared by its channels
        assert torch.allclose(maps.sum(1, keepdim=True), expected, atol=1e-6)
    (in_tuple,) = explainer.attribute((images,), target=torch.tensor([0, 4, 2]))
    assert torch.equal(in_tuple, maps)


def test_captum_infidelity_takes_it_as_it_is() -> None:
    from captum.metrics import infidelity

    model, images = zoo.make("sequential", torch.float64), zoo.images(dtype=torch.float64)
    target = logits(model, images).argmax(1)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 1e-6 * torch.randn(inputs.shape, generator=generator, dtype=inputs.dtype)
        return noise, inputs - noise

    found = {}
    for name in ("gradients", "random", "gradcam"):
        generator = torch.Generator().manual_seed(0)
        maps = CaptumAttribution(model, name).attribute(images, target=target)
        found[name] = infidelity(model, perturb, images, maps, target=target, n_perturb_samples=8)
        assert found[name].shape == (3,)
    # Of a tiny perturbation the gradient tells the effect, up to second order; a random map does not.
    assert (found["gradients"] < 1e-4 * found["random"]).all()


def test_captum_sensitivity_and_noise_tunnel_take_it_as_it_is() -> None:
    from captum.attr import NoiseTunnel
    from captum.metrics import sensitivity_max

    model, images = zoo.make("residual"), zoo.images()
    explainer = CaptumAttribution(model, "neuron_mct", sparsity=60)
    found = sensitivity_max(explainer.attribute, images, target=1, n_perturb_samples=2)
    assert found.shape == (3,)
    assert torch.isfinite(found).all()
    still = NoiseTunnel(explainer).attribute(images, nt_samples=3, stdevs=0.0, target=1)
    assert torch.allclose(still, explainer.attribute(images, target=1), rtol=1e-3, atol=1e-5)


class _Weighted(nn.Module):
    """A network of images, a weight of each, and the number of a class whose logit it doubles."""

    def __init__(self) -> None:
        super().__init__()
        self.net = zoo.make("residual")

    def forward(self, images: Tensor, weight: Tensor, number: Tensor) -> Tensor:
        return self.net(images) * weight + torch.eye(zoo.CLASSES)[number]


def test_captum_adapter_gives_the_map_of_every_input() -> None:
    model, images = _Weighted(), zoo.images()
    weight, number = torch.tensor([[0.5], [1.0], [2.0]]), torch.tensor([0, 3, 1])
    found = CaptumAttribution(model, "gradients").attribute((images, weight, number), target=2)
    assert [one.shape for one in found] == [images.shape, weight.shape, number.shape]
    plain = cpath.attribute(model.net, images, "gradients", 2)
    torch.testing.assert_close(found[0], plain * weight[:, :, None, None])
    torch.testing.assert_close(found[1], model.net(images)[:, 2:3].detach())
    assert found[2].count_nonzero() == 0
    cam, *rest = CaptumAttribution(model, "gradcam").attribute((images, weight, number), target=2)
    alone = CaptumAttribution(model.net, "gradcam").attribute(images, target=2)
    torch.testing.assert_close(cam, alone * weight[:, :, None, None])
    assert all(one.count_nonzero() == 0 for one in rest)


def test_captum_adapter_refuses_what_it_cannot_do() -> None:
    model, images = zoo.make("residual"), zoo.images()
    with pytest.raises(cpath.UnknownNameError):  # at once, not at the first image
        CaptumAttribution(model, "gradcan")
    explainer = CaptumAttribution(model, cpath.methods.NeuronIntGrad(nodes=3), sparsity=60)
    assert not explainer.has_convergence_delta()
    with pytest.raises(cpath.InputError, match="does not take these inputs"):
        explainer.attribute((images, images))
    with pytest.raises(cpath.InputError, match="additional"):
        explainer.attribute(images, additional_forward_args=(1,))


# Quantus


@pytest.mark.parametrize("name", cpath.attribution.names())
def test_quantus_form(name: str) -> None:
    model, images, method = zoo.make("residual"), zoo.images(), zoo.quick_attribution(name)
    labels = np.array([0, 4, 2])
    found = quantus_explain(model, images.double().numpy(), labels, method=method, device="cpu")
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, cpath.attribute(model, images, method, torch.as_tensor(labels)).numpy())


def test_quantus_arguments() -> None:
    model, images = zoo.make("residual"), zoo.images()
    expected = cpath.attribute(model, images, "neuron_mct", 1, sparsity=60).numpy()
    for targets in (1, np.array([1.0, 1.0, 1.0]), torch.tensor([[1], [1], [1]])):
        assert np.array_equal(quantus_explain(model, images, targets, sparsity=60), expected)
    assert quantus_explain(model, inputs=images, targets=None, method="gradcam").shape == (3, 1, 8, 8)
    with pytest.raises(cpath.InputError, match="move the model"):
        quantus_explain(model, images, 1, device="cuda")


def test_quantus_itself() -> None:
    quantus = pytest.importorskip("quantus")
    model, images = zoo.make("residual"), zoo.images()
    labels = logits(model, images).argmax(1).numpy()
    given: dict[str, Any] = {
        "model": model,
        "x_batch": images.numpy(),
        "y_batch": labels,
        "a_batch": None,
        "explain_func": quantus_explain,
        "device": "cpu",
    }
    for settings in ({"method": "neuron_mct", "sparsity": 60}, {"method": "gradcam"}):
        metric = quantus.Sparseness(disable_warnings=True, display_progressbar=False)
        scores = metric(**given, explain_func_kwargs=settings)
        assert len(scores) == 3
        assert np.isfinite(scores).all()
    metric = quantus.PixelFlipping(features_in_step=16, disable_warnings=True, display_progressbar=False)
    curves = np.array(metric(**given, explain_func_kwargs={"method": "neuron_mct", "sparsity": 60}))
    assert curves.shape == (3, 12)  # 3 · 8 · 8 features, 16 a step
    # Faithfulness that can be told by hand: the pixels of a linear model matter by weight times value.
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, zoo.CLASSES, bias=False)).eval()
    faithful = quantus.FaithfulnessCorrelation(
        nr_runs=40, subset_size=48, perturb_baseline=0.0, disable_warnings=True, display_progressbar=False
    )
    given |= {"model": linear, "softmax": False, "y_batch": logits(linear, images).argmax(1).numpy()}
    scores = {
        name: faithful(
            **given, explain_func_kwargs={"method": name, "seed": 0} if name == "random" else {"method": name}
        )
        for name in ("input_mct", "random")
    }
    assert min(scores["input_mct"]) > 0.99
    assert max(np.abs(scores["random"])) < 0.9


def test_quantus_localisation_finds_where_the_attribution_is() -> None:
    quantus = pytest.importorskip("quantus")
    model, images = zoo.make("residual"), zoo.images()
    labels = logits(model, images).argmax(1).numpy()
    maps = quantus_explain(model, images, labels, method="gradcam")
    row, column = np.unravel_index(maps[0, 0].argmax(), (8, 8))
    segments = np.zeros((3, 1, 8, 8), dtype=bool)
    segments[:, :, row, column] = True
    pointing = quantus.PointingGame(disable_warnings=True, display_progressbar=False)
    hits = pointing(
        model=model,
        x_batch=images.numpy(),
        y_batch=labels,
        a_batch=None,
        s_batch=segments,
        explain_func=quantus_explain,
        explain_func_kwargs={"method": "gradcam"},
        device="cpu",
    )
    expected = [one[0].argmax() == row * 8 + column for one in maps]
    assert [bool(hit) for hit in hits] == expected
    assert expected[0]


def test_quantus_randomisation_tells_what_depends_on_the_weights() -> None:
    quantus = pytest.importorskip("quantus")
    model, images = zoo.make("residual"), zoo.images()
    metric = quantus.MPRT(disable_warnings=True, display_progressbar=False, return_average_correlation=True)
    found = {}
    for name in ("neuron_mct", "sobel"):
        found[name] = metric(
            model=model,
            x_batch=images.numpy(),
            y_batch=logits(model, images).argmax(1).numpy(),
            a_batch=None,
            explain_func=quantus_explain,
            explain_func_kwargs={"method": name},
            device="cpu",
        )
    assert np.allclose(found["sobel"], 1)  # an edge map knows nothing of the network
    assert (np.array(found["neuron_mct"]) < 0.9).all()


def test_activations_are_checked_when_it_is_made() -> None:
    model = zoo.make("vgg")
    with pytest.raises(cpath.UnknownNameError, match="unknown activation function 'rellu'"):
        CaptumAttribution(model, "gradients", sites="rellu")
