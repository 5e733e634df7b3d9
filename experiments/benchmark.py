"""Speed and memory of everything, held against what it must contain, against Captum, and against a naive loop."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import cpath
from cpath.data import ImageData, Normalisation, TensorSplit, crop_and_flip
from cpath.errors import unknown_name
from cpath.evaluation import PERCENTS, degrade
from cpath.methods import DGR, Greedy, NeuronIntGrad
from cpath.models import resnet8, torchvision_model
from cpath.threshold import keep_above
from experiments.figures.benchmark import benchmark_figures
from experiments.framework import bare
from experiments.framework.devices import device_of
from experiments.framework.job import Job, run_job
from experiments.framework.results import Row
from experiments.framework.store import slug, write_json
from experiments.framework.timing import CAPTUM, FLOOR, NAIVE, Case, Rival, Work, measure

_SPARSITY = 90.0
_PASS = "forward and input-only backward"


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, benchmark_figures)


def _compute(job: Job) -> list[Row]:
    device, settings = device_of(job.cfg), job.cfg.experiment
    for name in settings.cases:
        if name not in _CASES:
            raise unknown_name("case", name, list(_CASES))
    folder, rows = job.folder / "cases", []
    if job.cfg.redo:
        shutil.rmtree(folder, ignore_errors=True)
    for name in settings.cases:
        file = folder / f"{slug(name)}.json"  # a stopped benchmark goes on behind the last finished case
        if not file.exists():
            measured = [measure(case, settings.repeats, device) for case in _CASES[name](job.cfg, device)]
            folder.mkdir(parents=True, exist_ok=True)
            write_json(file, [vars(row) for found in measured for row in found])
        rows += [Row(**values) for values in json.loads(file.read_text())]
    return rows


_Subject = tuple[str, nn.Module, Tensor]
_Cases = Iterator[Case]


def _subjects(cfg: DictConfig, device: torch.device, names: str = "models") -> Iterator[_Subject]:
    """Name, network with random weights, and a batch of noise, by model."""
    settings = cfg.experiment
    for name in settings[names]:
        torch.manual_seed(cfg.seed)
        model = torchvision_model(name, 1000).eval().to(device)
        yield name, model, torch.randn(settings.batch, 3, settings.size, settings.size).to(device)


def _threshold(cfg: DictConfig, device: torch.device) -> _Cases:
    generator = torch.Generator().manual_seed(cfg.seed)
    shape = tuple(cfg.experiment.threshold)
    # Half of the neurons dead, the rest spread over magnitudes, as contributions are.
    scores = torch.randn(shape, generator=generator) * torch.randn(shape, generator=generator)
    scores = torch.where(torch.rand(shape, generator=generator) < 0.5, 0.0, scores.abs()).to(device)
    rival = Rival("one comparison", partial(torch.gt, scores, 0.5))
    at = f"{shape[0]} × {shape[1] / 1e6:g} million"
    yield Case("threshold", at, partial(keep_above, scores, _SPARSITY), {FLOOR: rival}, "scores", limits={FLOOR: 4})


def _pass_of(model: nn.Module, images: Tensor) -> Rival:
    return Rival(_PASS, partial(bare.forward_backward, model, images))


def _of_method(name: str, limits: dict[str, float] | None = None) -> Callable[[DictConfig, torch.device], _Cases]:
    """A pathway by a method whose passes are those of one bare one, or none."""

    def cases(cfg: DictConfig, device: torch.device) -> _Cases:
        for architecture, model, images in _subjects(cfg, device):
            limit = (limits or {}).get(architecture)
            rivals = {FLOOR: _pass_of(model, images)}
            if name == "neuron_mct":
                rivals[NAIVE] = Rival("hooks and kthvalue", partial(bare.naive_mct, model, images, _SPARSITY))
            yield Case(
                name,
                architecture,
                partial(cpath.find_pathway, model, images, name, _SPARSITY),
                rivals,
                limits={} if limit is None else {FLOOR: limit},
            )

    return cases


def _greedy(cfg: DictConfig, device: torch.device) -> _Cases:
    rounds = cfg.experiment.greedy_rounds
    for architecture, model, images in _subjects(cfg, device):
        find = partial(cpath.find_pathway, model, images)
        rival = Rival(f"neuron_mct, {rounds} times", partial(bare.repeated, rounds, find, "neuron_mct", _SPARSITY))
        ours = partial(find, Greedy(rounds=rounds), _SPARSITY)
        yield Case("greedy", architecture, ours, {FLOOR: rival}, limits={FLOOR: 1.15})


def _dgr(cfg: DictConfig, device: torch.device) -> _Cases:
    """Iterations alone: a routing of one iteration is taken off."""
    iterations, limits = cfg.experiment.dgr_iterations, {"squeezenet1_0": 1.6, "vgg16": 1.3}
    for architecture, model, images in _subjects(cfg, device):
        rival = Rival(
            f"gated forward and gate-only backward, {iterations} times",
            partial(bare.repeated, iterations, bare.gated_forward_backward, model, images),
        )
        yield Case(
            "dgr",
            architecture,
            partial(cpath.score, model, images, DGR(iterations=iterations + 1, retries=0)),
            {FLOOR: rival},
            start=partial(cpath.score, model, images, DGR(iterations=1, retries=0)),
            limits={FLOOR: limits[architecture]} if architecture in limits else {},
        )


def _intgrad(*, residual: bool) -> Callable[[DictConfig, torch.device], _Cases]:
    def cases(cfg: DictConfig, device: torch.device) -> _Cases:
        nodes = cfg.experiment.nodes
        for architecture, model, images in _subjects(cfg, device, "slow_models"):
            rivals = {
                # Captum gives the scores alone; ours may come with their residual.
                CAPTUM: Rival(
                    f"Captum LayerIntegratedGradients, {nodes} steps",
                    partial(bare.captum_layers, model, images, nodes),
                )
            }
            if not residual:
                rivals[NAIVE] = Rival(
                    "a pass for every site and node",
                    partial(bare.naive_intgrad, model, images[0], nodes),
                    times=len(images),
                )
            yield Case(
                "neuron_intgrad with residual" if residual else "neuron_intgrad",
                architecture,
                partial(cpath.score, model, images, NeuronIntGrad(nodes=nodes, residual=residual)),
                rivals,
                limits={CAPTUM: 0.5} if architecture == "squeezenet1_0" and not residual else {},
            )

    return cases


def _one_by_one(works: Sequence[Work]) -> None:
    for work in works:
        work()


_PATHWAY_GRADIENTS = ("neuron_mct", "neuron_intgrad")


def _attributions(cfg: DictConfig, device: torch.device) -> _Cases:
    """The paper's seven together; Captum has five of them."""
    for architecture, model, images in _subjects(cfg, device, "slow_models"):
        captum = bare.captum_attributions(model, images)
        pathways = [partial(cpath.attribute, model, images, name) for name in _PATHWAY_GRADIENTS]
        ours = [*(partial(cpath.attribute, model, images, name) for name in captum), *pathways]
        theirs = partial(_one_by_one, [*captum.values(), *pathways])
        yield Case(
            "attributions",
            architecture,
            partial(_one_by_one, ours),
            {CAPTUM: Rival("Captum's five and two pathway gradients", theirs)},
            limits={CAPTUM: 1.2},
        )


