"""Everything that the library computes, on a GPU: the values are those of the CPU, and lie where the inputs lie."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath import evaluation
from cpath.analysis import affine_radius, compare_pathways, response_preservation, site_counts
from cpath.data import crop_and_flip
from cpath.layout import SiteLayout
from cpath.stacked import Member, train_stacked
from cpath.training import Hardware, Recipe, train
from tests import zoo

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings(
        "ignore::cpath.EmptyPathwayWarning", "ignore:learned_ranking", "ignore:neuron_intgrad"
    ),
]

Values = Mapping[str, Any]


def _both(gpu: torch.device, work: Any, network: str = "residual") -> tuple[Values, Values]:
    """Values of ``work(model, images)`` on the CPU and on the GPU, in float64."""
    model, images = zoo.make(network, torch.float64), zoo.images(dtype=torch.float64)
    return work(model, images), work(copy.deepcopy(model).to(gpu), images.to(gpu))


def _assert_same(gpu: torch.device, cpu: Values, found: Values, *, here: bool = True) -> None:
    assert found.keys() == cpu.keys()
    for name, expected in cpu.items():
        value = found[name]
        assert not here or value.device.type == gpu.type, name
        torch.testing.assert_close(value.cpu(), expected, rtol=1e-6, atol=1e-9, equal_nan=True, msg=name)


def _scored(model: nn.Module, images: Tensor, **settings: Any) -> Values:
    scores = cpath.score(model, images, **settings)
    pathways = {f"masks at {sparsity}": scores.pathway(sparsity).flat for sparsity in (0, 60, 99.9)}
    return {"scores": scores.flat, **{f"residual {n}": r for n, r in (scores.residual or {}).items()}, **pathways}


@pytest.mark.parametrize("method", cpath.methods.names())
def test_scores_and_pathways_of_every_method(gpu, method):
    _assert_same(gpu, *_both(gpu, partial(_scored, method=zoo.quick(method))))


@pytest.mark.parametrize("method", [name for name in cpath.methods.names() if not name.endswith("_released")])
def test_scores_and_pathways_of_channels(gpu, method):
    _assert_same(gpu, *_both(gpu, partial(_scored, method=zoo.quick(method), unit="channel")))


@pytest.mark.parametrize("method", ["neuron_mct", "neuron_intgrad", "greedy", "dgr", "learned_ranking"])
@pytest.mark.parametrize("kind", ["mean", "other inputs"])
def test_scores_above_a_baseline(gpu, method, kind):
    def work(model: nn.Module, images: Tensor) -> Values:
        if kind == "mean":
            baseline = cpath.mean_activations(model, [images[:2], images[2:]])
        else:
            with cpath.observe(model) as seen, torch.no_grad():
                model(images.flip(0))
            baseline = seen.activations
        found = _scored(model, images, method=zoo.quick(method), baseline=baseline)
        return {**found, **{f"baseline of {name}": value for name, value in baseline.items()}}

    _assert_same(gpu, *_both(gpu, work))


def test_a_tolerance_is_refined_alike(gpu):
    method = cpath.methods.NeuronIntGrad(tolerance=0.01)
    _assert_same(gpu, *_both(gpu, partial(_scored, method=method), "fire"))


@pytest.mark.parametrize("neurons", [10, 4097, 200_000])
def test_thresholds_of_short_and_long_rows(gpu, neurons):
    generator = torch.Generator().manual_seed(neurons)
    values = torch.rand(3, neurons, generator=generator)
    values[1, : neurons // 2] = 0  # ties
    layout = SiteLayout({"relu": (neurons,)})
    on_cpu, on_gpu = (cpath.Scores(flat, layout, "mine", None) for flat in (values, values.to(gpu)))
    for sparsity in (0, 0.1, 50, 90, 99.99):
        one, other = on_cpu.pathway(sparsity), on_gpu.pathway(sparsity)
        assert torch.equal(other.flat.cpu(), one.flat)
        assert torch.equal(other.sparsity.cpu(), one.sparsity)


@pytest.mark.parametrize("name", [*cpath.attribution.base.REGISTRY, "neuron_mct", "neuron_intgrad"])
def test_maps_of_every_attribution(gpu, name):
    attribution = zoo.quick_attribution(name)
    _assert_same(gpu, *_both(gpu, lambda *given: {"map": cpath.attribute(*given, attribution)}))


def test_what_is_measured_on_pathways(gpu):
    def work(model: nn.Module, images: Tensor) -> Values:
        one, other = (cpath.find_pathway(model, images, name, 70) for name in ("neuron_mct", "random"))
        with cpath.observe(model) as seen, torch.no_grad():
            model(images)
        with one.restrict(model), torch.no_grad():
            logits = model(images)
        change, kept = response_preservation(model, images, one)
        measured = compare_pathways({"one": one, "other": other}, seen.activations)
        return {
            "logits": logits,
            "change": change,
            "kept": kept,
            "gradient": cpath.pathway_gradient(model, images, one),
            "radius": affine_radius(model, images, one),
            "nearby": affine_radius(model, images, one, neurons=5),
            **{str(key): value for key, value in measured.items()},
            "kept by site": site_counts(one.flat, one.layout),
        }

    _assert_same(gpu, *_both(gpu, work))


def test_faithfulness_and_its_controls(gpu):
    def work(model: nn.Module, images: Tensor) -> Values:
        scores = cpath.score(model, images, "neuron_mct")
        curve = cpath.faithfulness(model, images, scores)
        return {"sufficiency": curve.sufficiency, "necessity": curve.necessity, "cpr": curve.cpr, "cmd": curve.cmd}

    _assert_same(gpu, *_both(gpu, work))


def test_pathways_of_classes_are_counted(gpu):
    def work(model: nn.Module, images: Tensor) -> Values:
        counter = cpath.PathwayCounter(classes=zoo.CLASSES)
        for part, label in ((images[:2], [0, 3]), (images[2:], [3])):
            counter.update(cpath.find_pathway(model, part, "neuron_mct", 70), torch.tensor(label))
        return {
            "frequency": counter.frequency,
            "pathway": counter.pathway().flat,
            "similarity": counter.similarity(),
        }

    _assert_same(gpu, *_both(gpu, work))


@pytest.mark.parametrize("order", ["least", "most"])
def test_degradation_and_removal(gpu, order):
    def work(model: nn.Module, images: Tensor) -> Values:
        maps = cpath.attribute(model, images, "gradients")
        ranks = evaluation.rank_pixels(maps, images)
        imputed = evaluation.remove_pixels(images, ranks, 30, order=order, fill=evaluation.NoisyLinear())
        change = evaluation.degrade(model, images, maps, order=order, percent=(10, 50)).change
        return {
            "ranks": ranks,
            "removed": evaluation.remove_pixels(images, ranks, 30),
            "imputed": imputed,
            "change": change,
        }

    _assert_same(gpu, *_both(gpu, work, "vgg"))


def test_maps_may_lie_on_another_device_than_the_images(gpu):
    model, images = zoo.make("vgg", torch.float64), zoo.images(dtype=torch.float64)
    maps = cpath.attribute(model, images, "sobel")
    expected = evaluation.degrade(model, images, maps, percent=(10, 50)).change
    found = evaluation.degrade(model.to(gpu), images.to(gpu), maps, percent=(10, 50)).change
    _assert_same(gpu, {"change": expected}, {"change": found})


@pytest.mark.parametrize("init", ["normal", "own"])
def test_sanity_checks_draw_the_same_weights(gpu, init):
    def work(model: nn.Module, images: Tensor) -> Values:
        check = evaluation.sanity_check(
            model, images, ["gradients"], init=init, draws=1, measures=["spearman", "ssim"]
        )
        return {name: torch.as_tensor(value) for name, value in check.similarity["gradients"].items()}

    _assert_same(gpu, *_both(gpu, work), here=False)


def test_pictures_are_those_of_the_cpu(gpu):
    pytest.importorskip("lucent")
    model, images = zoo.make("residual"), zoo.images(1)
    pathway = cpath.find_pathway(model, images, sparsity=50)
    expected = cpath.decode(model, pathway, shape=(3, 8, 8), steps=4).images
    found = cpath.decode(model.to(gpu), pathway, shape=(3, 8, 8), steps=4).images
    assert found.device.type == "cpu"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-2)


def test_files_are_read_wherever_they_were_written(gpu, tmp_path):
    model, images = zoo.make("residual").to(gpu), zoo.images().to(gpu)
    scores = cpath.score(model, images)
    scores.save(tmp_path / "scores.safetensors")
    scores.pathway(60).save(tmp_path / "pathway.safetensors")
    pathway = cpath.Pathway.load(tmp_path / "pathway.safetensors")
    assert torch.equal(cpath.Scores.load(tmp_path / "scores.safetensors").flat, scores.flat.cpu())
    assert torch.equal(pathway.flat, scores.pathway(60).flat.cpu())
    with pathway.restrict(model), torch.no_grad():  # its masks go to where the network computes
        found = model(images)
    with scores.pathway(60).restrict(model), torch.no_grad():
        assert torch.equal(found, model(images))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_training_learns_as_on_the_cpu(gpu, tmp_path, precision):
    data = cpath.data.digits(size=16)
    recipe = Recipe(2, 128, partial(torch.optim.AdamW, lr=1e-2))
    losses = []
    for device in (torch.device("cpu"), gpu):
        torch.manual_seed(0)
        model = cpath.models.resnet8_narrow(10, data.shape, width=4)
        hardware = Hardware(device=device, precision=precision, tf32=False)
        history = train(
            model, data, recipe, tmp_path / f"{device.type}{len(losses)}", hardware=hardware, quiet=True
        )
        losses.append([row["loss"] for row in history])
    near = 1e-2 if precision == "32-true" else 0.2
    assert losses[1] == pytest.approx(losses[0], rel=near)
    assert losses[1][1] < losses[1][0] < 2.4


def _stacked(device: torch.device, folder: Path, hardware: Hardware, batch: int = 64) -> list[list[float]]:
    """Losses by epoch of three networks that are trained at once."""
    data = cpath.data.digits(size=16)
    recipe = Recipe(2, batch, partial(torch.optim.AdamW, lr=1e-2), augmentation=partial(crop_and_flip, crop=0))
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        members.append(Member(cpath.models.resnet8_narrow(10, data.shape, width=4), data, seed))
    file = folder / f"{device.type}{batch}.ckpt"
    rows = train_stacked(members, recipe, file, hardware=replace(hardware, device=device), quiet=True)
    return [[row["loss"] for row in one] for one in rows if isinstance(one, list)]


def test_networks_trained_at_once_are_those_of_the_cpu(gpu, tmp_path):
    hardware = Hardware(precision="64-true")
    expected, found = (_stacked(device, tmp_path, hardware) for device in (torch.device("cpu"), gpu))
    assert len(found) == 3
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("at_once", [False, True])
def test_no_step_of_a_training_waits_for_the_gpu(gpu, tmp_path, at_once):
    hardware = Hardware(device=gpu, precision="bf16-mixed", channels_last=True)
    data = cpath.data.digits(size=16)

    def waits(batch: int) -> int:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if gpu.type == "cuda":
                torch.cuda.set_sync_debug_mode("warn")
            try:
                if at_once:
                    _stacked(gpu, tmp_path, hardware, batch)
                else:
                    recipe = Recipe(2, batch, partial(torch.optim.AdamW, lr=1e-2))
                    model = cpath.models.resnet8_narrow(10, data.shape, width=4)
                    train(model, data, recipe, tmp_path / str(batch), hardware=hardware, quiet=True)
            finally:
                if gpu.type == "cuda":
                    torch.cuda.set_sync_debug_mode("default")
        return sum("synchronizing" in str(one.message) for one in caught)

    waits(320)  # what is done once
    assert waits(64) <= waits(320) + 2
