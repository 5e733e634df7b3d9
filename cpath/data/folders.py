"""Datasets that are folders of image files, one folder a class."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import torch

from cpath.data.base import FileSplit, ImageData, Normalisation
from cpath.errors import InputError

IMAGENET_NORMALISATION = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
_SPLIT_SEED = 0


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """The 1000 WordNet ids of ImageNet's classes, in the order of the logits."""
    return tuple(resources.files("cpath.data").joinpath("imagenet_wnids.txt").read_text().split())


def imagenet(root: str = "data/imagenet", size: int = 224, resize: int = 256) -> ImageData:
    """ImageNet's validation images, from ``root``/val/<wnid>/*.JPEG (some of the classes will do).

    The shorter side is resized to ``resize``, then the centre of ``size`` cropped. ``root``/train is used for
    training where it exists. Raises `InputError` when the folder is missing or holds other classes.
    """
    from torchvision.models._meta import _IMAGENET_CATEGORIES

    folder = Path(root).expanduser()
    how = (
        f"dataset.root=FOLDER names the folder that holds val/<wnid>/*.JPEG, for example "
        f"{folder / 'val' / imagenet_wnids()[0]}. The images are at image-net.org (registration needed)."
    )
    if not (folder / "val").is_dir():
        raise InputError(f"no ImageNet images in {folder.resolve()}: {how}")
    splits = {
        part: _read_split(folder / part, imagenet_wnids(), IMAGENET_NORMALISATION, resize, size, how)
        for part in ("train", "val")
        if (folder / part).is_dir()
    }
    train, val = (None, None) if "train" not in splits else _split_off(splits["train"], 1 / 25)
    return ImageData(
        name="imagenet",
        classes=tuple(_IMAGENET_CATEGORIES),
        shape=(3, size, size),
        normalisation=IMAGENET_NORMALISATION,
        test=splits["val"],
        train=train,
        val=val,
        settings={
            "name": "imagenet",
            "size": size,
            "resize": resize,
            "files": {part: _digest(split) for part, split in splits.items()},
        },
    )


def imagefolder(
    root: str,
    size: int = 224,
    resize: int | None = None,
    mean: Sequence[float] = IMAGENET_NORMALISATION.mean,
    std: Sequence[float] = IMAGENET_NORMALISATION.std,
    name: str = "imagefolder",
) -> ImageData:
    """Anybody's own images: ``root``/test/<class>/*.jpg, and ``root``/train/<class>/*.jpg for training.

    Without a test folder the classes are taken from ``root`` itself, for evaluation only. A tenth of the
    training images is validation unless ``root``/val exists. The shorter side is resized to ``resize``
    (default: ``size``), then the centre of ``size`` cropped. Raises `InputError` when images are missing.
    """
    folder = Path(root).expanduser()
    normalisation = Normalisation(tuple(mean), tuple(std))
    how = "expected FOLDER/test/<class>/*.jpg and, to train, FOLDER/train/<class>/*.jpg (dataset.root=FOLDER)."
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder.resolve()}; {how}")
    parts = {part: folder / part for part in ("train", "val", "test") if (folder / part).is_dir()}
    if "test" not in parts:
        parts = {"test": parts.get("val", folder)}
    source = parts.get("train", parts["test"])
    classes = tuple(sorted(child.name for child in source.iterdir() if child.is_dir()))
    splits = {
        part: _read_split(path, classes, normalisation, resize or size, size, how) for part, path in parts.items()
    }
    train, val = splits.get("train"), splits.get("val")
    if train is not None and val is None:
        train, val = _split_off(train, 1 / 10)
    return ImageData(
        name=name,
        classes=classes,
        shape=(3, size, size),
        normalisation=normalisation,
        test=splits["test"],
        train=train,
        val=val,
        settings={
            "name": name,
            "size": size,
            "resize": resize or size,
            "mean": list(mean),
            "std": list(std),
            "files": {part: _digest(split) for part, split in splits.items()},
        },
    )


def _read_split(
    folder: Path, classes: Sequence[str], normalisation: Normalisation, resize: int, size: int, how: str
) -> FileSplit:
    numbers = {name: number for number, name in enumerate(classes)}
    files, labels = [], []
    for child in sorted(path for path in folder.iterdir() if path.is_dir()):
        if child.name not in numbers:
            raise InputError(f"{child} is no class of the dataset: {how}")
        found = sorted(path for path in child.iterdir() if path.suffix.lower() in _SUFFIXES)
        files += found
        labels += [numbers[child.name]] * len(found)
    if not files:
        raise InputError(f"no images in {folder.resolve()}: {how}")
    return FileSplit(folder, files, torch.tensor(labels), normalisation, resize, size)


def _split_off(split: FileSplit, share: float) -> tuple[FileSplit, FileSplit]:
    """``split`` without, and only with, a random ``share`` of its images; always the same ones."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(_SPLIT_SEED)).tolist()
    cut = max(1, round(share * len(split)))

    def part(indices: list[int]) -> FileSplit:
        files = [split.files[index] for index in sorted(indices)]
        return FileSplit(
            split.root, files, split.labels[sorted(indices)], split.normalisation, split.resize, split.size
        )

    return part(order[cut:]), part(order[:cut])


def _digest(split: FileSplit) -> str:
    """Short hash over names and sizes of the files."""
    lines = (f"{name}:{file.stat().st_size}" for name, file in zip(split.ids, split.files, strict=True))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
