"""CIFAR-10, read with torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cpath.checks import check_flag
from cpath.data.base import ImageData, Normalisation, TensorSplit
from cpath.errors import InputError
from cpath.randomness import seeded

_TRAIN, _SPLIT_SEED = 43_750, 0  # the paper's 7/8 of the training images


def cifar10(root: str = "data", download: bool = True) -> ImageData:
    """Load CIFAR-10: 60 000 colour images of 32×32 pixels in 10 classes.

    43 750 images are for training, 6 250 for validation and 10 000 for testing; the 7/8 share of the training
    images is the paper's.

    Args:
        root: Folder that holds cifar-10-batches-py.
        download: Download the images if they are not there.

    Returns:
        The dataset.

    Raises:
        InputError: If the images are not there and cannot be downloaded.

    Example:
        >>> data = cpath.data.cifar10("data")  # doctest: +SKIP
        >>> len(data.train), len(data.val), len(data.test)  # doctest: +SKIP
        (43750, 6250, 10000)
    """
    folder = Path(root).expanduser()
    check_flag("download", download)
    try:
        parts = _parts(folder, download)
    except (RuntimeError, OSError) as error:
        raise InputError(
            f"CIFAR-10 is not in {folder.resolve()} and could not be downloaded ({error}). Download "
            "cifar-10-python.tar.gz from the CIFAR-10 home page, put it into that folder, or name yours: root "
            "(dataset.root=…)."
        ) from error
    pixels = [torch.from_numpy(np.asarray(part.data)).permute(0, 3, 1, 2).contiguous() for part in parts]
    labels = [torch.tensor(part.targets, device="cpu") for part in parts]
    order = torch.randperm(len(labels[0]), generator=seeded(_SPLIT_SEED), device="cpu")
    train, val = order[:_TRAIN], order[_TRAIN:]
    scaled = pixels[0][train].float() / 255
    normalisation = Normalisation(tuple(scaled.mean((0, 2, 3)).tolist()), tuple(scaled.std((0, 2, 3)).tolist()))

    def split(part: int, indices: torch.Tensor, name: str) -> TensorSplit:
        ids = [f"{name}-{index:05d}" for index in indices.tolist()]
        return TensorSplit(pixels[part][indices], labels[part][indices], ids, normalisation)

    return ImageData(
        name="cifar10",
        classes=tuple(parts[0].classes),
        shape=(3, 32, 32),
        normalisation=normalisation,
        test=split(1, torch.arange(len(labels[1]), device="cpu"), "test"),
        train=split(0, train, "train"),
        val=split(0, val, "train"),
        settings={"name": "cifar10"},
    )


def _parts(folder: Path, download: bool) -> list[Any]:
    """Read the training and the test part with torchvision. One process downloads while others wait."""
    from filelock import FileLock  # torch itself needs it
    from torchvision.datasets import CIFAR10

    def read(download: bool) -> list[Any]:
        return [CIFAR10(str(folder), train=train, download=download) for train in (True, False)]

    try:
        return read(False)  # first without a download, because the folder may be read-only
    except RuntimeError:
        if not download:
            raise
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".cifar-10-batches-py.lock"):
        return read(True)
