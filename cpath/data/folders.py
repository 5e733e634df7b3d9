"""Datasets that are folders of image files, one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from cpath.checks import check_count, check_flag, check_number, warn
from cpath.data.base import FileSplit, ImageData, Normalisation, Split, check_cut
from cpath.data.memory import hold
from cpath.errors import InputError, described
from cpath.randomness import seeded

IMAGENET_NORMALISATION = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SPLIT_SEED = 0
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """List the 1000 WordNet ids of ImageNet's classes, in the order of the logits.

    Returns:
        The ids.

    Example:
        >>> cpath.data.imagenet_wnids()[0]
        'n01440764'
    """
    return tuple(resources.files("cpath.data").joinpath("imagenet_wnids.txt").read_text().split())


def imagenet(
    root: str = "data/imagenet",
    size: int = 224,
    resize: int = 256,
    mean: Sequence[float] = IMAGENET_NORMALISATION.mean,
    std: Sequence[float] = IMAGENET_NORMALISATION.std,
    interpolation: str = "bilinear",
) -> ImageData:
    """Load ImageNet's validation images as test images, from ``root``/val/<wnid>/*.JPEG.

    Some of the classes are enough. If ``root``/train exists, its images are for training, 1/25 of them for
    validation.

    Args:
        root: Folder that holds ``val``.
        size: Side of the square that is cropped at the centre, in pixels.
        resize: Length that the shorter side is resized to before, in pixels.
        mean: Mean of each channel of pixels in [0, 1], for the model at hand; torchvision's unless given.
        std: Standard deviation of each channel, likewise.
        interpolation: Interpolation of the resizing, such as "bilinear" or "bicubic".

    Returns:
        The dataset.

    Raises:
        InputError: If the folder is missing or holds other classes, or a setting is unusable.
        UnknownNameError: If there is no such interpolation.

    Example:
        >>> data = cpath.data.imagenet("data/imagenet")  # doctest: +SKIP
        >>> data.shape, len(data.classes)  # doctest: +SKIP
        ((3, 224, 224), 1000)
    """
    size, resize = check_cut(size, check_count("resize", resize))
    normalisation = Normalisation(_of_colours("mean", mean, 0.0), _of_colours("std", std, 1.0))
    from torchvision.models import ResNet50_Weights

    folder = Path(root).expanduser()
    how = (
        f"root (dataset.root=FOLDER) names the folder that holds val/<wnid>/*.JPEG, for example "
        f"{folder / 'val' / imagenet_wnids()[0]}. The images are at image-net.org (registration needed)."
    )
    if not (folder / "val").is_dir():
        raise InputError(f"no ImageNet images in {folder.resolve()}: {how}")
    splits = {
        part: _read_split(
            folder / part, imagenet_wnids(), normalisation, resize, size, how, interpolation=interpolation
        )
        for part in ("train", "val")
        if (folder / part).is_dir()
    }
    train, val = (None, None) if "train" not in splits else _split_off(splits["train"], 1 / 25)
    return ImageData(
        name="imagenet",
        classes=tuple(ResNet50_Weights.DEFAULT.meta["categories"]),
        shape=(3, size, size),
        normalisation=normalisation,
        test=splits["val"],
        train=train,
        val=val,
        settings={
            "name": "imagenet",
            "size": size,
            "resize": resize,
            "files": {part: split.digest() for part, split in splits.items()},
            **_unusual(normalisation, interpolation),
        },
    )


def imagefolder(
    root: str,
    size: int = 224,
    resize: int | None = None,
    mean: Sequence[float] | None = IMAGENET_NORMALISATION.mean,
    std: Sequence[float] | None = IMAGENET_NORMALISATION.std,
    name: str = "imagefolder",
    in_memory: bool = False,
    cache: str | None = None,
    val_share: float = 0.1,
    per_class: int | None = None,
) -> ImageData:
    """Load a user's own images: ``root``/test/<class>/*.jpg, and ``root``/train/<class>/*.jpg for training.

    Without a test folder the images of ``root``/val are the test images; without that either, the classes are taken
    from ``root`` itself, for evaluation only.

    The images are those that torchvision's ``ImageFolder`` finds, in its order: files of its formats in the class's
    folder and in folders within. Like there, a photograph's orientation tag (EXIF) is not applied. Unlike there,
    hidden folders, whose names begin with a dot, are left out, and images of 16 bits or floats in [0, 1] are scaled
    to bytes, not cut off at 255.

    Args:
        root: Folder of the images.
        size: Side of the square that is cropped at the centre, in pixels.
        resize: Length that the shorter side is resized to before, in pixels; None for ``size``.
        mean: Mean of each channel of pixels in [0, 1]; None for that of the training images, which have to be in
            memory.
        std: Standard deviation of each channel; None likewise.
        name: Name of the dataset.
        in_memory: Decode all images at once and hold them as bytes: for small images.
        cache: Folder that keeps the decoded images for the next time, if any.
        val_share: Share of the training images that are for validation, a fraction, unless ``root``/val exists
            beside ``root``/test.
        per_class: Number of training images to take of each class, the first ones; None for all.

    Returns:
        The dataset.

    Raises:
        InputError: If images are missing or cannot be read, a class is empty, a setting is unusable, or
            ``root``/train stands alone.

    Example:
        >>> from PIL import Image
        >>> for name in ("cat", "dog"):
        ...     (folder / "test" / name).mkdir(parents=True)
        ...     Image.new("RGB", (40, 30)).save(folder / "test" / name / "first.png")
        >>> data = cpath.data.imagefolder(str(folder), size=16)
        >>> data.classes, len(data.test), data.train
        (('cat', 'dog'), 2, None)
    """
    folder = Path(root).expanduser()
    size, resize = check_cut(size, resize)
    per_class = None if per_class is None else check_count("per_class", per_class)
    check_flag("in_memory", in_memory)
    if (mean is None or std is None) and not in_memory:
        raise InputError(
            "mean and std of images that are not in memory must be given, or all be held in memory: in_memory=True "
            "(dataset.in_memory=true)."
        )
    if not 0 < check_number("val_share", val_share) < 1:
        raise InputError(f"val_share must be between 0 and 1, not {val_share}.")
    normalisation = Normalisation(_of_colours("mean", mean, 0.0), _of_colours("std", std, 1.0))
    how = "root (dataset.root=FOLDER) must hold test/<class>/*.jpg (or val/) and, to train, train/<class>/*.jpg."
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder.resolve()}; {how}")
    parts = {part: folder / part for part in ("train", "val", "test") if (folder / part).is_dir()}
    if "test" not in parts and "val" in parts:
        parts["test"] = parts.pop("val")
    elif "test" not in parts:
        # A class may be called "train": its folder holds images.
        if "train" in parts and _folders(parts["train"]):
            raise InputError(f"{folder.resolve()} has training images, but none to evaluate on: {how}")
        parts = {"test": folder}
    source = parts.get("train", parts["test"])
    classes = tuple(child.name for child in _folders(source))
    splits = {
        part: _read_split(
            path,
            classes,
            normalisation,
            resize,
            size,
            how,
            per_class=per_class if part == "train" else None,
        )
        for part, path in parts.items()
    }
    files = {part: split.digest() for part, split in splits.items()}
    train, val = splits.get("train"), splits.get("val")
    if train is not None and val is None:
        train, val = _split_off(train, val_share)
    read = {"test": splits["test"], "train": train, "val": val}
    held = hold(read, mean, std, cache) if in_memory else None
    served: Mapping[str, Split | None] = held or read
    test = served["test"]
    assert test is not None
    if held and held["test"]:
        normalisation = held["test"].normalisation
    return ImageData(
        name=name,
        classes=classes,
        shape=(3, size, size),
        normalisation=normalisation,
        test=test,
        train=served["train"],
        val=served["val"],
        settings={
            "name": name,
            "size": size,
            "resize": resize,
            "mean": list(normalisation.mean),
            "std": list(normalisation.std),
            "files": files,
            "val_share": val_share,
        },
    )


def _of_colours(name: str, values: object, otherwise: float) -> tuple[float, ...]:
    """Check one number for each of the three channels of a decoded image."""
    if values is None:
        return (otherwise,) * 3
    found = () if isinstance(values, str) or not isinstance(values, Iterable) else tuple(values)
    if len(found) != 3:
        raise InputError(
            f"{name} must be three numbers, for red, green and blue (dataset.{name}=[…]), not {described(values)}: "
            "grey images are read as colour images too."
        )
    return tuple(check_number(name, value) for value in found)


def _read_split(
    folder: Path,
    classes: Sequence[str],
    normalisation: Normalisation,
    resize: int,
    size: int,
    how: str,
    per_class: int | None = None,
    interpolation: str = "bilinear",
) -> FileSplit:
    numbers = {name: number for number, name in enumerate(classes)}
    files: list[Path] = []
    labels: list[int] = []
    others: list[Path] = []
    for child in _folders(folder):
        if child.name not in numbers:
            raise InputError(f"{child} is no class of the dataset: {how}")
        found, unread = _images(child)
        if not found:
            raise InputError(f"class '{child.name}' is empty: no image in {child}. Remove the folder, or fill it.")
        files += found[:per_class]
        labels += [numbers[child.name]] * len(found[:per_class])
        others += unread
    if not files:
        raise InputError(f"no images in {folder.resolve()}: {how}")
    if others:
        warn(
            f"left out {len(others)} images of formats that torchvision's ImageFolder leaves out too, such as "
            f"{others[0]}: convert them to PNG to use them."
        )
    return FileSplit(folder, files, torch.tensor(labels, device="cpu"), normalisation, resize, size, interpolation)


def _unusual(normalisation: Normalisation, interpolation: str) -> dict[str, Any]:
    """List the settings that are not torchvision's, without which earlier results keep their place."""
    settings: dict[str, Any] = {}
    if normalisation != IMAGENET_NORMALISATION:
        settings |= {"mean": list(normalisation.mean), "std": list(normalisation.std)}
    if interpolation != "bilinear":
        settings["interpolation"] = interpolation
    return settings


