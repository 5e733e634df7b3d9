"""Batches of a split, cut in one way whether the split is in memory or read by worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cpath.checks import check_at_least, check_count
from cpath.data.base import Split
from cpath.errors import InputError
from cpath.randomness import seeded


class Batches:
    """Batches (images, labels) of a split, by number, in an order that the seed alone decides.

    Iterating over it suits a split in memory and computes on the split's device. To read files in worker processes,
    pass it to `torch.utils.data.DataLoader` as a dataset whose items are batches (``batch_size=None``). Both give
    the same batches. With several processes, each gets its share of every batch; the shares are filled up from the
    beginning of the order, so that all processes have equally many images.

    Args:
        split: The images.
        batch_size: Number of images in a batch, those of all processes together.
        seed: Seed of the order; None for the order of the split.
        rank: Number of this process.
        ranks: Number of processes.

    Raises:
        InputError: If a number is out of range.

    Example:
        >>> scale = cpath.data.Normalisation(mean=(0.5,), std=(0.25,))
        >>> split = cpath.data.TensorSplit(torch.rand(5, 1, 4, 4), torch.arange(5), list("abcde"), scale)
        >>> [labels.tolist() for _, labels in cpath.data.Batches(split, batch_size=2)]
        [[0, 1], [2, 3], [4]]
    """

    def __init__(
        self, split: Split, batch_size: int, *, seed: int | None = None, rank: int = 0, ranks: int = 1
    ) -> None:
        batch_size, ranks = check_count("batch_size", batch_size), check_count("ranks", ranks)
        if check_at_least(0, "rank", rank) >= ranks:
            raise InputError(f"rank must be below the number of ranks, {ranks}, not {rank}.")
        count = len(split)
        if seed is None:
            order = torch.arange(count, device="cpu")
        else:
            order = torch.randperm(count, generator=seeded(seed), device="cpu")
        missing = -count % ranks
        order = torch.cat([order, order[:missing]])[rank::ranks]
        self.split = split
        self.parts = torch.split(order.to(split.device), max(1, batch_size // ranks))

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Read one batch.

        Args:
            number: Number of the batch.

        Returns:
            Images (B, C, H, W) and labels (B,).
        """
        indices = self.parts[number]
        return self.split.batch(indices), self.split.labels[indices]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over all batches in order."""
        return map(self.__getitem__, range(len(self)))
