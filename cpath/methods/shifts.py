"""Copies of images that are shifted by little, which an order of units can be trained on.

They are other copies than those that `cpath.evaluation.faithfulness_transfer` looks at: noise, crops and
compression are not among them, nor is the shift to the right that is measured there.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from cpath.errors import InputError
from cpath.inputs import Inputs
from cpath.randomness import seeded

_FURTHEST = 2
_PARTS = 32  # of a side: one of them is the smallest shift
_MEASURED = (1, 0)

MOST = (2 * _FURTHEST + 1) ** 2 - 2
"""Number of different shifts."""


def shifts(count: int, seed: int) -> list[tuple[int, int]]:
    """Draw shifts by at most two steps in each direction.

    Args:
        count: Number of shifts, at most `MOST`.
        seed: Seed.

    Returns:
        Steps to the right and downwards, all different.

    Example:
        >>> from cpath.methods.shifts import MOST, shifts
        >>> len(set(shifts(MOST, seed=0))), (0, 0) in shifts(MOST, seed=0), (1, 0) in shifts(MOST, seed=0)
        (23, False, False)
    """
    line = range(-_FURTHEST, _FURTHEST + 1)
    every = [move for move in itertools.product(line, line) if move not in ((0, 0), _MEASURED)]
    order = torch.randperm(len(every), generator=seeded(seed), device="cpu")[:count]
    return [every[number] for number in order.tolist()]


def shifted(images: Tensor, move: tuple[int, int]) -> Tensor:
    """Shift images; what enters at the border repeats it.

    Args:
        images: Floats (B, C, H, W).
        move: Steps to the right and downwards. A step is a 32nd part of the side, at least one pixel.

    Returns:
        Shifted images of the same size.

    Example:
        >>> from cpath.methods.shifts import shifted
        >>> moved = shifted(images, (1, -2))
        >>> torch.equal(moved[:, :, :-2, 1:], images[:, :, 2:, :-1])
        True
    """
    height, width = images.shape[2:]
    right, down = move[0] * max(1, width // _PARTS), move[1] * max(1, height // _PARTS)
    around = F.pad(images, (abs(right), abs(right), abs(down), abs(down)), mode="replicate")
    top, left = abs(down) - down, abs(right) - right
    return around[:, :, top : top + height, left : left + width].contiguous()


def shifted_copies(inputs: Inputs, count: int, seed: int) -> Iterator[Inputs]:
    """Make shifted copies of a batch, the same shifts for every image.

    Args:
        inputs: Images (B, C, H, W), as the only tensor of a model's arguments.
        count: Number of copies.
        seed: Seed of the shifts.

    Returns:
        Iterator over the copies.

    Raises:
        InputError: If the inputs are others.
    """
    if len(inputs.tensors) != 1 or inputs.first.dim() != 4 or not inputs.first.is_floating_point():
        raise InputError(
            f"only images (B, C, H, W) have shifted copies, not inputs of {inputs.shapes}: leave transfer out."
        )
    for move in shifts(count, seed):
        yield replace(inputs, tensors=(shifted(inputs.first, move),))
