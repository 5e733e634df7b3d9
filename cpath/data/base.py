"""What a dataset is: named splits of images that are read in batches, normalised."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cpath.checks import check_count, check_number, check_seed
from cpath.errors import InputError


class Split(ABC, Dataset[tuple[Tensor, int]]):
    """Images with labels, read by index. Normalised floats (C, H, W), as the model takes them."""

    ids: Sequence[str]
    """A name for each image, stable from run to run."""
    labels: Tensor
    """(N,) int64"""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where images and labels lie, and where indices of images are expected."""
        return self.labels.device

    @property
    def bytes(self) -> int | None:
        """Memory that the images take; None where they are files, read when asked for."""
        return None

    def to(self, device: torch.device | str) -> Split:
        """The split with its images in the memory of ``device``; itself where they are files."""
        return self

    def placed(self, device: torch.device | str, memory_gb: float = 8.0) -> Split:
        """The split on ``device`` if it is in memory and no larger than ``memory_gb``; itself otherwise."""
        return self.to(device) if self.bytes is not None and self.bytes <= memory_gb * 1e9 else self

    @abstractmethod
    def batch(self, indices: Tensor) -> Tensor:
        """The images of ``indices`` (B,), as (B, C, H, W)."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.batch(torch.tensor([index]))[0], int(self.labels[index])

    def sample(self, count: int | None, seed: int) -> Tensor:
        """Indices of ``count`` images drawn without replacement by ``seed``; all of them, in order, for None."""
        if count is None:
            return torch.arange(len(self))
        seed = check_seed(seed)
        if check_count("the number of images", count) > len(self):
            raise InputError(f"{count} images asked for, the split has {len(self)}.")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return order[:count]


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if isinstance(values, str) or not isinstance(values, Sequence):
                raise InputError(f"{name} must be numbers, one a channel, not {values!r}.")
            for value in values:
                check_number(name, value)
        if not self.mean or len(self.mean) != len(self.std):
            raise InputError(
                f"mean and std must have a number for each channel; got {len(self.mean)} and {len(self.std)}."
            )
        if min(self.std) <= 0:
            raise InputError(f"std must be above 0 in every channel, for pixels are divided by it; got {self.std}.")

    def apply(self, pixels: Tensor) -> Tensor:
        """Normalised from pixels (…, C, H, W) in [0, 1]."""
        return (pixels - self._column(self.mean, pixels)) / self._column(self.std, pixels)

    def invert(self, images: Tensor) -> Tensor:
        """Pixels in [0, 1] from normalised images (…, C, H, W)."""
        return images * self._column(self.std, images) + self._column(self.mean, images)

    @staticmethod
    def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
        return like.new_tensor(values).view(-1, 1, 1)


@dataclass(frozen=True)
class ImageData:
    """A dataset: its splits, classes, image shape and normalisation."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """(C, H, W)"""
    normalisation: Normalisation
    test: Split
    train: Split | None = None
    """None where only evaluation images are at hand; so is ``val``."""
    val: Split | None = None
    settings: dict[str, object] = field(default_factory=dict)
    """Everything that determines the images, for the keys of artifacts; empty: what the configuration says."""

    def training_splits(self) -> tuple[Split, Split]:
        """The training and validation split; raises `InputError` where there are none."""
        if self.train is None or self.val is None:
            raise InputError(
                f"dataset '{self.name}' has no training images here, so no model can be trained on it: "
                "give it the splits train and val, or load weights (model.weights=…, checkpoint=FILE)."
            )
        return self.train, self.val


class TensorSplit(Split):
    """A split that is in memory: pixels (N, C, H, W), uint8 or floats in [0, 1]."""

    def __init__(self, pixels: Tensor, labels: Tensor, ids: Sequence[str], normalisation: Normalisation) -> None:
        self.pixels, self.labels, self.ids, self.normalisation = pixels, labels, ids, normalisation

    @property
    def bytes(self) -> int:
        """Memory that the pixels take."""
        return self.pixels.nbytes

    def to(self, device: torch.device | str) -> TensorSplit:
        """The split in the memory of ``device``, its pixels as they are: bytes stay bytes."""
        if torch.device(device) == self.device:
            return self
        return TensorSplit(self.pixels.to(device), self.labels.to(device), self.ids, self.normalisation)

    def batch(self, indices: Tensor) -> Tensor:
        """The images of ``indices`` (B,), as (B, C, H, W)."""
        pixels = self.pixels[indices]
        if pixels.dtype == torch.uint8:
            pixels = pixels.float() / 255
        return self.normalisation.apply(pixels)


def check_cut(size: object, resize: object) -> tuple[int, int]:
    """``size`` and ``resize`` of images (``resize`` None: ``size``); raises `InputError` where none can be cut so.

    The centre of ``size`` pixels is cut out of an image whose shorter side has ``resize``.
    """
    size = check_count("size", size)
    resize = size if resize is None else check_count("resize", resize)
    if resize < size:
        raise InputError(
            f"resize must be at least size: of an image whose shorter side has {resize} pixels no centre of {size} "
            f"can be cut. Pass resize={size} or more (dataset.resize={size}), or a smaller size (dataset.size)."
        )
    return size, resize


class FileSplit(Split):
    """A split of image files, read when asked for: shorter side resized to ``resize``, centre crop ``size``."""

    def __init__(
        self,
        root: Path,
        files: Sequence[Path],
        labels: Tensor,
        normalisation: Normalisation,
        resize: int,
        size: int,
    ) -> None:
        self.root, self.files, self.labels = root, files, labels
        self.ids = [str(file.relative_to(root)) for file in files]
        self.normalisation = normalisation
        self.size, self.resize = check_cut(size, resize)

    def batch(self, indices: Tensor) -> Tensor:
        """The images of ``indices`` (B,), as (B, C, H, W)."""
        return self.normalisation.apply(self.read(indices).float() / 255)

    def read(self, indices: Tensor) -> Tensor:
        """The images of ``indices`` as bytes, (B, C, H, W) uint8."""
        return torch.stack([self._decoded(self.files[int(index)]) for index in indices])

    def digest(self, *, with_size: bool = False) -> str:
        """Short hash over names and sizes of the files, in order; ``with_size`` also over how they are cut."""
        files = "\n".join(f"{name}:{file.stat().st_size}" for name, file in zip(self.ids, self.files, strict=True))
        # Trained models are kept under the one and decoded images under the other: they must not change.
        text = f"{self.resize} {self.size}{files}\n" if with_size else files
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _decoded(self, file: Path) -> Tensor:
        from PIL import Image, UnidentifiedImageError
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        try:
            with Image.open(file) as image:
                # PIL resizes as torchvision's reference weights were evaluated; tensors resize differently.
                resized = F.resize(image.convert("RGB"), [self.resize], InterpolationMode.BILINEAR)
        except (OSError, UnidentifiedImageError) as error:
            raise InputError(f"{file} is not a readable image: {error}") from error
        pixels: Tensor = F.pil_to_tensor(F.center_crop(resized, [self.size, self.size]))
        return pixels
