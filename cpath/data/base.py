"""Definition of a dataset: named splits of images that are read in batches, normalised."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cpath.checks import check_count, check_number
from cpath.data.inputs import drawn
from cpath.display import Shown
from cpath.errors import InputError, described, unknown_name

if TYPE_CHECKING:
    from PIL import Image

# Those of torchvision that PIL has.
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


class Split(Shown, ABC, Dataset[tuple[Tensor, int]]):
    """Images with labels, read by index, as normalised floats (C, H, W) that the model takes.

    Attributes:
        ids: A name for each image, stable from run to run.
        labels: Labels (N,), int64.
    """

    ids: Sequence[str]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def _facts(self) -> dict[str, object]:
        return {"images": len(self), "classes": len(set(self.labels.tolist())), "device": str(self.device)}

    @property
    def device(self) -> torch.device:
        """Device of images and labels, on which indices of images are expected."""
        return self.labels.device

    @property
    def bytes(self) -> int | None:
        """Memory that the images take, in bytes; None if they are files, read when needed."""
        return None

    def to(self, device: torch.device | str) -> Split:
        """Move the images to the memory of a device.

        Args:
            device: The device.

        Returns:
            The split on ``device``; itself if its images are files.
        """
        return self

    def placed(self, device: torch.device | str, memory_gb: float = 8.0) -> Split:
        """Move the images to a device if they are in memory and not too large.

        Args:
            device: The device.
            memory_gb: Largest size to move, in gigabytes.

        Returns:
            The split on ``device``, or itself.
        """
        return self.to(device) if self.bytes is not None and self.bytes <= memory_gb * 1e9 else self

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """Read images.

        Args:
            indices: Numbers of the images (B,).

        Returns:
            Normalised images (B, C, H, W).
        """

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Read one image.

        Args:
            index: Number of the image.

        Returns:
            Normalised image (C, H, W) and its label.
        """
        return self.batch(torch.tensor([index], device=self.device))[0], int(self.labels[index])

    def sample(self, count: int | None, seed: int) -> Tensor:
        """Draw images without replacement.

        Args:
            count: Number of images; None for all, in order.
            seed: Seed of the draw.

        Returns:
            Numbers of the images (count,).

        Raises:
            InputError: If ``count`` is below 1 or above the number of images, or ``seed`` is negative.
        """
        return drawn(len(self), count, seed)


@dataclass(frozen=True)
class Normalisation(Shown):
    """Mean and standard deviation of pixels in [0, 1], per channel.

    Args:
        mean: Mean of each channel.
        std: Standard deviation of each channel, above 0.

    Raises:
        InputError: If they are not numbers, one for each channel, or a standard deviation is not above 0.

    Example:
        >>> scale = cpath.data.Normalisation(mean=(0.5,), std=(0.25,))
        >>> scale.apply(torch.ones(1, 1, 1)).item(), scale.invert(torch.zeros(1, 1, 1)).item()
        (2.0, 0.5)
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise InputError(f"{name} must be numbers, one per channel, not {described(values)}.")
            for value in values:
                check_number(name, value)
        if not self.mean or len(self.mean) != len(self.std):
            raise InputError(
                f"mean and std must have a number for each channel; got {len(self.mean)} and {len(self.std)}."
            )
        if min(self.std) <= 0:
            raise InputError(f"std must be above 0 in every channel, as pixels are divided by it; got {self.std}.")

    def apply(self, pixels: Tensor) -> Tensor:
        """Normalise pixels.

        Args:
            pixels: Pixels (…, C, H, W) in [0, 1].

        Returns:
            Normalised images (…, C, H, W).
        """
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)

    def invert(self, images: Tensor) -> Tensor:
        """Undo the normalisation.

        Args:
            images: Normalised images (…, C, H, W).

        Returns:
            Pixels (…, C, H, W) in [0, 1].
        """
        return images * self._column(self.std, images) + self._column(self.mean, images)

    @staticmethod
    def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
        return like.new_tensor(values).view(-1, 1, 1)


@dataclass(frozen=True, repr=False)
class ImageData(Shown):
    """Dataset: its splits, classes, image shape and normalisation.

    Args:
        name: Name of the dataset.
        classes: Names of the classes, in the order of the logits.
        shape: (C, H, W) of an image.
        normalisation: Normalisation of the pixels.
        test: Images to evaluate on.
        train: Images to train on; None if there are only images to evaluate on, and then so is ``val``.
        val: Images to choose the best epoch by.
        settings: Everything that determines the images, for the keys of stored artifacts; if empty, the
            configuration is taken.

    Example:
        >>> scale = cpath.data.Normalisation(mean=(0.5,), std=(0.25,))
        >>> test = cpath.data.TensorSplit(torch.rand(4, 1, 8, 8), torch.arange(4) % 2, list("abcd"), scale)
        >>> data = cpath.data.ImageData("mine", ("cat", "dog"), (1, 8, 8), scale, test)
        >>> len(data.test)
        4
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    normalisation: Normalisation
    test: Split
    train: Split | None = None
    val: Split | None = None
    settings: dict[str, object] = field(default_factory=dict)

    def training_splits(self) -> tuple[Split, Split]:
        """Get the splits that a training needs.

        Returns:
            The training and the validation split.

        Raises:
            InputError: If the dataset lacks one of them.
        """
        if self.train is None or self.val is None:
            raise InputError(
                f"dataset '{self.name}' has no training images here, so no model can be trained on it: "
                "give it the splits train and val, or load weights (model.weights=…, checkpoint=FILE)."
            )
        return self.train, self.val


