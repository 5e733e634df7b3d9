"""Digits of two classes, and networks that tell them apart by one logit, or by two that say the same."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from cpath.data import ImageData, TensorSplit
from tests.experiments import tiny

CLASSES = ("below five", "five or more")


def pairs() -> ImageData:
    """A few digits, divided at five."""
    data = tiny.digits()

    def halves(split: TensorSplit) -> TensorSplit:
        return TensorSplit(split.pixels, (split.labels >= 5).long(), split.ids, split.normalisation)

    return replace(
        data,
        name="pairs",
        classes=CLASSES,
        train=halves(data.train),
        val=halves(data.val),
        test=halves(data.test),
        settings={**data.settings, "pairs": True},
    )


class Network(nn.Module):
    """A convolutional network with one logit z, returned as the logits of a form.

    Args:
        form: ``column``: (B, 1); ``flat``: (B,); ``two``: the logits (−z/2, z/2) of two classes.
    """

    def __init__(self, classes: int, shape: tuple[int, int, int], form: str) -> None:
        super().__init__()
        assert classes == 2
        self.form = form
        self.conv1, self.conv2 = nn.Conv2d(shape[0], 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2)
        self.relu1, self.relu2 = nn.ReLU(), nn.ReLU()
        self.out = nn.Linear(6 * 3 * 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.relu2(self.conv2(self.relu1(self.conv1(images))))
        logit = self.out(hidden.flatten(1))
        return {"column": logit, "flat": logit.squeeze(1), "two": torch.cat([-logit / 2, logit / 2], 1)}[self.form]
