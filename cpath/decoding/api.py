"""Decoding: the image that maximises the response of a network or pathway. An adapter over Lucent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cpath.checks import check_count, check_seed, warn
from cpath.decoding.network import Network
from cpath.decoding.objectives import Objective, tasks_of
from cpath.decoding.render import render
from cpath.decoding.starts import Parametrisation, Start, seeded
from cpath.devices import making_tensors_on
from cpath.display import Shown
from cpath.errors import InputError
from cpath.pathway import Pathway
from cpath.sites import DEFAULT_SITES, differentiating

if TYPE_CHECKING:
    from cpath.data import Normalisation


@dataclass(frozen=True, eq=False, repr=False)
class Decoding(Shown):
    """Images that `decode` made. ``len(decoding)`` is their number.

    Attributes:
        images: Pixels (B, C, H, W) in [0, 1], on the CPU; NaN where ``no_gradient``.
        no_gradient: True (B,) where no gradient reached the image from any start, so that the optimisation could
            not begin.
        attempt: Number (B,) of the start that was taken: 0 for the usual one, higher for noisier ones.
    """

    images: Tensor
    no_gradient: Tensor
    attempt: Tensor

    def __len__(self) -> int:
        return len(self.images)


def decode(
    model: nn.Module,
    pathways: Pathway | Sequence[Pathway | None] | None,
    objectives: Objective | Sequence[Objective] | None = None,
    *,
    shape: tuple[int, int, int],
    normalisation: Normalisation | None = None,
    parametrisation: str | Parametrisation = "pixel",
    transforms: Sequence[Callable[[Tensor], Tensor]] = (),
    steps: int = 256,
    learning_rate: float = 0.05,
    tries: int = 8,
    size: int | None = None,
    seed: int = 0,
    sites: Iterable[str] = DEFAULT_SITES,
    max_batch: int = 16,
    on_step: Callable[[int, int], object] | None = None,
) -> Decoding:
    """Make the images to which restricted networks respond most: activation maximisation with Lucent.

    All images start from the same noise. If the objective of one has no gradient there, because all of its neurons
    are dead, other starts are tried, which for pixels and "fourier" are also stronger. Images are optimised by
    Adam, each objective scaled to a largest gradient of 1 at the start. A copy of the model is run, and the global
    random states are restored. An objective without a gradient gives no image: see `Decoding.no_gradient`; a
    warning says so.

    Args:
        model: The model that the pathways were found in.
        pathways: One image is made for every image of every pathway, and for every None, which stands for the
            unrestricted network.
        objectives: Quantities to maximise, one for all images or one for each; by default the logit of the
            pathway's target.
        shape: (C, H, W) of the images that the pathways belong to.
        normalisation: Normalisation between the pixels in [0, 1] and the model, if any.
        parametrisation: "pixel"; "pixel_uncorrelated" (as published), whose three colours are not correlated as
            those of natural images; "fourier"; "cppn" (for square images); or a function.
        transforms: Functions, of Lucent's or others, applied to the pixels (B, C, H, W). They must keep the size
            unless ``size`` is given; Lucent's default ones are `standard_transforms`.
        steps: Number of optimisation steps.
        learning_rate: Adam's learning rate.
        tries: Largest number of starts to try.
        size: Side of the square of pixels that is optimised; behind the transforms it is resized to ``shape``, as
            by Lucent (published: 128, resized to 224). None for pixels of the shape itself.
        seed: Seed of the noise, below 2³².
        sites: Names of the activation functions whose calls are sites, if no pathway tells.
        max_batch: Largest number of images optimised together. It does not change them, up to rounding.
        on_step: Called as ``on_step(done, total)`` after every step, with steps counted image by image.

    Returns:
        The images.

    Raises:
        MaskError: If a pathway belongs to another model or input size.
        InputError: If a setting is unusable.
        UnknownNameError: If an objective names an unknown site.
        MissingPackageError: If torch-lucent is not installed.

    Source: Khakzar et al. 2021, path decoding.

    Example:
        >>> pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=50)
        >>> decoding = cpath.decode(model, pathway, shape=(3, 8, 8), steps=4)  # the logits of its targets
        >>> decoding.images.shape
        torch.Size([2, 3, 8, 8])
        >>> channel = cpath.decoding.Channel("relu2", 3)
        >>> len(cpath.decode(model, [None, pathway[0]], channel, shape=(3, 8, 8), steps=4))
        2
    """
    steps, tries = check_count("steps", steps), check_count("tries", tries)
    max_batch = check_count("max_batch", max_batch)
    size = None if size is None else check_count("size", size)
    if not 0 < learning_rate < float("inf"):
        raise InputError(f"learning_rate must be a positive number, not {learning_rate}.")
    if check_seed(seed) >= 2**32:
        raise InputError(f"seed must be below 2³², not {seed}.")
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape must be (channels, height, width), not {tuple(shape)}.")
    tasks = tasks_of(pathways, objectives)
    with differentiating(), seeded(seed) as reseed:
        network = Network(model, tasks, sites, normalisation)
        with making_tensors_on(network.device):
            first_starts = []
            for task in tasks:
                reseed(0)
                first_starts.append(Start(parametrisation, shape, 0, size))
                network.check(task, first_starts[-1])
            starts = [network.start(task, s, tries, reseed) for task, s in zip(tasks, first_starts, strict=True)]
            alive = [row for row, start in enumerate(starts) if start.slope > 0]
            done = 0

            def count(images: int) -> None:
                nonlocal done
                done += images
                if on_step is not None:
                    on_step(done, steps * len(alive))

            for first in range(0, len(alive), max_batch):
                rows = alive[first : first + max_batch]
                reseed(0)
                render(
                    network,
                    [tasks[row] for row in rows],
                    [starts[row] for row in rows],
                    transforms,
                    steps,
                    learning_rate,
                    count,
                    resize=size is not None,
                )
            images = torch.cat([start.image() for start in starts]).detach().cpu().float()
    if not torch.isfinite(images).all():
        raise InputError("the optimisation diverged to NaN: lower the learning rate.")
    no_gradient = torch.tensor([start.unmoved() for start in starts], device="cpu")
    if no_gradient.any():
        images[no_gradient] = float("nan")
        warn(
            f"{int(no_gradient.sum())} of {len(no_gradient)} objectives have no gradient at any of {tries} start "
            "images, so no image was made for them: no neuron of the pathway leads to the objective, or all that "
            "do are dead there.",
            RuntimeWarning,
        )
    return Decoding(images, no_gradient, torch.tensor([start.attempt for start in starts], device="cpu"))
