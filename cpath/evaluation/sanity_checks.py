"""Sanity checks: whether an attribution depends on what the network has learned.

Cascading randomisation (Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018): from the logits down to
the input, block by block, the weights are drawn anew. An attribution that shows what the network learned changes;
one that shows the image (edges) does not.
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
from cpath.errors import InputError, unknown_name
from cpath.evaluation.randomization import INITS, Blocks, find_blocks, redraw, resolve_blocks
from cpath.evaluation.similarity import MEASURES, Comparison, check_measures
from cpath.methods.base import Method
from cpath.probe import Target, check_images
from cpath.randomness import image_generators
from cpath.sites import DEFAULT_ACTIVATIONS, check_activations, evaluating, unwrap

Attributions = Iterable[str | Attribution | Method] | Mapping[str, str | Attribution | Method]


@dataclass(frozen=True, eq=False)
class SanityCheck:
    """What randomisation did to each attribution. Made by `sanity_check`."""

    similarity: dict[str, dict[str, np.ndarray]]
    """(draws, blocks, B) by attribution and measure: the map of the network that is randomised down to a block
    compared with the original map. NaN where a measure is undefined (a constant map)."""
    baseline: dict[str, dict[str, np.ndarray]]
    """(draws, B) by attribution and measure: a random map, the original one's values in random places,
    compared with the original map. What similarity is worth without any."""
    blocks: tuple[str, ...]
    """From the logits to the input."""
    target: Tensor
    """(B,) class that the original maps explain."""


def sanity_check(
    model: nn.Module,
    images: Tensor,
    attributions: Attributions,
    target: Target = None,
    *,
    blocks: Blocks | None = None,
    draws: int = 3,
    init: str = "normal",
    std: float = 0.1,
    repredict: bool = False,
    measures: Iterable[str] = tuple(MEASURES),
    activations: Iterable[str] = DEFAULT_ACTIVATIONS,
    max_batch: int = 64,
    seed: int = 0,
    on_step: Callable[[int, int], None] | None = None,
) -> SanityCheck:
    """Randomises ``model`` cascading from the logits to the input and compares every attribution's maps.

    ``attributions`` names, `Attribution`s or methods, or a mapping of labels to them; ``images`` (B, C, H, W) are
    one batch for every randomised network, ``max_batch`` at a time. ``blocks`` as `find_blocks` finds them, or
    named from the logits to the input; each of the ``draws`` draws new weights by ``init`` and ``std`` (see
    `cpath.evaluation.redraw`). The maps explain ``target``, by default the class that the original network
    predicts; with ``repredict`` each randomised network explains the class it predicts itself. ``measures`` as in
    `cpath.evaluation.MEASURES`. ``on_step(done, total)`` is called after each map of the whole batch.

    The randomised networks are copies: ``model`` itself is never changed. Raises `InputError` where it cannot be
    copied, for unusable arguments, and where a randomised network's logits or gradients overflow.
    """
    draws, seed, max_batch = check_count("draws", draws), check_seed(seed), check_count("max_batch", max_batch)
    if not std > 0:
        raise InputError(f"std must be above 0, not {std}.")
    if init not in INITS:
        raise unknown_name("init", init, INITS)
    if repredict and target is not None:
        raise InputError("repredict explains the class that each network predicts: leave out the target.")
    measures = check_measures(tuple(measures))
    activations = check_activations(activations)
    explained = _by_label(attributions)
    model = unwrap(model)
    images = check_images(model, images).detach()
    cascade = find_blocks(model, images) if blocks is None else resolve_blocks(model, blocks)
    labels = _labels(model, images, target, max_batch)
    run = _Run(images, explained, activations, max_batch, on_step, len(explained) * (1 + draws * len(cascade)))

    originals = dict(run.maps(model, labels))
    comparisons = {label: Comparison(original, measures) for label, original in originals.items()}
    similarity = _table(explained, measures, (draws, len(cascade), len(images)))
    baseline = _table(explained, measures, (draws, len(images)))
    for draw in range(draws):
        for label, original in originals.items():
            for measure, values in comparisons[label].to(_shuffled(original, images, seed, draw)).items():
                baseline[label][measure][draw] = values
        for depth, (_, network) in enumerate(randomise(model, cascade, init, std, seed=seed, draw=draw)):
            for label, found in run.maps(network, None if repredict else labels):
                for measure, values in comparisons[label].to(found).items():
                    similarity[label][measure][draw, depth] = values
    return SanityCheck(similarity, baseline, tuple(cascade), labels)


def randomise(
    model: nn.Module, blocks: Blocks, init: str = "normal", std: float = 0.1, *, seed: int = 0, draw: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Each block's name with ``model`` randomised from the logits down to it, as `sanity_check` does.

    It is one copy of ``model`` all the while, changed further from step to step. Arguments as for `sanity_check`,
    ``draw`` counted from 0.
    """
    cascade = resolve_blocks(model, blocks)
    network = copied(unwrap(model), "randomising it")
    generator = torch.Generator().manual_seed((seed * 0x9E3779B1 + draw) % 2**63)
    for block, parameters in cascade.items():
        redraw(network, parameters, generator, init, std)
        yield block, network


@dataclass
class _Run:
    """What stays the same from network to network, and how far the work is."""

    images: Tensor
    explained: Mapping[str, str | Attribution | Method]
    activations: tuple[str, ...]
    max_batch: int
    on_step: Callable[[int, int], None] | None
    total: int
    done: int = 0

    def maps(self, network: nn.Module, target: Target) -> Iterator[tuple[str, Tensor]]:
        """Each label with its maps (B, C or 1, H, W) of the whole batch."""
        for label, method in self.explained.items():
            yield (
                label,
                attribute(
                    network,
                    self.images,
                    method,
                    target,
                    activations=self.activations,
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
        given = [attributions] if isinstance(attributions, (str, Attribution, Method)) else list(attributions)
        names = [one if isinstance(one, str) else one.name for one in given]
        labelled = dict(zip(names, given, strict=True))
        if len(labelled) < len(given):
            raise InputError("two attributions have the same name: pass a mapping of labels to attributions.")
    if not labelled:
        raise InputError("attributions is empty: name at least one.")
    for one in labelled.values():
        if isinstance(one, str):
            get(one)  # raises for an unknown name now rather than after the first ones have run
    return labelled


def _labels(model: nn.Module, images: Tensor, target: Target, max_batch: int) -> Tensor:
    with evaluating(model), torch.no_grad():
        whole = ResponseProbe(model, images, target)
        parts = [whole.part(slice(start, start + max_batch)) for start in range(0, len(whole), max_batch)]
        return torch.cat([part.target for part in parts])


def _shuffled(attribution: Tensor, images: Tensor, seed: int, draw: int) -> Tensor:
    """The attribution's pixels in random places, drawn per image."""
    height, width = attribution.shape[2:]
    generators = image_generators(images, seed * 1_000_003 + draw, "shuffled map")
    orders = torch.stack([torch.randperm(height * width, generator=generator) for generator in generators])
    pixels = attribution.flatten(2)
    return pixels.gather(2, orders.to(pixels.device).unsqueeze(1).expand_as(pixels)).view_as(attribution)
