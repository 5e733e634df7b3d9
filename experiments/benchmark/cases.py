"""Cases of the benchmark: work of cpath, what it is compared with, and the ratios that it is meant to keep to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import cpath
from cpath.data import ImageData, Normalisation, TensorSplit, crop_and_flip
from cpath.evaluation import KEEP, PERCENT, degrade
from cpath.methods import DGR, Greedy, LearnedRanking, NeuronIntGrad
from cpath.models import ResNet, resnet8_narrow, torchvision_model
from cpath.optional import optional
from cpath.threshold import keep_above
from experiments.benchmark import rivals
from experiments.benchmark.sizes import Sizes
from experiments.benchmark.timing import CAPTUM, FLOOR, NAIVE, Case, Rival, Work

_SPARSITY = 90.0
_PASS = "forward and input-only backward"


@dataclass(frozen=True)
class Setup:
    """Settings, seed and device with which the cases are measured."""

    settings: Sizes
    """Settings of the benchmark."""
    seed: int
    """Seed of random weights and images."""
    device: torch.device
    """Device that everything runs on."""

    def subjects(self, models: Sequence[str]) -> Iterator[tuple[str, nn.Module, Tensor]]:
        """Make networks with random weights, each with a batch of noise.

        Args:
            models: names of torchvision models with 1000 classes.

        Returns:
            Name, network in eval mode, and (batch, 3, size, size) images in turn, on the device.
        """
        for name in models:
            torch.manual_seed(self.seed)
            model = torchvision_model(name, 1000).eval().to(self.device)
            images = torch.randn(self.settings.batch, 3, self.settings.size, self.settings.size)
            yield name, model, images.to(self.device)


Cases = Callable[[Setup], Iterator[Case]]
"""Makes the cases of one name."""


def _threshold(setup: Setup) -> Iterator[Case]:
    generator = torch.Generator().manual_seed(setup.seed)
    shape = tuple(setup.settings.threshold)
    # Half of the neurons dead, the rest spread over magnitudes, as contributions are.
    scores = torch.randn(shape, generator=generator) * torch.randn(shape, generator=generator)
    scores = torch.where(torch.rand(shape, generator=generator) < 0.5, 0.0, scores.abs()).to(setup.device)
    rival = Rival("one comparison", partial(torch.gt, scores, 0.5))
    at = f"{shape[0]} × {shape[1] / 1e6:g} million"
    yield Case("threshold", at, partial(keep_above, scores, _SPARSITY), {FLOOR: rival}, "scores", limits={FLOOR: 4})


def _pass_of(model: nn.Module, images: Tensor) -> Rival:
    return Rival(_PASS, partial(rivals.forward_backward, model, images))


def _of_method(name: str, limits: dict[str, float] | None = None) -> Cases:
    """A pathway by a method whose passes are those of one bare one, or none."""

    def cases(setup: Setup) -> Iterator[Case]:
        for architecture, model, images in setup.subjects(setup.settings.models):
            limit = (limits or {}).get(architecture)
            compared = {FLOOR: _pass_of(model, images)}
            if name == "neuron_mct":
                compared[NAIVE] = Rival("hooks and kthvalue", partial(rivals.naive_mct, model, images, _SPARSITY))
            yield Case(
                name,
                architecture,
                partial(cpath.find_pathway, model, images, name, _SPARSITY),
                compared,
                limits={} if limit is None else {FLOOR: limit},
            )

    return cases


def _count_batches(model: nn.Module, images: Tensor, labels: Tensor, batches: int, *, counting: bool) -> None:
    """Find the pathways of several batches, and count them or not."""
    counter = cpath.PathwayCounter(classes=int(labels.max()) + 1)
    for _ in range(batches):
        pathway = cpath.find_pathway(model, images, "neuron_mct", _SPARSITY)
        if counting:
            counter.update(pathway, labels)


def _classes(setup: Setup) -> Iterator[Case]:
    """A ResNet-20 for images of 32×32, whose pathways are found with and without being counted."""
    images, batches, classes = setup.settings.classes
    torch.manual_seed(setup.seed)
    model = ResNet(blocks=3, classes=classes).eval().to(setup.device)
    batch = torch.randn(images, 3, 32, 32).to(setup.device)
    work = partial(_count_batches, model, batch, torch.arange(images) % classes, batches)
    rival = Rival("neuron_mct without counting", partial(work, counting=False))
    yield Case("pathways of classes", "resnet20", partial(work, counting=True), {FLOOR: rival}, limits={FLOOR: 1.1})


def _greedy(setup: Setup) -> Iterator[Case]:
    rounds = setup.settings.greedy_rounds
    for architecture, model, images in setup.subjects(setup.settings.models):
        find = partial(cpath.find_pathway, model, images)
        rival = Rival(
            f"neuron_mct, {rounds} times", partial(rivals.repeated, rounds, find, "neuron_mct", _SPARSITY)
        )
        ours = partial(find, Greedy(rounds=rounds), _SPARSITY)
        yield Case("greedy", architecture, ours, {FLOOR: rival}, limits={FLOOR: 1.15})


def _dgr(setup: Setup) -> Iterator[Case]:
    """Iterations alone: a routing of one iteration is taken off."""
    iterations, limits = setup.settings.dgr_iterations, {"squeezenet1_0": 1.6, "vgg16": 1.3}
    for architecture, model, images in setup.subjects(setup.settings.models):
        rival = Rival(
            f"gated forward and gate-only backward, {iterations} times",
            partial(rivals.repeated, iterations, rivals.gated_forward_backward, model, images),
        )
        yield Case(
            "dgr",
            architecture,
            partial(cpath.score, model, images, DGR(iterations=iterations + 1, retries=0)),
            {FLOOR: rival},
            start=partial(cpath.score, model, images, DGR(iterations=1, retries=0)),
            limits={FLOOR: limits[architecture]} if architecture in limits else {},
        )


def _learned(setup: Setup) -> Iterator[Case]:
    """Steps alone: a ranking without a step, which is that of `NeuronIntGrad`, is taken off."""
    steps = setup.settings.learned_steps
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        rival = Rival(
            f"{_PASS}, {steps} times", partial(rivals.repeated, steps, rivals.forward_backward, model, images)
        )
        ours = partial(cpath.score, model, images)
        yield Case(
            "learned_ranking",
            architecture,
            partial(ours, LearnedRanking(steps=steps, nodes=1)),
            {FLOOR: rival},
            start=partial(ours, LearnedRanking(steps=0, nodes=1)),
            limits={FLOOR: 2.5},  # gates and Adam's state: as many numbers as there are neurons, several times each
        )


def _faithfulness(setup: Setup) -> Iterator[Case]:
    passes = 2 * len(KEEP) + 2
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        scores = cpath.score(model, images, "neuron_mct")
        rival = Rival(f"{passes} forward passes", partial(rivals.forward_passes, model, images, passes))
        ours = partial(cpath.faithfulness, model, images, scores)
        yield Case("faithfulness", architecture, ours, {FLOOR: rival}, limits={FLOOR: 1.15})


def _intgrad(*, residual: bool) -> Cases:
    # Captum gives the scores alone; ours may come with their residual, which costs one more forward pass of a site.
    limit = 1 / 2.6 if residual else 0.5

    def cases(setup: Setup) -> Iterator[Case]:
        nodes = setup.settings.nodes
        for architecture, model, images in setup.subjects(setup.settings.slow_models):
            compared = {CAPTUM: _captum_layers(model, images, nodes)}
            if not residual:
                compared[NAIVE] = Rival(
                    "a pass for every site and node",
                    partial(rivals.naive_intgrad, model, images[0], nodes),
                    times=len(images),
                )
            yield Case(
                "neuron_intgrad with residual" if residual else "neuron_intgrad",
                architecture,
                partial(cpath.score, model, images, NeuronIntGrad(nodes=nodes, residual=residual)),
                compared,
                limits={CAPTUM: limit} if architecture == "squeezenet1_0" else {},
            )

    return cases


def _captum_layers(model: nn.Module, images: Tensor, nodes: int) -> Rival:
    work = partial(rivals.captum_layers, model, images, nodes)
    return Rival(f"Captum LayerIntegratedGradients, {nodes} steps", work)


def _intgrad_of_one(setup: Setup) -> Iterator[Case]:
    nodes = setup.settings.nodes
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        yield Case(
            "neuron_intgrad with residual, one image",
            architecture,
            partial(cpath.score, model, images[:1], NeuronIntGrad(nodes=nodes)),
            {CAPTUM: _captum_layers(model, images[:1], nodes)},
            limits={CAPTUM: 1 / 2.2} if architecture == "squeezenet1_0" else {},
        )


def _tolerance(setup: Setup) -> Iterator[Case]:
    """One image; the tolerance is the largest residual that the fixed rule leaves at a site."""
    fixed = NeuronIntGrad(nodes=setup.settings.nodes)
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        residual = cpath.score(model, images[:1], fixed).residual or {}
        left = torch.cat(list(residual.values()))
        refined = NeuronIntGrad(tolerance=float(left[left.isfinite()].max()))
        yield Case(
            "neuron_intgrad to a tolerance",
            architecture,
            partial(cpath.score, model, images[:1], refined),
            {FLOOR: Rival(f"{fixed.nodes} nodes at every site", partial(cpath.score, model, images[:1], fixed))},
            limits={FLOOR: 1},
        )


def _intgrad_of_text(setup: Setup) -> Iterator[Case]:
    """An encoder of the size of BERT-base, if it has as many layers, with random weights."""
    transformers = optional("transformers", "transformers", "the case 'neuron_intgrad of text'")
    (count, tokens, layers), nodes = setup.settings.texts, setup.settings.nodes
    torch.manual_seed(setup.seed)
    config = transformers.BertConfig(num_hidden_layers=layers, num_labels=10)
    model = transformers.BertForSequenceClassification(config).eval().to(setup.device)
    words = torch.randint(config.vocab_size, (count, tokens)).to(setup.device)
    texts = {"input_ids": words, "attention_mask": torch.ones_like(words)}
    first = {name: values[:1] for name, values in texts.items()}
    naive = partial(rivals.naive_intgrad_of_text, model, first, nodes)
    yield Case(
        "neuron_intgrad of text",
        f"BERT, {layers} layers",
        partial(cpath.score, model, texts, NeuronIntGrad(nodes=nodes, residual=False), sites="gelu"),
        {NAIVE: Rival("a pass for every site and node", naive, times=count)},
        limits={NAIVE: 0.6},
    )


def _channels(setup: Setup) -> Iterator[Case]:
    methods = {
        "neuron_mct": cpath.methods.NeuronMCT(),
        "greedy": Greedy(rounds=setup.settings.greedy_rounds),
        "dgr": DGR(iterations=setup.settings.dgr_iterations, retries=0),
    }
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        for name, method in methods.items():
            find = partial(cpath.find_pathway, model, images, method, _SPARSITY)
            rival = Rival(f"{name} of neurons", find)
            yield Case(
                f"{name} of channels",
                architecture,
                partial(find, unit="channel"),
                {FLOOR: rival},
                limits={FLOOR: 1},
            )


def _heads(setup: Setup) -> Iterator[Case]:
    name, size = setup.settings.transformer, setup.settings.size
    torch.manual_seed(setup.seed)
    model = torchvision_model(name, 1000, image_size=size).eval().to(setup.device)
    images = torch.randn(setup.settings.batch, 3, size, size).to(setup.device)
    yield Case(
        "neuron_mct of heads",
        name,
        partial(cpath.score, model, images, "neuron_mct", sites="attention", unit="head"),
        {FLOOR: _pass_of(model, images)},
        limits={FLOOR: 1.3},
    )


def _one_by_one(works: Sequence[Work]) -> None:
    for work in works:
        work()


_PATHWAY_GRADIENTS = ("neuron_mct", "neuron_intgrad")


def _attributions(setup: Setup) -> Iterator[Case]:
    """The paper's seven together; Captum has five of them."""
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        captum = rivals.captum_attributions(model, images)
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


