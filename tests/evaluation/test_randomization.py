from __future__ import annotations

import copy

import pytest
import torch
import torchvision
from torch import Tensor, nn

import cpath
from cpath.evaluation import find_blocks, redraw
from cpath.evaluation.randomization import resolve_blocks
from tests import zoo

# Blocks


def test_blocks_of_the_zoo() -> None:
    expected = {
        "sequential": ["9", "7", "3", "0"],
        "residual": ["fc", "layer1.1", "layer1.0", "conv1"],
        "vgg": ["11", "8", "3", "0"],
        "functional": ["fc", "hidden", "body", "stem"],
        "fire": ["9", "5", "4", "3", "0"],
    }
    for name, names in expected.items():
        model = zoo.make(name)
        blocks = find_blocks(model, zoo.images())
        assert list(blocks) == names
        parameters = [parameter for block in blocks.values() for parameter in block]
        assert sorted(parameters) == sorted(dict(model.named_parameters()))
    blocks = find_blocks(zoo.make("residual"), zoo.images())
    assert blocks["conv1"] == ("conv1.weight", "bn1.weight", "bn1.bias")


class Backwards(nn.Module):
    """Registers its layers in the order opposite to their use, and one that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)
        self.fc = nn.Linear(4, zoo.CLASSES)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((torch.relu(self.conv(x)) * self.scale).mean((2, 3)))


def test_blocks_follow_the_forward_pass() -> None:
    assert list(find_blocks(Backwards(), zoo.images())) == ["fc", "scale", "conv"]
    wrapped = nn.Sequential(nn.Identity(), zoo.make("residual"))
    assert list(find_blocks(wrapped, zoo.images())) == ["1.fc", "1.layer1.1", "1.layer1.0", "1.conv1"]
    with pytest.raises(cpath.InputError, match="no parameter"):
        find_blocks(nn.Flatten(), zoo.images())


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("resnet50", 18, "layer4.2", "conv1"),  # the paper's: logits, 16 bottlenecks, first convolution
        ("vgg16", 16, "classifier.3", "features.0"),
        ("densenet121", 63, "features.denseblock4.denselayer16", "features.conv0"),
        ("googlenet", 13, "inception5b", "conv1"),
        ("squeezenet1_0", 10, "features.12", "features.0"),
        ("mobilenet_v2", 20, "features.18.0", "features.0.0"),
        ("shufflenet_v2_x1_0", 19, "conv5.0", "conv1.0"),
        ("efficientnet_b0", 19, "features.8.0", "features.0.0"),
        ("vit_b_16", 16, "encoder.layers.encoder_layer_11", "conv_proj"),
        ("swin_t", 17, "features.7.1", "features.0.0"),
        ("convnext_tiny", 23, "features.7.2", "features.0.0"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_blocks_of_torchvision_models(name: str, count: int, first: str, last: str) -> None:
    with torch.device("meta"):  # shapes only: nothing is computed
        model = torchvision.models.get_model(name, weights=None)
        blocks = find_blocks(model, torch.empty(1, 3, 224, 224))
    assert len(blocks) == count
    assert list(blocks)[1] == first
    assert list(blocks)[-1] == last


def test_named_blocks() -> None:
    model = zoo.make("residual")
    assert resolve_blocks(model, ["fc", "layer1"])["layer1"][0] == "layer1.0.conv1.weight"
    assert resolve_blocks(model, {"head": ["fc"], "stem": ["conv1", "bn1.bias"]}) == {
        "head": ("fc.weight", "fc.bias"),
        "stem": ("conv1.weight", "bn1.bias"),
    }
    for wrong in (["fc", "layer"], ["relu"], []):
        with pytest.raises(cpath.InputError, match="block"):
            resolve_blocks(model, wrong)


# New weights


def test_normal_redraw() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Flatten(), nn.Linear(64, 500))
    before = copy.deepcopy(model.state_dict())
    redraw(model, ["4.weight", "4.bias", "1.weight", "1.bias"], torch.Generator().manual_seed(0))
    after = model.state_dict()
    for name in ("4.weight", "4.bias"):
        assert abs(float(after[name].mean())) < 0.02
        assert float(after[name].std()) == pytest.approx(0.1, rel=0.1)  # a standard deviation, not a variance
    for name, value in after.items():
        drawn = name in ("4.weight", "4.bias", "1.weight", "1.bias")
        assert torch.equal(value, before[name]) != drawn
    redraw(model, ["4.weight"], torch.Generator().manual_seed(0), std=0.5)
    assert float(model[4].weight.detach().std()) == pytest.approx(0.5, rel=0.1)


def test_own_redraw() -> None:
    model = nn.Sequential(nn.Linear(4, 30), nn.BatchNorm1d(30), nn.Linear(30, 500))
    model[1].running_mean.fill_(3)
    state = torch.get_rng_state()
    redraw(model, ["1.weight", "1.bias", "2.weight", "2.bias"], torch.Generator().manual_seed(3), "own")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model[1].running_mean, torch.zeros(30))
    again = copy.deepcopy(model)
    redraw(again, ["1.weight", "1.bias", "2.weight", "2.bias"], torch.Generator().manual_seed(3), "own")
    assert torch.equal(model[2].weight, again[2].weight)
    assert float(model[2].weight.detach().abs().max()) <= 30**-0.5  # PyTorch's initialisation of a linear layer
    with pytest.raises(cpath.InputError, match="no reset_parameters"):
        redraw(Backwards(), ["scale"], torch.Generator(), "own")
    with pytest.raises(cpath.UnknownNameError, match="init"):
        redraw(model, ["1.weight"], torch.Generator(), "uniform")
