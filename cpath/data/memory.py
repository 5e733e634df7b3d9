"""Small image files, decoded once and held in memory as bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cpath.data.base import FileSplit, Normalisation, TensorSplit
from cpath.errors import InputError, MissingPackageError
from cpath.optional import optional
from cpath.storage import kept_tensors, write_tensors

_FORMAT = 2  # 1 cut the values of 16-bit images off at 255
_AT_ONCE = 256  # images between two steps of the progress bar
_MOST_GB = 32.0


def hold(
    splits: Mapping[str, FileSplit | None],
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    cache: str | None,
) -> dict[str, TensorSplit | None]:
    """Decode the images of splits and hold them in memory.

    Args:
        splits: Splits "test", "train" and "val"; None stays None.
        mean: Mean of each channel of pixels in [0, 1]; None for that of the training images.
        std: Standard deviation of each channel; None likewise.
        cache: Folder that keeps decoded images, by the names and sizes of their files; None to decode them each
            time.

    Returns:
        The splits in memory.

    Raises:
        InputError: If there are more images than memory should hold, or no training images for ``mean`` and
            ``std``.
    """
    pixels = {name: _pixels(name, split, cache) for name, split in splits.items() if split is not None}
    if mean is None or std is None:
        if "train" not in pixels:
            raise InputError("without training images, mean and std of the pixels must be given.")
        mean, std = _moments(pixels["train"])
    normalisation = Normalisation(tuple(mean), tuple(std))
    return {
        name: None if split is None else TensorSplit(pixels[name], split.labels, split.ids, normalisation)
        for name, split in splits.items()
    }


def _pixels(name: str, split: FileSplit, cache: str | None) -> Tensor:
    if len(split) * 3 * split.size**2 > _MOST_GB * 1e9:
        raise InputError(
            f"{len(split)} images of {split.size}×{split.size} are too many to hold: pass in_memory=False "
            "(dataset.in_memory=false)."
        )
    if cache is None:
        return _decoded(name, split)
    file = Path(cache).expanduser() / f"{name}-{split.digest(with_size=True)}.safetensors"

    def make() -> None:
        write_tensors(file, {"pixels": _decoded(name, split)}, {"kind": "pixels", "format": _FORMAT})

    return kept_tensors(file, "pixels", _FORMAT, make)[0]["pixels"]


def _decoded(name: str, split: FileSplit) -> Tensor:
    parts = torch.arange(len(split), device="cpu").split(_AT_ONCE)  # type: ignore[no-untyped-call]
    return torch.cat([split.read(part) for part in _with_bar(parts, f"decoding {name}")])


def _with_bar(parts: Sequence[Tensor], what: str) -> Iterable[Tensor]:
    try:
        bar = optional("tqdm.auto", "tqdm>=4.66", "a progress bar").tqdm
    except MissingPackageError:  # the images can do without
        return parts
    shown: Iterable[Tensor] = bar(parts, desc=what, unit="batch", disable=None)
    return shown


def _moments(pixels: Tensor) -> tuple[list[float], list[float]]:
    """Compute mean and deviation of each channel of pixels in [0, 1], exactly, by counting the 256 values."""
    values = torch.arange(256, dtype=torch.float64, device="cpu") / 255
    means, deviations = [], []
    for channel in range(pixels.shape[1]):
        shares = torch.bincount(pixels[:, channel].flatten().int(), minlength=256).cpu().double()
        shares /= shares.sum()
        mean = (shares * values).sum()
        means.append(mean.item())
        deviations.append(((shares * (values - mean) ** 2).sum().sqrt()).item())
    return means, deviations
