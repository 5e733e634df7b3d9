"""What cpath is timed beside computes the same."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cpath
from cpath.data import crop_and_flip
from cpath.models import resnet8_narrow, torchvision_model
from experiments.benchmark import rivals


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return torchvision_model("squeezenet1_0", 10).eval().double()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_naive_loop_finds_the_same_pathways(model, images):
    expected = cpath.find_pathway(model, images, "neuron_mct", 90)
    assert torch.equal(torch.stack(rivals.naive_mct(model, images, 90.0)), expected.flat)
    model.zero_grad(set_to_none=True)


def test_the_naive_loop_integrates_the_same(model, images):
    method = cpath.methods.NeuronIntGrad(nodes=3, rule="midpoint", residual=False)
    expected = cpath.score(model, images[:1], method)
    found = rivals.naive_intgrad(model, images[0], 3)
    for ours, theirs in zip(expected.values.values(), found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


def test_the_naive_loop_integrates_the_same_of_a_text():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, num_labels=3
    )
    model = transformers.BertForSequenceClassification(config).eval().double()
    text = {"input_ids": torch.tensor([[3, 1, 4, 1, 5]])}
    method = cpath.methods.NeuronIntGrad(nodes=3, rule="midpoint", residual=False)
    expected = cpath.score(model, text, method, sites="gelu")
    found = rivals.naive_intgrad_of_text(model, text, 3)
    for ours, theirs in zip(expected.values.values(), found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["gradients", "input_mct", "gbp"])
def test_captum_is_called_for_the_same_maps(model, images, name):
    torch.testing.assert_close(
        rivals.captum_attributions(model, images)[name](),
        cpath.attribute(model, images, name),
        rtol=1e-6,
        atol=1e-9,
    )


def test_bare_steps_train(monkeypatch):
    pixels = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 2
    pixels[labels == 1] //= 4
    model = resnet8_narrow(2)

    def loss() -> float:
        with torch.no_grad():
            return F.cross_entropy(model.eval()((pixels.float() / 255 - 0.5) / 0.25), labels).item()

    before = loss()
    rivals.training_steps(
        model, pixels, labels, lambda images, draws: crop_and_flip(images, draws, flip=True), 8, 16
    )
    assert loss() < 0.5 * before


def test_a_gated_pass_leaves_no_hook(model, images):
    rivals.gated_forward_backward(model, images)
    assert not any(module._forward_hooks for module in model.modules())