def _each_attribution(setup: Setup) -> Iterator[Case]:
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        for name, work in rivals.captum_attributions(model, images).items():
            ours = partial(cpath.attribute, model, images, name)
            yield Case(name, architecture, ours, {CAPTUM: Rival(f"Captum, {name}", work)})


def _degradation(setup: Setup) -> Iterator[Case]:
    passes = len(PERCENT) + 1
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        maps = torch.randn(len(images), 1, *images.shape[2:]).to(setup.device)
        rival = Rival(f"{passes} forward passes", partial(rivals.forward_passes, model, images, passes))
        ours = partial(degrade, model, images, maps)
        # A ratio of 1.25: at least 80 % of the time is spent in forward passes.
        yield Case("degradation", architecture, ours, {FLOOR: rival}, limits={FLOOR: 1.25})


def _noise_data(images: int, held_out: int, seed: int) -> ImageData:
    """Noise of 32×32 pixels in bytes, to train on and, as many as are held out, to validate on."""
    count, draws = images + held_out, torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draws)
    labels, normalisation = torch.randint(0, 10, (count,), generator=draws), Normalisation((0.5,) * 3, (0.25,) * 3)

    def split(where: slice) -> TensorSplit:
        rows = range(count)[where]
        return TensorSplit(pixels[where], labels[where], [str(row) for row in rows], normalisation)

    train, val = split(slice(images)), split(slice(images, None))
    classes = tuple(map(str, range(10)))
    return ImageData("noise", classes, (3, 32, 32), normalisation, test=val, train=train, val=val)


