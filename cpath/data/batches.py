"""Batches of a split: one way of cutting it, whether it lies in memory or is read by worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cpath.checks import check_at_least, check_count
from cpath.data.base import Split
from cpath.errors import InputError


class Batches:
    """Batches (images, labels) of a split, by number; in an order that ``seed`` alone decides.

    Iterated over, it serves a split in memory, from the device that it is on. To read files in worker processes,
    `torch.utils.data.DataLoader` takes it as a dataset whose items are batches (``batch_size=None``). Both give the
    same batches. With ``ranks`` processes, number ``rank`` gets its share of every batch: ``batch_size`` counts the
    images of all. The shares are filled up from the beginning of the order, so that all ranks have as many.
    """

    def __init__(
        self, split: Split, batch_size: int, *, seed: int | None = None, rank: int = 0, ranks: int = 1
    ) -> None:
        batch_size, ranks = check_count("batch_size", batch_size), check_count("ranks", ranks)
        if check_at_least(0, "rank", rank) >= ranks:
            raise InputError(f"rank must be below the number of ranks, {ranks}, not {rank}.")
        count = len(split)
        if seed is None:
            order = torch.arange(count)
        else:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        missing = -count % ranks
        order = torch.cat([order, order[:missing]])[rank::ranks]
        self.split = split
        self.parts = torch.split(order.to(split.device), max(1, batch_size // ranks))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch ``number``."""
        indices = self.parts[number]
        return self.split.batch(indices), self.split.labels[indices]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches in order."""
        return map(self.__getitem__, range(len(self)))
