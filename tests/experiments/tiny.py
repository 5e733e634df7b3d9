"""A dataset of a few digits, for tests of what surrounds the trainings."""

from __future__ import annotations

from dataclasses import replace

from cpath import data
from cpath.data import ImageData, TensorSplit

TRAIN, VAL, TEST = 64, 16, 36


def digits(size: int = 8, channels: int = 1, test: int = TEST) -> ImageData:
    """The first digits of each split."""
    whole = data.digits(size, channels)

    def few(split: TensorSplit, count: int) -> TensorSplit:
        return TensorSplit(split.pixels[:count], split.labels[:count], split.ids[:count], split.normalisation)

    return replace(
        whole,
        train=few(whole.train, TRAIN),
        val=few(whole.val, VAL),
        test=few(whole.test, test),
        settings={**whole.settings, "few": True, "test": test},
    )