_AUGMENTATION = partial(crop_and_flip, crop=4, flip=True)


def _training_step(setup: Setup) -> Iterator[Case]:
    """Whole epochs of a training that validates and writes checkpoints, against bare steps alone."""
    from cpath.training import Hardware, Recipe, train

    count, batch, epochs = setup.settings.training
    data = _noise_data(count, batch, setup.seed)
    assert isinstance(data.train, TensorSplit)
    pixels, labels = data.train.pixels, data.train.labels

    def ours() -> None:
        recipe = Recipe(epochs, batch, torch.optim.Adam, augmentation=_AUGMENTATION)
        with tempfile.TemporaryDirectory() as folder:
            train(resnet8_narrow(10), data, recipe, Path(folder), hardware=Hardware(setup.device), quiet=True)

    def bare_steps() -> None:
        on_device = pixels.to(setup.device), labels.to(setup.device)
        rivals.training_steps(resnet8_narrow(10).to(setup.device), *on_device, _AUGMENTATION, epochs, batch)

    steps = epochs * -(-count // batch)
    rival = Rival(f"{steps} bare steps", bare_steps)
    yield Case("training_step", "resnet8_narrow", ours, {FLOOR: rival}, limits={FLOOR: 1.15})


_CELLS = 4


def _stacked_cells(setup: Setup) -> Iterator[Case]:
    """Networks that are trained at once, against one after the other; each has a quarter of the images."""
    from cpath.stacked import Member, train_stacked
    from cpath.training import Hardware, Recipe, train

    count, batch, epochs = setup.settings.training
    data = [_noise_data(-(-count // _CELLS), batch, setup.seed + cell) for cell in range(_CELLS)]
    recipe = Recipe(epochs, batch, torch.optim.Adam, augmentation=_AUGMENTATION)
    hardware = Hardware(setup.device)

    def at_once() -> None:
        members = [Member(resnet8_narrow(10), its, seed) for seed, its in enumerate(data)]
        with tempfile.TemporaryDirectory() as folder:
            train_stacked(members, recipe, Path(folder) / "all.ckpt", hardware=hardware, quiet=True)

    def in_turn() -> None:
        for seed, its in enumerate(data):
            with tempfile.TemporaryDirectory() as folder:
                train(resnet8_narrow(10), its, recipe, Path(folder), seed=seed, hardware=hardware, quiet=True)

    yield Case("stacked_cells", "resnet8_narrow", at_once, {FLOOR: Rival(f"{_CELLS} cells in turn", in_turn)})


def _scaling_batch(setup: Setup) -> Iterator[Case]:
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        for count in setup.settings.batches:
            some = images.repeat(-(-count // len(images)), 1, 1, 1)[:count]
            yield Case(
                f"neuron_mct, {architecture}",
                str(count),
                partial(cpath.find_pathway, model, some, "neuron_mct", _SPARSITY),
                {FLOOR: _pass_of(model, some)},
                "images",
            )


def _scaling_sites(setup: Setup) -> Iterator[Case]:
    """Networks of more and more equal layers."""
    for count in setup.settings.sites:
        torch.manual_seed(setup.seed)
        layers = [part for _ in range(count) for part in (nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())]
        model = (
            nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval().to(setup.device)
        )
        images = torch.randn(setup.settings.batch, 16, 32, 32).to(setup.device)
        for method in (cpath.methods.NeuronMCT(), NeuronIntGrad(nodes=setup.settings.nodes)):
            yield Case(
                f"{method.name}, layers of 16 channels",
                str(count),
                partial(cpath.score, model, images, method),
                {FLOOR: _pass_of(model, images)},
                "sites",
            )


def _scaling_pathways(setup: Setup) -> Iterator[Case]:
    for architecture, model, images in setup.subjects(setup.settings.slow_models):
        for count in setup.settings.pathways:

            def work(model: nn.Module = model, images: Tensor = images, count: int = count) -> None:
                scores = cpath.score(model, images, "neuron_mct")
                for number in range(count):
                    scores.pathway(50 + 49 * number / count)

            yield Case(
                f"neuron_mct, {architecture}", str(count), work, {FLOOR: _pass_of(model, images)}, "pathways"
            )


CASES: dict[str, Cases] = {
    "threshold": _threshold,
    "neuron_mct": _of_method("neuron_mct", {"squeezenet1_0": 1.8, "vgg16": 1.3}),
    "classes": _classes,
    "greedy": _greedy,
    "dgr": _dgr,
    "learned_ranking": _learned,
    "random": _of_method("random"),
    "active": _of_method("active"),
    "neuron_intgrad": _intgrad(residual=False),
    "neuron_intgrad with residual": _intgrad(residual=True),
    "neuron_intgrad of one image": _intgrad_of_one,
    "neuron_intgrad to a tolerance": _tolerance,
    "neuron_intgrad of text": _intgrad_of_text,
    "channels": _channels,
    "heads": _heads,
    "attributions": _attributions,
    "each attribution": _each_attribution,
    "faithfulness": _faithfulness,
    "degradation": _degradation,
    "training_step": _training_step,
    "stacked_cells": _stacked_cells,
    "scaling_batch": _scaling_batch,
    "scaling_sites": _scaling_sites,
    "scaling_pathways": _scaling_pathways,
}

NEEDS: dict[str, str] = {"neuron_intgrad of text": "transformers"}
"""Packages that cases need beside those of the experiments; without them these cases are left out."""