def _each_attribution(cfg: DictConfig, device: torch.device) -> _Cases:
    for architecture, model, images in _subjects(cfg, device, "slow_models"):
        for name, work in bare.captum_attributions(model, images).items():
            ours = partial(cpath.attribute, model, images, name)
            yield Case(name, architecture, ours, {CAPTUM: Rival(f"Captum, {name}", work)})


def _degradation(cfg: DictConfig, device: torch.device) -> _Cases:
    passes = len(PERCENTS) + 1
    for architecture, model, images in _subjects(cfg, device, "slow_models"):
        maps = torch.randn(len(images), 1, *images.shape[2:]).to(device)
        rival = Rival(f"{passes} forward passes", partial(bare.forward_passes, model, images, passes))
        ours = partial(degrade, model, images, maps)
        # At least 80 % of the time in forward passes.
        yield Case("degradation", architecture, ours, {FLOOR: rival}, limits={FLOOR: 1.25})


def _training_step(cfg: DictConfig, device: torch.device) -> _Cases:
    """Whole epochs of a training that validates and writes checkpoints, against bare steps alone."""
    from cpath.training import Hardware, Recipe, train

    count, batch, epochs = cfg.experiment.training
    pixels = torch.randint(0, 256, (count + batch, 3, 32, 32), dtype=torch.uint8)
    labels, normalisation = torch.randint(0, 10, (count + batch,)), Normalisation((0.5,) * 3, (0.25,) * 3)

    def split(where: slice) -> TensorSplit:
        rows = range(count + batch)[where]
        return TensorSplit(pixels[where], labels[where], [str(row) for row in rows], normalisation)

    data = ImageData(
        "noise",
        tuple(map(str, range(10))),
        (3, 32, 32),
        normalisation,
        test=split(slice(count, None)),
        train=split(slice(count)),
        val=split(slice(count, None)),
    )
    augmentation = partial(crop_and_flip, crop=4, flip=True)

    def ours() -> None:
        recipe = Recipe(epochs, batch, torch.optim.Adam, augmentation=augmentation)
        with tempfile.TemporaryDirectory() as folder:
            train(resnet8(10), data, recipe, Path(folder), hardware=Hardware(device), quiet=True)

    def bare_steps() -> None:
        on_device = pixels[:count].to(device), labels[:count].to(device)
        bare.training_steps(resnet8(10).to(device), *on_device, augmentation, epochs, batch)

    steps = epochs * -(-count // batch)
    rival = Rival(f"{steps} bare steps", bare_steps)
    yield Case("training_step", "resnet8", ours, {FLOOR: rival}, limits={FLOOR: 1.15})


def _scaling_batch(cfg: DictConfig, device: torch.device) -> _Cases:
    for architecture, model, images in _subjects(cfg, device, "slow_models"):
        for count in cfg.experiment.batches:
            some = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
            yield Case(
                f"neuron_mct, {architecture}",
                str(count),
                partial(cpath.find_pathway, model, some, "neuron_mct", _SPARSITY),
                {FLOOR: _pass_of(model, some)},
                "images",
            )


def _scaling_sites(cfg: DictConfig, device: torch.device) -> _Cases:
    """Networks of more and more equal layers."""
    for count in cfg.experiment.sites:
        torch.manual_seed(cfg.seed)
        layers = [part for _ in range(count) for part in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
        model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval().to(device)
        images = torch.randn(cfg.experiment.batch, 16, 32, 32).to(device)
        for method in (cpath.methods.NeuronMCT(), NeuronIntGrad(nodes=cfg.experiment.nodes)):
            yield Case(
                f"{method.name}, layers of 16 channels",
                str(count),
                partial(cpath.score, model, images, method),
                {FLOOR: _pass_of(model, images)},
                "sites",
            )


def _scaling_sparsities(cfg: DictConfig, device: torch.device) -> _Cases:
    for architecture, model, images in _subjects(cfg, device, "slow_models"):
        for count in cfg.experiment.sparsities:

            def work(model: nn.Module = model, images: Tensor = images, count: int = count) -> None:
                scores = cpath.score(model, images, "neuron_mct")
                for number in range(count):
                    scores.pathway(50 + 49 * number / count)

            yield Case(
                f"neuron_mct, {architecture}", str(count), work, {FLOOR: _pass_of(model, images)}, "sparsities"
            )


_CASES: dict[str, Callable[[DictConfig, torch.device], _Cases]] = {
    "threshold": _threshold,
    "neuron_mct": _of_method("neuron_mct", {"squeezenet1_0": 1.8, "vgg16": 1.3}),
    "greedy": _greedy,
    "dgr": _dgr,
    "random": _of_method("random"),
    "active": _of_method("active"),
    "neuron_intgrad": _intgrad(residual=False),
    "neuron_intgrad with residual": _intgrad(residual=True),
    "attributions": _attributions,
    "each attribution": _each_attribution,
    "degradation": _degradation,
    "training_step": _training_step,
    "scaling_batch": _scaling_batch,
    "scaling_sites": _scaling_sites,
    "scaling_sparsities": _scaling_sparsities,
}
