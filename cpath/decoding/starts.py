"""Images as tensors to optimise, made by Lucent from noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cpath.errors import InputError, unknown_name
from cpath.optional import optional

Parametrisation = Callable[[int, int, int], tuple[Iterable[Tensor], Callable[[], Tensor]]]
"""Function of channels, height and width that returns tensors to optimise, and a function without arguments that
makes the image (1, C, H, W) of them."""

_NOISE = 0.01  # Lucent's own: nearly uniform grey

PARAMETRISATIONS = ("pixel", "pixel_uncorrelated", "fourier", "cppn")


class Start:
    """One image as tensors to optimise.

    Args:
        parametrisation: One of `PARAMETRISATIONS`, or a function.
        shape: (C, H, W) of the image.
        attempt: Number of the start; higher ones are noisier.
        size: Side of the square of pixels that the image is resized from; None if it is not.

    Raises:
        InputError: If the parametrisation makes pixels of another shape.
        UnknownNameError: If there is no such parametrisation.
    """

    slope = 0.0
    """Largest gradient of the objective at the image; 0 where it has none."""

    def __init__(
        self,
        parametrisation: str | Parametrisation,
        shape: tuple[int, int, int],
        attempt: int,
        size: int | None = None,
    ) -> None:
        own = shape if size is None else (shape[0], size, size)
        tensors, self.pixels = _parametrisation(parametrisation, attempt)(*own)
        self.tensors = list(tensors)
        self.attempt = attempt
        self._shape, self._size, self._made_from = shape, size, parametrisation
        found = tuple(self.pixels().shape)
        if found != (1, *own):
            raise InputError(f"the parametrisation makes images {found}, but {(1, *own)} is wanted.")
        self._before = [tensor.detach().clone() for tensor in self.tensors]

    def image(self) -> Tensor:
        """Make the image of the pixels, in the size that the network takes.

        Returns:
            Pixels (1, C, H, W).
        """
        return self.pixels() if self._size is None else resized(self.pixels(), self._shape[1:])

    def again(self, attempt: int) -> Start:
        """Make another start of the same form.

        Args:
            attempt: Number of the start.

        Returns:
            The start.
        """
        return Start(self._made_from, self._shape, attempt, self._size)

    def unmoved(self) -> bool:
        """Check that the optimisation changed nothing, because every gradient was 0.

        Returns:
            True if all tensors are as they were.
        """
        return all(torch.equal(old, new.detach()) for old, new in zip(self._before, self.tensors, strict=True))


def resized(pixels: Tensor, size: Sequence[int]) -> Tensor:
    """Resize pixels as Lucent does before the network sees them.

    Args:
        pixels: Pixels (B, C, h, w).
        size: H and W.

    Returns:
        Pixels (B, C, H, W), bilinear, the centres of the corner pixels aligned.
    """
    return F.interpolate(pixels, tuple(size), mode="bilinear", align_corners=True)


def standard_transforms() -> list[Callable[[Tensor], Tensor]]:
    """Make the transforms that Lucent applies if it is told none: padding, shifts, scaling, rotation, shifts.

    They change the size of the pixels: `decode` needs a ``size`` with them, from which it resizes.

    Returns:
        Functions of pixels (B, C, H, W).

    Raises:
        MissingPackageError: If torch-lucent is not installed.

    Example:
        >>> len(cpath.decoding.standard_transforms())
        5
    """
    return list(lucent("transform").standard_transforms)


def _parametrisation(wanted: str | Parametrisation, attempt: int) -> Parametrisation:
    if callable(wanted):
        return wanted
    if wanted not in PARAMETRISATIONS:
        raise unknown_name("parametrisation", wanted, PARAMETRISATIONS)
    if wanted == "cppn":
        return _cppn
    image = lucent("param.images").image

    def make(channels: int, height: int, width: int) -> tuple[Iterable[Tensor], Callable[[], Tensor]]:
        # Asked for no number of channels, Lucent makes three with the correlation of natural colours, its default.
        natural = channels == 3 and wanted != "pixel_uncorrelated"
        made: tuple[Iterable[Tensor], Callable[[], Tensor]] = image(
            width,
            height,
            sd=_NOISE * 10 ** min(attempt, 2),
            fft=wanted == "fourier",
            channels=None if natural else channels,
        )
        return made

    return make


def _cppn(channels: int, height: int, width: int) -> tuple[Iterable[Tensor], Callable[[], Tensor]]:
    if height != width:
        raise InputError(f"Lucent's cppn makes square images only, not {height}×{width}.")
    made: tuple[Iterable[Tensor], Callable[[], Tensor]] = lucent("param.cppn").cppn(height, channels)
    return made


def lucent(module: str) -> Any:
    """Import a module of ``lucent.optvis``.

    Args:
        module: Name of the module.

    Returns:
        The module.

    Raises:
        MissingPackageError: If torch-lucent is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch-lucent needs an old kornia, which warns at import
        return optional(f"lucent.optvis.{module}", "torch-lucent>=0.1.8", "decoding")


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[int], None]]:
    """Restore the random states of torch and NumPy, which Lucent draws from, at the end of a ``with`` block.

    Args:
        seed: The seed.

    Returns:
        A context manager, which gives a function that seeds both generators for an attempt.
    """
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    before = np.random.get_state()  # noqa: NPY002 (Lucent draws from numpy's global state)

    def reseed(attempt: int) -> None:
        torch.manual_seed(seed + attempt)
        np.random.seed((seed + attempt) % 2**32)  # noqa: NPY002

    with torch.random.fork_rng(gpus):
        try:
            yield reseed
        finally:
            np.random.set_state(before)  # noqa: NPY002
