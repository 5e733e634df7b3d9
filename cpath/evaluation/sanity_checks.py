"""Sanity checks: the dependence of an attribution on the weights that the network has learned.

Cascading randomisation draws the weights anew, block by block from the logits down to the input. An attribution
that shows what the network learned changes; one that shows the image (edges) does not.

Source: Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cpath.attribution.api import attribute, get
from cpath.attribution.base import Attribution
from cpath.attribution.response import ResponseProbe
from cpath.checks import check_count, check_seed, copied
from cpath.display import Shown
from cpath.errors import InputError, described, unknown_name
from cpath.evaluation.randomization import INITS, Blocks, find_blocks, redraw, resolve_blocks
from cpath.evaluation.similarity import MEASURES, Comparison, check_measures
from cpath.inputs import check_images
from cpath.methods.base import Method
from cpath.randomness import image_generators, seeded
from cpath.response import Target
from cpath.sites import DEFAULT_SITES, check_sites, evaluating, unwrap

Attributions = Iterable[str | Attribution | Method] | Mapping[str, str | Attribution | Method]


@dataclass(frozen=True, eq=False, repr=False)
class SanityCheck(Shown):
    """Effect of randomised weights on each attribution. Made by `sanity_check`.

    Attributes:
        similarity: Values (draws, blocks, B) by attribution and measure: the map of the network that is randomised
            down to a block, compared with the original map. NaN where a measure is undefined (a constant map).
        baseline: Values (draws, B) by attribution and measure: a random map, which has the original one's values in
            random places, compared with the original map. It tells the value that a measure takes by chance.
        blocks: Names of the blocks, from the logits to the input.
        target: Class (B,) that the original maps explain; None if the response is a function of the output.
    """

    similarity: dict[str, dict[str, np.ndarray]]
    baseline: dict[str, dict[str, np.ndarray]]
    blocks: tuple[str, ...]
    target: Tensor | None


def sanity_check(
    model: nn.Module,
    images: Tensor,
    attributions: Attributions,
    target: Target = None,
    *,
    blocks: Blocks | None = None,
    draws: int = 5,
    init: str = "normal",
    std: float = 0.1,
    repredict: bool = False,
    measures: Iterable[str] = tuple(MEASURES),
    sites: Iterable[str] = DEFAULT_SITES,
    max_batch: int = 64,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> SanityCheck:
    """Randomise a model from the logits to the input and compare the maps of every attribution.

    The randomised networks are copies: ``model`` itself is never changed.

    Args:
        model: A classifier that maps ``images`` to logits, see `cpath.response`.
        images: Floats (B, C, H, W) on the model's device, one batch for every randomised network.
        attributions: Names, attributions or methods, or a mapping of labels to them.
        target: Class that the maps explain: None for the class that the original network predicts, an int, or
            ints (B,). Or a function of the model's output that returns floats (B,).
        blocks: Names of modules or parameters from the logits to the input, or lists of them by a block's name;
            None for those of `find_blocks`.
        draws: Number of times that the weights are drawn. A single draw is one observation of what randomising
            does; `cpath.analysis.crossed_mean` gives intervals over draws and images.
        init: "normal" or "own", as for `redraw`.
        std: Standard deviation of "normal".
        repredict: Let each randomised network explain the class that it predicts itself.
        measures: Names of measures in `cpath.evaluation.MEASURES`.
        sites: Names of the activation functions whose calls are sites.
        max_batch: Largest number of images in one forward pass, counting repetitions.
        seed: Seed of weights and random maps.
        on_step: Called as ``on_step(done, total)`` after each map of the whole batch.

    Returns:
        Similarities with the original maps, and those of random maps.

    Raises:
        InputError: If an argument is unusable, the model cannot be copied, or a randomised network's logits or
            gradients overflow.
        UnknownNameError: If an attribution, a measure or ``init`` is unknown.

    Source: Adebayo et al., NeurIPS 2018.

    Example:
        >>> found = cpath.evaluation.sanity_check(
        ...     model, images, ["gradients", "sobel"], draws=2, measures=["spearman"]
        ... )
        >>> found.blocks, found.similarity["gradients"]["spearman"].shape
        (('fc', 'conv2', 'conv1'), (2, 3, 2))
        >>> found.similarity["sobel"]["spearman"].min().item()  # edges know nothing of the network
        1.0
    """
    draws, seed, max_batch = check_count("draws", draws), check_seed(seed), check_count("max_batch", max_batch)
    if not std > 0:
        raise InputError(f"std must be above 0, not {std}.")
    if init not in INITS:
        raise unknown_name("init", init, INITS)
    if repredict and target is not None:
        raise InputError("repredict explains the class that each network predicts: leave out the target.")
    measures = check_measures(tuple(measures))
    sites = check_sites(sites)
    explained = _by_label(attributions)
    model = unwrap(model)
    images = check_images(model, images).detach()
    cascade = find_blocks(model, images) if blocks is None else resolve_blocks(model, blocks)
    labels = _labels(model, images, target, max_batch)
    explain = target if labels is None else labels
    run = _Run(images, explained, sites, max_batch, on_step, len(explained) * (1 + draws * len(cascade)))

    originals = dict(run.maps(model, explain))
    comparisons = {label: Comparison(original, measures) for label, original in originals.items()}
    similarity = _table(explained, measures, (draws, len(cascade), len(images)))
    baseline = _table(explained, measures, (draws, len(images)))
    for draw in range(draws):
        for label, original in originals.items():
            for measure, values in comparisons[label].to(_shuffled(original, images, seed, draw)).items():
                baseline[label][measure][draw] = values
        for depth, (_, network) in enumerate(randomise(model, cascade, init, std, seed=seed, draw=draw)):
            for label, found in run.maps(network, None if repredict else explain):
                for measure, values in comparisons[label].to(found).items():
                    similarity[label][measure][draw, depth] = values
    return SanityCheck(similarity, baseline, tuple(cascade), labels)


def randomise(
    model: nn.Module, blocks: Blocks, init: str = "normal", std: float = 0.1, *, seed: int = 0, draw: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Randomise a copy of a model from the logits down, one block at a time, as `sanity_check` does.

    Args:
        model: The model, which is not changed.
        blocks: Names of modules or parameters from the logits to the input, or lists of them by a block's name.
        init: "normal" or "own", as for `redraw`.
        std: Standard deviation of "normal".
        seed: Seed of the weights.
        draw: Number of the draw, from 0.

    Returns:
        Iterator over the name of each block and the network randomised down to it. It is one copy of ``model`` all
        the while, changed further from step to step.

    Raises:
        InputError: If a block has no parameter, or the model cannot be copied.

    Example:
        >>> for block, network in cpath.evaluation.randomise(model, ["fc", "conv2"]):
        ...     print(block, torch.equal(network.conv2.weight, model.conv2.weight))
        fc True
        conv2 False
    """
    cascade = resolve_blocks(model, blocks)
    network = copied(unwrap(model), "randomising it")
    generator = seeded((seed * 0x9E3779B1 + draw) % 2**63)
    for block, parameters in cascade.items():
        redraw(network, parameters, generator, init, std)
        yield block, network


