"""Images as tensors to optimise, made by Lucent from noise."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpath.errors import InputError, unknown_name
from cpath.optional import optional

Parametrisation = Callable[[int, int, int], tuple[Iterable[Tensor], Callable[[], Tensor]]]
"""From channels, height and width: tensors to optimise, and what makes the image (1, C, H, W) of them."""

_NOISE = 0.01  # Lucent's own: nearly uniform grey

PARAMETRISATIONS = ("pixel", "fourier", "cppn")


class Start:
    """One image as tensors to optimise."""

    slope = 0.0
    """Largest gradient of the objective at the image; 0 where it has none."""

    def __init__(self, parametrisation: str | Parametrisation, shape: tuple[int, int, int], attempt: int) -> None:
        tensors, self.image = _parametrisation(parametrisation, attempt)(*shape)
        self.tensors = list(tensors)
        self.attempt = attempt
        self._made_from = parametrisation, shape
        found = tuple(self.image().shape)
        if found != (1, *shape):
            raise InputError(f"the parametrisation makes images {found}, but {(1, *shape)} is wanted.")
        self._before = [tensor.detach().clone() for tensor in self.tensors]

    def again(self, attempt: int) -> Start:
        """Another start of the same form."""
        return Start(*self._made_from, attempt)

    def unmoved(self) -> bool:
        """Whether the optimisation changed nothing: every gradient was 0."""
        return all(torch.equal(old, new.detach()) for old, new in zip(self._before, self.tensors, strict=True))


def _parametrisation(wanted: str | Parametrisation, attempt: int) -> Parametrisation:
    if callable(wanted):
        return wanted
    if wanted not in PARAMETRISATIONS:
        raise unknown_name("parametrisation", wanted, PARAMETRISATIONS)
    if wanted == "cppn":
        return _cppn
    image = lucent("param.images").image

    def make(channels: int, height: int, width: int) -> tuple[Iterable[Tensor], Callable[[], Tensor]]:
        # Asked for no number of channels, Lucent makes three with the correlation of natural colours.
        made: tuple[Iterable[Tensor], Callable[[], Tensor]] = image(
            width,
            height,
            sd=_NOISE * 10 ** min(attempt, 2),
            fft=wanted == "fourier",
            channels=None if channels == 3 else channels,
        )
        return made

    return make


def _cppn(channels: int, height: int, width: int) -> tuple[Iterable[Tensor], Callable[[], Tensor]]:
    if height != width:
        raise InputError(f"Lucent's cppn makes square images only, not {height}×{width}.")
    made: tuple[Iterable[Tensor], Callable[[], Tensor]] = lucent("param.cppn").cppn(height, channels)
    return made


def lucent(module: str) -> Any:
    """A module of ``lucent.optvis``; raises `MissingPackageError` without torch-lucent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the old kornia that it needs
        return optional(f"lucent.optvis.{module}", "torch-lucent>=0.1.8", "decoding")


@contextmanager
def seeded(seed: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that seeds torch and numpy, of both of which Lucent draws; restores both afterwards."""
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
