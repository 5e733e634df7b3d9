"""Foreign inputs: images that belong to none of a dataset's classes, from what packages bring and a user has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from cpath.data import ImageData, TensorSplit
from cpath.errors import InputError

Pixels = NDArray[np.uint8]
_TEXTURES = ("brick", "grass", "gravel")
_PHOTOGRAPHS = ("astronaut", "coffee", "rocket", "hubble_deep_field", "retina", "immunohistochemistry")
_ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp")

Draw = np.random.Generator


def _noise(data: ImageData, count: int, draw: Draw, folder: Path | None) -> list[Pixels]:
    """Gaussian noise of the dataset's mean colour and deviation."""
    mean, std = np.array(data.normalisation.mean), np.array(data.normalisation.std)
    values = mean + std * draw.normal(size=(count, *data.shape[1:], data.shape[0]))
    return list((255 * values.clip(0, 1)).round().astype(np.uint8))


def _textures(data: ImageData, count: int, draw: Draw, folder: Path | None) -> list[Pixels]:
    """Pieces of scikit-image's photographs of brick, grass and gravel."""
    from skimage import data as samples

    return _pieces([getattr(samples, name)() for name in _TEXTURES], data, count, draw)


def _photographs(data: ImageData, count: int, draw: Draw, folder: Path | None) -> list[Pixels]:
    """Pieces of photographs inside scikit-image and scikit-learn: an astronaut, a temple, tissue."""
    from skimage import data as samples
    from sklearn.datasets import load_sample_images

    whole = [*(getattr(samples, name)() for name in _PHOTOGRAPHS), *load_sample_images().images]
    return _pieces(whole, data, count, draw)


def _digits(data: ImageData, count: int, draw: Draw, folder: Path | None) -> list[Pixels]:
    """Handwritten digits of scikit-learn."""
    from sklearn.datasets import load_digits

    if data.name.startswith("digits"):
        raise InputError("experiment.foreign.names: digits are the dataset's own images.")
    digits = load_digits().images
    which = draw.choice(len(digits), count, replace=count > len(digits))
    return [(255 / 16 * digits[number]).astype(np.uint8) for number in which]


def _folder(data: ImageData, count: int, draw: Draw, folder: Path | None) -> list[Pixels]:
    """Images of a user's folder, at any depth."""
    if folder is None or not folder.is_dir():
        raise InputError(
            "experiment.foreign.names: for 'folder', experiment.foreign.folder must be a folder of images, "
            f"not {folder}."
        )
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _ENDINGS)
    if len(files) < count:
        raise InputError(
            f"{folder} has {len(files)} images, of which {count} are asked for: lower experiment.foreign.images."
        )
    return [np.asarray(Image.open(files[number]).convert("RGB")) for number in draw.permutation(len(files))[:count]]


FOREIGN: Mapping[str, Callable[[ImageData, int, Draw, Path | None], list[Pixels]]] = {
    "noise": _noise,
    "textures": _textures,
    "photographs": _photographs,
    "digits": _digits,
    "folder": _folder,
}
"""Kinds of foreign inputs by name: each makes so many pictures (H, W) or (H, W, 3) of any size."""


def foreign_data(kind: str, data: ImageData, count: int, seed: int, folder: Path | None) -> ImageData:
    """Make foreign inputs of the size and with the normalisation of a dataset.

    Args:
        kind: name of the kind, see `FOREIGN`.
        data: dataset that they are foreign to.
        count: number of images.
        seed: of what is drawn.
        folder: of images of one's own.

    Returns:
        The dataset with the foreign images in place of its test images; their labels mean nothing.

    Raises:
        InputError: if there are not as many, or they are the dataset's own.
    """
    drawn = FOREIGN[kind](data, count, np.random.default_rng([seed, len(kind), kind.encode()[0]]), folder)
    channels, height, width = data.shape
    if channels not in (1, 3):
        raise InputError(f"foreign inputs are made of one or three channels, not {channels}.")
    pictures = [
        ImageOps.fit(Image.fromarray(picture).convert("RGB"), (width, height), Image.Resampling.BILINEAR)
        for picture in (np.squeeze(one) for one in drawn)
    ]
    pixels = torch.stack([torch.from_numpy(np.asarray(picture).copy()) for picture in pictures]).permute(0, 3, 1, 2)
    if channels == 1:
        pixels = pixels.float().mean(1, keepdim=True).round().to(torch.uint8)
    names = [f"{kind}-{number:05d}" for number in range(count)]
    split = TensorSplit(pixels.contiguous(), torch.zeros(count, dtype=torch.int64), names, data.normalisation)
    settings = {**data.settings, "foreign": kind, "count": count, "seed": seed, "folder": str(folder)}
    return replace(data, test=split, train=None, val=None, settings=settings)


def _pieces(whole: list[Pixels], data: ImageData, count: int, draw: Draw) -> list[Pixels]:
    """Squares of pictures at random places, from the size of the dataset's images to the whole picture."""
    found = []
    for number in range(count):
        picture = whole[number % len(whole)]
        most = min(picture.shape[:2])
        side = int(draw.integers(min(max(data.shape[1:]), most), most + 1))
        top, left = (int(draw.integers(0, size - side + 1)) for size in picture.shape[:2])
        found.append(picture[top : top + side, left : left + side])
    return found
