"""ROAR and KAR (Hooker et al., NeurIPS 2019): datasets that lost their most, or least, relevant pixels.

Ranks of the pixels of every image lie in files, a chunk of images each, and are read as they are needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cpath.data import ImageData, Split
from cpath.errors import InputError
from cpath.evaluation.removal import remove_pixels, removed_pixels
from cpath.storage import open_tensors, write_tensors

_KIND, _FORMAT = "ranks", 1
_SPLITS = ("train", "val", "test")


class StoredRanks:
    """Ranks (N, H, W) of the pixels of a split's images, in files of ``chunk`` images each.

    Reading raises `InputError` for files of other chunks, or of another number of images.
    """

    def __init__(self, folder: Path, part: str, images: int, chunk: int) -> None:
        self.folder, self.part, self.images, self.chunk = folder, part, images, chunk

    def __len__(self) -> int:
        return self.images

    def file(self, number: int) -> Path:
        """The file of chunk ``number``."""
        return self.folder / f"{self.part}-{number:05d}.safetensors"

    def where(self) -> list[slice]:
        """The images of each chunk."""
        return [slice(k, min(k + self.chunk, self.images)) for k in range(0, self.images, self.chunk)]

    def write(self, compute: Callable[[slice], Tensor], chunks: Iterable[int] | None = None) -> None:
        """Stores the ranks that ``compute`` gives for the images of each chunk; chunks already there stay."""
        parts = self.where()
        for number in range(len(parts)) if chunks is None else chunks:
            if not self.file(number).exists():
                ranks = compute(parts[number])
                # 16 bits hold every rank of images up to 256×256.
                small = torch.uint16 if ranks[0].numel() <= 2**16 else torch.int32
                metadata = {"kind": _KIND, "format": _FORMAT, "chunk": self.chunk, "images": self.images}
                write_tensors(self.file(number), {"ranks": ranks.to(small)}, metadata)

    def read(self, indices: Tensor) -> Tensor:
        """Ranks (B, H, W) int32 of the images ``indices`` (B,); nothing else is read."""
        rows = []
        for index in indices.tolist():
            number, row = divmod(index, self.chunk)
            rows.append(self._ranks(number)[row : row + 1].to(torch.int32))
        return torch.cat(rows)

    def chunks(self) -> Iterable[Tensor]:
        """The ranks of all images, a chunk (B, H, W) int32 at a time."""
        for number in range(math.ceil(self.images / self.chunk)):
            yield self._ranks(number)[:].to(torch.int32)

    def _ranks(self, number: int) -> Any:
        """Those of chunk ``number``, to be sliced."""
        file = self.file(number)
        ranks, written = _opened(file, file.stat().st_mtime_ns if file.exists() else 0)
        mine = {"chunk": self.chunk, "images": self.images}
        rows = min(self.chunk, self.images - number * self.chunk)
        if ranks.get_shape()[0] != rows or {**mine, **written} != mine:  # files of old do not say
            raise InputError(
                f"{file} does not hold {rows} of {self.images} images, in chunks of {self.chunk}: its ranks were "
                "made for another split, or in other chunks."
            )
        return ranks


# Known by its last change too: made again, it is another file.
@lru_cache(maxsize=64)
def _opened(file: Path, changed: int) -> tuple[Any, dict[str, int]]:
    """The ranks of a file, to be sliced, and what it says of their chunk and split."""
    opened = open_tensors(file, _KIND, _FORMAT)
    header = json.loads(opened.metadata()["cpath"])
    return opened.get_slice("ranks"), {name: header[name] for name in ("chunk", "images") if name in header}


class AlteredSplit(Split):
    """A split whose images lack pixels: ``percent`` of the most relevant, or all but these with ``keep``.

    They are replaced by ``fill``, a normalised value: 0 is the mean colour. Removal comes before anything else that
    is done to the images. 0 per cent are the untouched images. Raises `InputError` for ranks of another split.
    """

    def __init__(
        self, split: Split, ranks: StoredRanks, percent: float, *, keep: bool = False, fill: float = 0.0
    ) -> None:
        if len(ranks) != len(split):
            raise InputError(f"ranks of {len(ranks)} images do not belong to a split of {len(split)}.")
        self.split, self.ranks, self.percent, self.keep, self.fill = split, ranks, percent, keep, fill
        self.ids, self.labels = split.ids, split.labels

    @property
    def bytes(self) -> int | None:
        """Memory of the images and of a mask for each."""
        pixels = self.split.bytes
        return None if pixels is None else pixels + len(self) * _pixels_of(self.split)

    def to(self, device: torch.device | str) -> Split:
        """The altered split in the memory of ``device``, its masks made once and for all."""
        if self.split.bytes is None:
            return self
        masks = [removed_pixels(ranks, self.percent, keep=self.keep) for ranks in self.ranks.chunks()]
        return MaskedSplit(self.split.to(device), torch.cat(masks).to(device), self.fill)

    def batch(self, indices: Tensor) -> Tensor:
        """The altered images of ``indices`` (B,), as (B, C, H, W)."""
        images = self.split.batch(indices)
        ranks = self.ranks.read(indices).to(images.device)
        return remove_pixels(images, ranks, self.percent, keep=self.keep, fill=self.fill)


class MaskedSplit(Split):
    """A split in memory with masks (N, H, W) of the pixels that are replaced by ``fill``."""

    def __init__(self, split: Split, removed: Tensor, fill: float) -> None:
        self.split, self.removed, self.fill = split, removed, fill
        self.ids, self.labels = split.ids, split.labels

    @property
    def bytes(self) -> int | None:
        """Memory of images and masks."""
        pixels = self.split.bytes
        return None if pixels is None else pixels + self.removed.nbytes

    def to(self, device: torch.device | str) -> MaskedSplit:
        """Images and masks in the memory of ``device``."""
        return MaskedSplit(self.split.to(device), self.removed.to(device), self.fill)

    def batch(self, indices: Tensor) -> Tensor:
        """The altered images of ``indices`` (B,), as (B, C, H, W)."""
        return self.split.batch(indices).masked_fill(self.removed[indices].unsqueeze(1), self.fill)


def _pixels_of(split: Split) -> int:
    image = split.batch(torch.zeros(1, dtype=torch.long, device=split.device))
    return image.shape[2] * image.shape[3]


def parts_of(data: ImageData) -> dict[str, Split]:
    """The splits train, val and test; raises `InputError` where there are no training images."""
    train, val = data.training_splits()
    return dict(zip(_SPLITS, (train, val, data.test), strict=True))


def stored_ranks(data: ImageData, folder: Path, chunk: int) -> dict[str, StoredRanks]:
    """Ranks of each split of ``data`` in ``folder``, or where they are to be."""
    return {name: StoredRanks(folder, name, len(split), chunk) for name, split in parts_of(data).items()}


def altered(
    data: ImageData,
    ranks: dict[str, StoredRanks],
    percent: float,
    *,
    keep: bool = False,
    fill: float = 0.0,
) -> ImageData:
    """``data`` with ``percent`` of the pixels removed (ROAR), or only these kept (KAR), in all three splits.

    Raises `InputError` for a percentage outside [0, 100].
    """
    if not 0 <= percent <= 100:
        raise InputError(f"percent must be between 0 and 100, not {percent}.")
    splits = {
        name: AlteredSplit(split, ranks[name], percent, keep=keep, fill=fill)
        for name, split in parts_of(data).items()
    }
    return replace(data, **splits)  # type: ignore[arg-type]