def _folders(folder: Path) -> list[Path]:
    """List the folders in a folder, without hidden ones and what macOS leaves in archives."""
    return sorted(
        (child for child in folder.iterdir() if not _hidden(child.name) and child.is_dir()),
        key=lambda path: path.name,
    )


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _images(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the images in a class's folder and in folders within, and those of formats that are not read."""
    from PIL import Image
    from torchvision.datasets.folder import IMG_EXTENSIONS

    known = Image.registered_extensions()
    images, unread = [], []
    walk = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _hidden(name)]
        walk.append((place, names))
    for place, names in sorted(walk):
        for name in sorted(names):
            ending = os.path.splitext(name)[1].lower()
            if ending in IMG_EXTENSIONS:
                images.append(_checked(Path(place, name)))
            elif ending in known and not name.startswith("."):
                unread.append(Path(place, name))
    return images, unread


def _checked(file: Path) -> Path:
    """Refuse what macOS leaves beside images on foreign disks and in archives, under their names and a prefix."""
    if file.name.startswith("._"):
        with file.open("rb") as content:
            if content.read(len(_APPLE_DOUBLE)) == _APPLE_DOUBLE:
                raise InputError(
                    f"{file} is no image but what macOS noted about one (an AppleDouble file). Delete all such "
                    f"files: find {file.parent} -name '._*' -delete"
                )
    return file


def _split_off(split: FileSplit, share: float) -> tuple[FileSplit, FileSplit]:
    """Divide ``split`` at random, always in the same way, into the rest and a ``share`` of its images."""
    order = torch.randperm(len(split), generator=seeded(_SPLIT_SEED), device="cpu").tolist()
    cut = max(1, round(share * len(split)))

    def part(indices: list[int]) -> FileSplit:
        files = [split.files[index] for index in sorted(indices)]
        return FileSplit(
            split.root,
            files,
            split.labels[sorted(indices)],
            split.normalisation,
            split.resize,
            split.size,
            split.interpolation,
        )

    return part(order[cut:]), part(order[:cut])