class TensorSplit(Split):
    """Split in memory.

    Args:
        pixels: Pixels (N, C, H, W), uint8 or floats in [0, 1].
        labels: Labels (N,), int64.
        ids: A name for each image.
        normalisation: Normalisation of the pixels.

    Example:
        >>> scale = cpath.data.Normalisation(mean=(0.5,), std=(0.25,))
        >>> pixels = torch.full((2, 1, 4, 4), 255, dtype=torch.uint8)
        >>> split = cpath.data.TensorSplit(pixels, torch.tensor([0, 1]), ["first", "second"], scale)
        >>> split.batch(torch.tensor([1])).mean().item()
        2.0
    """

    def __init__(self, pixels: Tensor, labels: Tensor, ids: Sequence[str], normalisation: Normalisation) -> None:
        self.pixels, self.labels, self.ids, self.normalisation = pixels, labels, ids, normalisation

    @property
    def bytes(self) -> int:
        """Memory that the pixels take, in bytes."""
        return self.pixels.nbytes

    def to(self, device: torch.device | str) -> TensorSplit:
        """Move the pixels to the memory of a device, in their own type: bytes stay bytes."""
        if torch.device(device) == self.device:
            return self
        return TensorSplit(self.pixels.to(device), self.labels.to(device), self.ids, self.normalisation)

    def batch(self, indices: Tensor) -> Tensor:
        """Read images."""
        pixels = self.pixels[indices]
        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 255
        return self.normalisation.apply(pixels)


def check_cut(size: object, resize: object) -> tuple[int, int]:
    """Check that a centre of ``size`` pixels can be cropped from an image whose shorter side has ``resize``.

    Args:
        size: Side of the square that is cropped.
        resize: Length that the shorter side is resized to; None for ``size``.

    Returns:
        ``size`` and ``resize`` as ints.

    Raises:
        InputError: If they are not whole numbers of at least 1, or ``resize`` is below ``size``.
    """
    size = check_count("size", size)
    resize = size if resize is None else check_count("resize", resize)
    if resize < size:
        raise InputError(
            f"resize must be at least size: no centre of {size} pixels can be cropped from an image whose shorter "
            f"side has {resize}. Pass resize={size} or more (dataset.resize={size}), or a smaller size "
            "(dataset.size)."
        )
    return size, resize


