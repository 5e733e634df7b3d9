from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.stats
import skimage.feature
import skimage.metrics
import torch
import torchvision
from torch import Tensor, nn

import cpath
from cpath.evaluation import MEASURES, Comparison, find_blocks, redraw, sanity_check
from cpath.evaluation.randomization import resolve_blocks
from cpath.evaluation.similarity import hog_cell
from tests import zoo

# Blocks


def test_blocks_of_the_zoo() -> None:
    expected = {
        "sequential": ["9", "7", "3", "0"],
        "residual": ["fc", "layer1.1", "layer1.0", "conv1"],
        "vgg": ["11", "8", "3", "0"],
        "functional": ["fc", "hidden", "body", "stem"],
        "fire": ["5", "4", "3", "0"],
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


# Measures


@pytest.mark.parametrize("size", [64, 20])
def test_measures_equal_the_libraries(size: int) -> None:
    first, second = zoo.images(3, size, torch.float64), zoo.images(3, size, torch.float64, seed=1)
    second[1] = second[1].round()  # ties
    found = Comparison(first).to(second)
    assert set(found) == set(MEASURES) == {"spearman", "spearman_abs", "ssim", "hog"}
    for i in range(3):
        a, b = (cpath.single_channel(maps[i : i + 1])[0, 0].numpy() for maps in (first, second))
        assert found["spearman"][i] == pytest.approx(scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic)
        absolute = scipy.stats.spearmanr(np.abs(a).ravel(), np.abs(b).ravel()).statistic
        assert found["spearman_abs"][i] == pytest.approx(absolute)
        a, b = ((one - one.min()) / (one.max() - one.min()) for one in (a, b))
        ssim = skimage.metrics.structural_similarity(a, b, win_size=5, data_range=1.0)
        assert found["ssim"][i] == pytest.approx(ssim)
        cell = 16 if size == 64 else 10
        hogs = [skimage.feature.hog(x, 9, (cell, cell), (1, 1)) for x in (a, b)]
        assert found["hog"][i] == pytest.approx(scipy.stats.pearsonr(*hogs).statistic)


def test_measures_of_equal_opposite_and_unrelated_maps() -> None:
    maps = zoo.images(4, 32)
    equal = Comparison(maps).to(3 * maps)
    assert all(np.allclose(values, 1) for values in equal.values())
    opposite = Comparison(maps).to(-maps)
    assert np.allclose(opposite["spearman"], -1)
    assert np.allclose(opposite["spearman_abs"], 1)
    noise = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert np.abs(Comparison(maps).to(noise)["spearman"]).max() < 0.15


def test_measures_where_they_are_undefined() -> None:
    maps, constant = zoo.images(), torch.ones(3, 1, 8, 8)
    for found in (Comparison(maps).to(constant), Comparison(constant).to(maps)):
        assert all(np.isnan(values).all() for values in found.values())
    tiny = Comparison(maps[:, :, :4, :4]).to(maps[:, :, 4:, 4:])
    assert np.isnan(tiny["ssim"]).all()
    assert np.isfinite(tiny["hog"]).all()
    assert [hog_cell(*size) for size in [(224, 224), (32, 32), (31, 64), (8, 8), (1, 5)]] == [16, 16, 15, 4, 0]
    assert np.isnan(Comparison(maps[:, :, :1]).to(maps[:, :, 1:2])["hog"]).all()
    with pytest.raises(cpath.UnknownNameError, match="measure"):
        Comparison(maps, ("pearson",))
    with pytest.raises(cpath.InputError, match="measures is empty"):
        Comparison(maps, ())


# The check


def slow_check(model: nn.Module, images: Tensor, name: str, blocks: list[list[str]], seed: int) -> np.ndarray:
    """Spearman's correlation (blocks, B): a copy for each depth, one image at a time."""
    original = [cpath.attribute(model, image.unsqueeze(0), name) for image in images]
    labels = model(images).argmax(1).tolist()
    rows = []
    for depth in range(len(blocks)):
        network = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(seed)
        for parameters in blocks[: depth + 1]:
            for parameter in parameters:
                value = network.get_parameter(parameter)
                value.data = 0.1 * torch.randn(value.shape, generator=generator).to(value)
        row = []
        for image, before, label in zip(images, original, labels, strict=True):
            after = cpath.attribute(network, image.unsqueeze(0), name, label)
            pair = [cpath.single_channel(maps).flatten().numpy() for maps in (before, after)]
            row.append(scipy.stats.spearmanr(*pair).statistic)
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("name", ["gradients", "gbp", "gradcam", "neuron_mct"])
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_equals_the_oracle(name: str) -> None:
    model, images = zoo.make("residual", torch.float64), zoo.images(dtype=torch.float64)
    found = sanity_check(model, images, [name], draws=1, measures=["spearman"])
    blocks = [list(parameters) for parameters in find_blocks(model, images).values()]
    expected = slow_check(model, images, name, blocks, seed=0)
    assert found.blocks == ("fc", "layer1.1", "layer1.0", "conv1")
    assert np.allclose(found.similarity[name]["spearman"][0], expected, atol=1e-6, equal_nan=True)


def test_what_is_learned_and_what_is_not() -> None:
    model, images = zoo.make("functional"), zoo.images(4, 16)
    found = sanity_check(model, images, ["sobel", "random", "gradients"], draws=2)
    assert found.similarity["sobel"]["ssim"].shape == (2, 4, 4)
    assert found.baseline["sobel"]["ssim"].shape == (2, 4)
    for control in ("sobel", "random"):  # they know nothing of the network
        for measure in MEASURES:
            assert np.allclose(found.similarity[control][measure], 1)
            assert found.baseline[control][measure].max() < 0.9
    assert np.abs(found.baseline["sobel"]["spearman"]).max() < 0.3
    last = found.similarity["gradients"]["spearman"][:, -1]
    assert np.nanmax(np.abs(last)) < 0.7
    draws = found.similarity["gradients"]["spearman"]
    assert not np.allclose(draws[0], draws[1])


@dataclass(frozen=True, kw_only=True)
class Recording(cpath.attribution.Attribution):
    """Notes what it is asked for."""

    targets: list[list[int]] = field(default_factory=list)
    networks: list[nn.Module] = field(default_factory=list)
    fails_at: int = 99

    def maps(self, probe: cpath.attribution.ResponseProbe) -> Tensor:
        self.targets.append(probe.target.tolist())
        self.networks.append(probe.model)
        if len(self.targets) == self.fails_at:
            probe.model.get_parameter("0.weight").data.zero_()
            raise KeyboardInterrupt
        return probe.images


def test_target_stays_or_is_predicted_again() -> None:
    model, images = zoo.make("sequential"), zoo.images(8)
    labels = model(images).argmax(1).tolist()
    kept, again, zero = Recording(), Recording(), Recording()
    found = sanity_check(model, images, [kept], draws=2)
    assert found.target.tolist() == labels
    assert kept.targets == [labels] * 9  # original, and 4 blocks in 2 draws: the whole batch each time
    sanity_check(model, images, [again], draws=1, repredict=True)
    assert again.targets[0] == labels
    assert any(targets != labels for targets in again.targets[1:])
    sanity_check(model, images, [zero], target=0, draws=1)
    assert zero.targets == [[0] * 8] * 5
    with pytest.raises(cpath.InputError, match="repredict"):
        sanity_check(model, images, [zero], target=0, repredict=True)


def test_the_model_is_never_changed() -> None:
    model, images = zoo.make("vgg").train(), zoo.images()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    loss = model(images).sum()  # a graph of the user's, which writing into the weights would break
    before = {name: (id(value), value.clone()) for name, value in model.state_dict(keep_vars=True).items()}
    for fails_at in (99, 3):
        recording = Recording(fails_at=fails_at)
        try:
            sanity_check(model, images, ["neuron_mct", recording], init="own", draws=2)
        except KeyboardInterrupt:
            assert fails_at == 3
        assert model not in recording.networks[1:]
        for name, value in model.state_dict(keep_vars=True).items():
            assert id(value) == before[name][0]
            assert torch.equal(value, before[name][1])
        assert all(module.training for module in model.modules())
        assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    loss.backward()


def test_seed_batch_and_progress() -> None:
    model, images = zoo.make("residual", torch.float64), zoo.images(dtype=torch.float64)
    state, steps = torch.get_rng_state(), []
    settings = {"draws": 2, "measures": ("spearman", "hog"), "blocks": ["fc", "layer1"]}
    names = {"a": "gradients", "b": cpath.attribution.GradCAM(site="relu"), "c": cpath.methods.NeuronMCT()}
    found = sanity_check(model, images, names, **settings, on_step=lambda done, total: steps.append((done, total)))
    assert torch.equal(torch.get_rng_state(), state)
    assert steps == [(i + 1, 15) for i in range(15)]
    assert found.blocks == ("fc", "layer1")
    again = sanity_check(model, images, names, **settings, max_batch=2)
    other = sanity_check(model, images, names, **settings, seed=1)
    alone = [sanity_check(model, images[i : i + 1], names, **settings) for i in range(3)]
    for label in names:
        for measure in ("spearman", "hog"):
            for part in ("similarity", "baseline"):
                values = getattr(found, part)[label][measure]
                assert np.allclose(getattr(again, part)[label][measure], values, atol=1e-6, equal_nan=True)
                assert not np.allclose(getattr(other, part)[label][measure], values, equal_nan=True)
                joined = np.concatenate([getattr(one, part)[label][measure] for one in alone], -1)
                assert np.allclose(joined, values, atol=1e-6, equal_nan=True)


def test_errors() -> None:
    model, images = zoo.make("vgg"), zoo.images()
    for name, value in (("draws", 0), ("seed", -1), ("std", 0), ("std", float("nan")), ("max_batch", 0)):
        with pytest.raises(cpath.InputError, match=f"{name} must be"):
            sanity_check(model, images, ["sobel"], **{name: value})
    with pytest.raises(cpath.InputError, match="attributions is empty"):
        sanity_check(model, images, [])
    with pytest.raises(cpath.InputError, match="same name"):
        sanity_check(model, images, ["gradcam", cpath.attribution.GradCAM(site="1")])
    with pytest.raises(cpath.UnknownNameError, match="gradcan"):
        sanity_check(model, images, ["sobel", "gradcan"])
    with pytest.raises(cpath.UnknownNameError, match="init"):
        sanity_check(model, images, ["sobel"], init="uniform")
    with pytest.raises(cpath.UnknownNameError, match="measure"):
        sanity_check(model, images, ["sobel"], measures=["pearson"])
    with pytest.raises(cpath.InputError, match="no class"):
        sanity_check(model, images, ["sobel"], target=zoo.CLASSES)

    class Uncopyable(nn.Sequential):
        def __deepcopy__(self, memo: object) -> None:
            raise KeyError("not me")

    with pytest.raises(cpath.InputError, match=r"cannot be copied .* which randomising it needs: 'not me'"):
        sanity_check(Uncopyable(model), images, ["sobel"])
    with pytest.raises(cpath.InputError, match=r"cannot be copied .* which decoding needs: 'not me'"):
        cpath.decode(Uncopyable(model), None, cpath.decoding.Logit(0), shape=(3, 8, 8))
