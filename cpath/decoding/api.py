"""Decoding: the image that makes a network, or one of its pathways, respond most. An adapter over Lucent."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cpath.checks import check_count, check_seed
from cpath.decoding.network import Network
from cpath.decoding.objectives import Objective, tasks_of
from cpath.decoding.render import render
from cpath.decoding.starts import Parametrisation, Start, seeded
from cpath.errors import InputError
from cpath.pathway import Pathway
from cpath.sites import DEFAULT_ACTIVATIONS, differentiating

if TYPE_CHECKING:
    from cpath.data import Normalisation


@dataclass(frozen=True, eq=False)
class Decoding:
    """The images that `decode` made."""

    images: Tensor
    """(B, C, H, W) pixels in [0, 1], on the CPU; NaN where ``no_gradient``."""
    no_gradient: Tensor
    """(B,) bool: no gradient reached the image, at whatever start, so that the optimisation could not begin."""
    attempt: Tensor
    """(B,) which start was taken: 0 the usual one, others are noisier."""

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
    seed: int = 0,
    activations: Iterable[str] = DEFAULT_ACTIVATIONS,
    max_batch: int = 16,
    on_step: Callable[[int, int], object] | None = None,
) -> Decoding:
    """The images for which the restricted networks respond most: activation maximisation with Lucent.

    >>> cpath.decode(model, pathway, shape=(3, 224, 224), normalisation=data.normalisation)       # its class
    >>> cpath.decode(model, [None, pathway], Channel("features.29", 7), shape=(3, 224, 224))

    ``pathways``: one image is made for every image of every pathway, and for None, the unrestricted network.
    ``objectives``: what to maximise, one for all or one for each; default: the logit of the pathway's target.
    ``shape``: (C, H, W) of the images that the pathways belong to. ``normalisation`` comes between the pixels in
    [0, 1] and the model. ``parametrisation``: pixel (as published), fourier or cppn (for square images), or a
    function. ``transforms``: of Lucent's or others, applied to the pixels (B, C, H, W); they must keep the size.
    ``activations`` counts where no pathway tells. All images start from the same noise, drawn by ``seed``; one
    whose objective has no gradient there, all of its neurons being dead, tries others, up to ``tries`` of them,
    which for pixel and fourier are also stronger. They are optimised by Adam, each objective scaled to a largest
    gradient of 1 at the start, at most ``max_batch`` together, which does not change them up to rounding.
    ``on_step(done, total)`` is called after every step, with steps counted image by image.

    The model itself is not run but a copy of it, and the global random states are restored. An objective
    without a gradient gives no image: see `Decoding.no_gradient`; a warning says so. Raises `MaskError` for a
    pathway of another model or input size, `InputError` for unusable settings, `UnknownNameError` for an unknown
    site, `MissingPackageError` without torch-lucent.
    """
    steps, tries = check_count("steps", steps), check_count("tries", tries)
    max_batch = check_count("max_batch", max_batch)
    if not 0 < learning_rate < float("inf"):
        raise InputError(f"learning_rate must be a positive number, not {learning_rate}.")
    if check_seed(seed) >= 2**32:
        raise InputError(f"seed must be below 2³², not {seed}.")
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape must be (channels, height, width), not {tuple(shape)}.")
    tasks = tasks_of(pathways, objectives)
    with differentiating(), seeded(seed) as reseed:
        network = Network(model, tasks, activations, normalisation)
        first_starts = []
        for task in tasks:
            reseed(0)
            first_starts.append(Start(parametrisation, shape, 0))
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
            )
        images = torch.cat([start.image() for start in starts]).detach().cpu().float()
    if not torch.isfinite(images).all():
        raise InputError("the optimisation diverged to NaN: lower the learning rate.")
    no_gradient = torch.tensor([start.unmoved() for start in starts])
    if no_gradient.any():
        images[no_gradient] = float("nan")
        warnings.warn(
            f"{int(no_gradient.sum())} of {len(no_gradient)} objectives have no gradient at any of {tries} start "
            "images, so that there is no image of them: nothing of the pathway leads to the objective, or all of "
            "it is dead there.",
            RuntimeWarning,
            stacklevel=2,
        )
    return Decoding(images, no_gradient, torch.tensor([start.attempt for start in starts]))