@dataclass
class _Run:
    """State that stays the same from network to network, and the progress of the work."""

    images: Tensor
    explained: Mapping[str, str | Attribution | Method]
    sites: tuple[str, ...]
    max_batch: int
    on_step: Callable[[int, int], None] | None
    total: int
    done: int = 0

    def maps(self, network: nn.Module, target: Target) -> Iterator[tuple[str, Tensor]]:
        """Compute the maps (B, C or 1, H, W) of the whole batch for each label.

        Args:
            network: The network.
            target: Class to explain.

        Returns:
            Iterator over labels and maps.
        """
        for label, method in self.explained.items():
            yield (
                label,
                attribute(
                    network,
                    self.images,
                    method,
                    target,
                    sites=self.sites,
                    max_batch=self.max_batch,
                ),
            )
            self.done += 1
            if self.on_step is not None:
                self.on_step(self.done, self.total)


def _table(
    labels: Iterable[str], measures: Iterable[str], shape: tuple[int, ...]
) -> dict[str, dict[str, np.ndarray]]:
    return {label: {measure: np.full(shape, np.nan) for measure in measures} for label in labels}


def _by_label(attributions: Attributions) -> dict[str, str | Attribution | Method]:
    if isinstance(attributions, Mapping):
        labelled = dict(attributions)
    else:
        given = [attributions] if isinstance(attributions, (str, Attribution, Method)) else _listed(attributions)
        names = [one if isinstance(one, str) else one.name for one in given]
        labelled = dict(zip(names, given, strict=True))
        if len(labelled) < len(given):
            raise InputError("two attributions have the same name: pass a mapping of labels to attributions.")
    if not labelled:
        raise InputError("attributions is empty: name at least one.")
    for one in labelled.values():
        _check_attribution(one)
        if isinstance(one, str):
            get(one)  # raises for an unknown name now, not after the first attributions have run
    return labelled


def _listed(attributions: object) -> list[str | Attribution | Method]:
    if not isinstance(attributions, Iterable) or isinstance(attributions, Tensor | nn.Module):
        raise InputError(
            f"attributions must be names or attributions, several of them, not {described(attributions)}."
        )
    return [_check_attribution(one) for one in attributions]


def _check_attribution(one: object) -> str | Attribution | Method:
    if not isinstance(one, (str, Attribution, Method)):
        raise InputError(f"an attribution must be a name, an Attribution or a Method, not {described(one)}.")
    return one


def _labels(model: nn.Module, images: Tensor, target: Target, max_batch: int) -> Tensor | None:
    """Find the class that is explained (B,); None if the target is a function."""
    with evaluating(model), torch.no_grad():
        whole = ResponseProbe(model, images, target, sites=())
        parts = [whole.part(slice(start, start + max_batch)) for start in range(0, len(whole), max_batch)]
        classes = [part.target for part in parts]
    known = [one for one in classes if one is not None]
    return torch.cat(known) if known else None


def _shuffled(attribution: Tensor, images: Tensor, seed: int, draw: int) -> Tensor:
    """Put the attribution's pixels in random places, drawn per image."""
    height, width = attribution.shape[2:]
    generators = image_generators(images, seed * 1_000_003 + draw, "shuffled map")
    orders = torch.stack(
        [torch.randperm(height * width, generator=generator, device="cpu") for generator in generators]
    )
    pixels = attribution.flatten(2)
    return pixels.gather(2, orders.to(pixels.device).unsqueeze(1).expand_as(pixels)).view_as(attribution)