def check_interpolation(interpolation: object) -> str:
    """Check the name of an interpolation.

    Args:
        interpolation: The name.

    Returns:
        ``interpolation``.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    if interpolation not in INTERPOLATIONS:
        raise unknown_name("interpolation", interpolation, INTERPOLATIONS)
    return str(interpolation)


class FileSplit(Split):
    """Split of image files, read when needed: resized, then cropped at the centre.

    Args:
        root: Folder that the names of the images are relative to.
        files: Paths of the images.
        labels: Labels (N,), int64.
        normalisation: Normalisation of the pixels.
        resize: Length that the shorter side is resized to, in pixels.
        size: Side of the square that is cropped, in pixels.
        interpolation: Interpolation of the resizing, as torchvision names it, such as "bilinear" or "bicubic".

    Raises:
        InputError: If ``resize`` or ``size`` is unusable.
        UnknownNameError: If there is no such interpolation.

    Example:
        >>> from PIL import Image
        >>> Image.new("RGB", (40, 30), (255, 0, 0)).save(folder / "red.png")
        >>> scale = cpath.data.Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> split = cpath.data.FileSplit(folder, [folder / "red.png"], torch.tensor([0]), scale, resize=24, size=16)
        >>> split.batch(torch.tensor([0])).shape, list(split.ids)
        (torch.Size([1, 3, 16, 16]), ['red.png'])
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        labels: Tensor,
        normalisation: Normalisation,
        resize: int,
        size: int,
        interpolation: str = "bilinear",
    ) -> None:
        self.interpolation = check_interpolation(interpolation)
        self.root, self.files, self.labels = root, files, labels
        self.ids = [str(file.relative_to(root)) for file in files]
        self.normalisation = normalisation
        self.size, self.resize = check_cut(size, resize)

    def batch(self, indices: Tensor) -> Tensor:
        """Read images."""
        return self.normalisation.apply(self.read(indices).float() / 255)

    def read(self, indices: Tensor) -> Tensor:
        """Read images without normalising them.

        Args:
            indices: Numbers of the images (B,).

        Returns:
            Bytes (B, C, H, W), uint8.

        Raises:
            InputError: If a file is not a readable image.
        """
        return torch.stack([self._decoded(self.files[int(index)]) for index in indices])

    def digest(self, *, with_size: bool = False) -> str:
        """Compute a short hash over the names and sizes of the files, in order.

        Args:
            with_size: Hash the resizing and cropping too.

        Returns:
            16 hexadecimal digits.

        Raises:
            InputError: If a file is a broken link or has gone.
        """
        files = "\n".join(f"{name}:{_bytes(file)}" for name, file in zip(self.ids, self.files, strict=True))
        # Trained models are stored under the one hash and decoded images under the other: neither may change.
        how = "" if self.interpolation == "bilinear" else f" {self.interpolation}"
        text = f"{self.resize} {self.size}{how}{files}\n" if with_size else files
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _decoded(self, file: Path) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        # PIL resizes as torchvision's reference weights were evaluated; tensors resize differently.
        resized = F.resize(_in_colour(file), [self.resize], InterpolationMode(self.interpolation))
        pixels: Tensor = F.pil_to_tensor(F.center_crop(resized, [self.size, self.size]))
        return pixels


def _bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        what = "is a broken link" if file.is_symlink() else "cannot be read"
        raise InputError(f"{file} {what}: {error.strerror}. Remove it from the dataset, or repair it.") from error


def _in_colour(file: Path) -> Image.Image:
    """Decode an image file as RGB, as torchvision's ImageFolder does, but scale what has more than 8 bits."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return (_in_bytes(image) if image.mode[0] in "IF" else image).convert("RGB")
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{file} is too large to be decoded safely: {error} Make it smaller, or raise "
            "PIL.Image.MAX_IMAGE_PIXELS if you trust the file."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything in the decoder
        raise InputError(f"{file} is not a readable image: {error}") from error


def _in_bytes(image: Image.Image) -> Image.Image:
    """Scale a grey image of 16 bits, or of floats in [0, 1], to 8 bits."""
    from PIL import Image

    values = np.asarray(image)
    floats = image.mode == "F"
    most = 1 if floats else 2**16 - 1
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= most):
        kind = "floats" if floats else "whole numbers"
        raise ValueError(f"its pixels are {kind} from {low:g} to {high:g}; they must lie in [0, {most}]")
    return Image.fromarray((values * (255.0 / most)).round().astype(np.uint8))
