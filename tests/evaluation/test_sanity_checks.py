from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

import cpath
from cpath.evaluation import MEASURES, find_blocks, sanity_check
from tests import zoo

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
