"""ROAR and KAR: datasets that lost their most relevant pixels, or all others.

The ranks of the pixels of every image are stored in files, a chunk of images each, and read as they are needed.

Source: Hooker et al., A Benchmark for Interpretability Methods in Deep Neural Networks, NeurIPS 2019.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpath.checks import check_count
from cpath.data import ImageData, Normalisation, Split, TensorSplit
from cpath.errors import InputError
from cpath.evaluation.removal import remove_pixels, removed_pixels
from cpath.storage import open_tensors, write_tensors

_KIND, _FORMAT = "ranks", 1
_SPLITS = ("train", "val", "test")
_AT_ONCE = 256  # images that are filled in at a time

RetrainingFill = float | Callable[[Tensor, Tensor], Tensor]
"""Replacement of removed pixels: a value, or a function of images (B, C, H, W) and removed pixels (B, H, W)."""


class StoredRanks:
    """Ranks (N, H, W) of the pixels of a split's images, in files. Nothing is read or written before it is needed.

    Reading raises `InputError` for files of other chunks, or of another number of images.

    Args:
        files: File of each chunk, in the order of the images.
        images: Number of images in the split.
        chunk: Number of images per file; the last one may hold fewer.

    Raises:
        InputError: If there are not as many files as chunks.

    Example:
        >>> ranks = cpath.evaluation.StoredRanks([folder / "first", folder / "last"], images=3, chunk=2)
        >>> for number, images in enumerate(ranks.where()):
        ...     ranks.write(number, torch.arange(4).view(1, 2, 2).expand(images.stop - images.start, 2, 2))
        >>> ranks.read(torch.tensor([2, 0])).shape
        torch.Size([2, 2, 2])
    """

    def __init__(self, files: Sequence[Path], images: int, chunk: int) -> None:
        self.files, self.images, self.chunk = list(files), images, chunk
        if len(self.files) != len(self.where()):
            raise InputError(
                f"{images} images in chunks of {chunk} need {len(self.where())} files, not {len(self.files)}."
            )

    def __len__(self) -> int:
        return self.images

    def where(self) -> list[slice]:
        """List the images of each chunk.

        Returns:
            One slice for each chunk.
        """
        return chunks_of(self.images, self.chunk)

    def write(self, number: int, ranks: Tensor) -> None:
        """Store the ranks of a chunk.

        Args:
            number: Number of the chunk, from 0.
            ranks: Ranks of its images (B, H, W), from `rank_pixels`.

        Raises:
            InputError: If they are not the ranks of as many images.
        """
        where = self.where()[number]
        if ranks.dim() != 3 or len(ranks) != where.stop - where.start:
            raise InputError(
                f"chunk {number} needs ranks ({where.stop - where.start}, H, W), not {tuple(ranks.shape)}."
            )
        # 16 bits hold every rank of images up to 256×256.
        small = torch.uint16 if ranks[0].numel() <= 2**16 else torch.int32
        metadata = {"kind": _KIND, "format": _FORMAT, "chunk": self.chunk, "images": self.images}
        write_tensors(self.files[number], {"ranks": ranks.to(small)}, metadata)

    def read(self, indices: Tensor) -> Tensor:
        """Read the ranks of some images, and nothing else.

        Args:
            indices: Numbers of the images (B,).

        Returns:
            Ranks (B, H, W), int32.

        Raises:
            InputError: If the ranks are not stored, or belong to another split or other chunks.
        """
        rows = []
        for index in indices.tolist():
            number, row = divmod(index, self.chunk)
            rows.append(self._ranks(number)[row : row + 1].to(torch.int32))
        return torch.cat(rows)

    def chunks(self) -> Iterable[Tensor]:
        """Read the ranks of all images, one chunk at a time.

        Returns:
            Iterator over ranks (B, H, W), int32.
        """
        for number in range(len(self.files)):
            yield self._ranks(number)[:].to(torch.int32)

    def _ranks(self, number: int) -> Any:
        """Open the ranks of chunk ``number``, to be sliced."""
        file = self.files[number]
        ranks, written = _opened(file, file.stat().st_mtime_ns if file.exists() else 0)
        mine = {"chunk": self.chunk, "images": self.images}
        rows = min(self.chunk, self.images - number * self.chunk)
        if ranks.get_shape()[0] != rows or {**mine, **written} != mine:  # older files lack these entries
            raise InputError(
                f"{file} does not hold {rows} of {self.images} images, in chunks of {self.chunk}: its ranks were "
                "made for another split, or in other chunks."
            )
        return ranks


# The time of the last change is part of the key: a file that was written again is another file.
@lru_cache(maxsize=64)
def _opened(file: Path, changed: int) -> tuple[Any, dict[str, int]]:
    """Open the ranks of a file, to be sliced, and read its statement of chunk size and number of images."""
    opened = open_tensors(file, _KIND, _FORMAT)
    header = json.loads(opened.metadata()["cpath"])
    return opened.get_slice("ranks"), {name: header[name] for name in ("chunk", "images") if name in header}


class AlteredSplit(Split):
    """Split whose images lack pixels: the most relevant ones, or all but these.

    The removal comes before anything else that is done to the images.

    Args:
        split: The original images.
        ranks: Ranks of their pixels.
        percent: Per cent of the pixels, as for `removed_pixels`. 0 leaves the images untouched.
        keep: Remove all but the most relevant pixels.
        fill: Normalised value of a removed pixel: 0 is the mean colour. Or a function such as `NoisyLinear`, whose
            images are made once and held as floats where the split is moved to memory.

    Raises:
        InputError: If the ranks belong to another number of images.

    Example:
        >>> scale = cpath.data.Normalisation(mean=(0.5,), std=(0.25,))
        >>> split = cpath.data.TensorSplit(torch.rand(3, 1, 2, 2), torch.arange(3), list("abc"), scale)
        >>> ranks = cpath.evaluation.StoredRanks([folder / "all"], images=3, chunk=3)
        >>> ranks.write(0, torch.arange(4).view(1, 2, 2).expand(3, 2, 2))
        >>> altered = cpath.evaluation.AlteredSplit(split, ranks, percent=50)
        >>> altered.batch(torch.tensor([1]))[0, 0, 0].tolist()
        [0.0, 0.0]
    """

    def __init__(
        self, split: Split, ranks: StoredRanks, percent: float, *, keep: bool = False, fill: RetrainingFill = 0.0
    ) -> None:
        if len(ranks) != len(split):
            raise InputError(f"ranks of {len(ranks)} images do not belong to a split of {len(split)}.")
        self.split, self.ranks, self.percent, self.keep, self.fill = split, ranks, percent, keep, fill
        self.ids, self.labels = split.ids, split.labels

    @property
    def bytes(self) -> int | None:
        """Memory of the images, with a mask for each or filled in as floats, in bytes; None if they are files."""
        pixels = self.split.bytes
        if pixels is None:
            return None
        channels, height, width = _shape_of(self.split)
        filled_in = callable(self.fill)
        return len(self) * height * width * (4 * channels if filled_in else 1) + (0 if filled_in else pixels)

    def to(self, device: torch.device | str) -> Split:
        """Move the altered images to the memory of a device, with their masks made once and for all."""
        if self.split.bytes is None:
            return self
        if callable(self.fill):
            parts = torch.arange(len(self), device=self.device).split(_AT_ONCE)  # type: ignore[no-untyped-call]
            images = torch.cat([self.batch(part) for part in parts])
            channels = images.shape[1]
            as_they_are = Normalisation((0.0,) * channels, (1.0,) * channels)
            return TensorSplit(images.to(device), self.labels.to(device), self.ids, as_they_are)
        masks = [removed_pixels(ranks, self.percent, keep=self.keep) for ranks in self.ranks.chunks()]
        return MaskedSplit(self.split.to(device), torch.cat(masks).to(device), self.fill)

    def batch(self, indices: Tensor) -> Tensor:
        """Read altered images."""
        images = self.split.batch(indices)
        ranks = self.ranks.read(indices).to(images.device)
        return remove_pixels(images, ranks, self.percent, keep=self.keep, fill=self.fill)


class MaskedSplit(Split):
    """Split in memory, with masks of the pixels that are replaced.

    Args:
        split: The original images.
        removed: Booleans (N, H, W), True for a replaced pixel.
        fill: Normalised value of a replaced pixel.
    """

    def __init__(self, split: Split, removed: Tensor, fill: float) -> None:
        self.split, self.removed, self.fill = split, removed, fill
        self.ids, self.labels = split.ids, split.labels

    @property
    def bytes(self) -> int | None:
        """Memory of images and masks, in bytes."""
        pixels = self.split.bytes
        return None if pixels is None else pixels + self.removed.nbytes

    def to(self, device: torch.device | str) -> MaskedSplit:
        """Move images and masks to the memory of a device."""
        return MaskedSplit(self.split.to(device), self.removed.to(device), self.fill)

    def batch(self, indices: Tensor) -> Tensor:
        """Read altered images."""
        return self.split.batch(indices).masked_fill(self.removed[indices].unsqueeze(1), self.fill)


def _shape_of(split: Split) -> torch.Size:
    return split.batch(torch.zeros(1, dtype=torch.long, device=split.device)).shape[1:]


def parts_of(data: ImageData) -> dict[str, Split]:
    """Name the splits of a dataset.

    Args:
        data: The dataset.

    Returns:
        The splits "train", "val" and "test".

    Raises:
        InputError: If there are no training images.

    Example:
        >>> list(cpath.evaluation.parts_of(cpath.data.digits()))
        ['train', 'val', 'test']
    """
    train, val = data.training_splits()
    return dict(zip(_SPLITS, (train, val, data.test), strict=True))


def chunks_of(images: int, chunk: int) -> list[slice]:
    """Divide images into chunks.

    Args:
        images: Number of images.
        chunk: Number of images per chunk.

    Returns:
        The images of each chunk; the last one may hold fewer.

    Raises:
        InputError: If ``chunk`` is not a positive whole number.

    Example:
        >>> cpath.evaluation.chunks_of(5, chunk=3)
        [slice(0, 3, None), slice(3, 5, None)]
    """
    chunk = check_count("chunk", chunk)
    return [slice(start, min(start + chunk, images)) for start in range(0, images, chunk)]


def stored_ranks(data: ImageData, folder: Path, chunk: int) -> dict[str, StoredRanks]:
    """Make the objects that store the ranks of each split. No file is read or written.

    Args:
        data: The dataset.
        folder: Folder of the files.
        chunk: Number of images per file.

    Returns:
        Ranks by name of the split.

    Raises:
        InputError: If there are no training images.

    Example:
        >>> ranks = cpath.evaluation.stored_ranks(cpath.data.digits(), folder, chunk=500)
        >>> {name: len(part) for name, part in ranks.items()}
        {'train': 1257, 'val': 180, 'test': 360}
    """
    found = {}
    for name, split in parts_of(data).items():
        files = [folder / f"{name}-{number:05d}.safetensors" for number in range(len(chunks_of(len(split), chunk)))]
        found[name] = StoredRanks(files, len(split), chunk)
    return found


def altered(
    data: ImageData,
    ranks: Mapping[str, StoredRanks],
    percent: float,
    *,
    keep: bool = False,
    fill: RetrainingFill = 0.0,
) -> ImageData:
    """Remove pixels from all images of a dataset (ROAR), or all but these (KAR), in all three splits.

    Args:
        data: The dataset.
        ranks: Ranks of the pixels by name of the split, as `stored_ranks` gives them.
        percent: Per cent of the pixels, in [0, 100].
        keep: Keep only these pixels (KAR).
        fill: Normalised value of a removed pixel: 0 is the mean colour. Or a function such as `NoisyLinear`.

    Returns:
        The altered dataset. Its images are altered as they are read.

    Raises:
        InputError: If ``percent`` is outside [0, 100] or there are no training images.

    Source: Hooker et al., NeurIPS 2019.

    Example:
        >>> data = cpath.data.digits()
        >>> ranks = cpath.evaluation.stored_ranks(data, folder, chunk=500)
        >>> cpath.evaluation.altered(data, ranks, percent=90).train.percent
        90
    """
    if not 0 <= percent <= 100:
        raise InputError(f"percent must be between 0 and 100, not {percent}.")
    splits = {
        name: AlteredSplit(split, ranks[name], percent, keep=keep, fill=fill)
        for name, split in parts_of(data).items()
    }
    return replace(data, **splits)  # type: ignore[arg-type]
