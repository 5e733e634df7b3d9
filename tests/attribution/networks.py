"""What tests of attributions share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests import zoo


def predicted(model: nn.Module, images: Tensor) -> list[int]:
    with torch.no_grad():
        return model(images.clone()).argmax(1).tolist()


def one_by_one(model: nn.Module, images: Tensor, of: Callable[[Tensor, int], Tensor]) -> Tensor:
    return torch.stack([of(x, c) for x, c in zip(images, predicted(model, images), strict=True)])


class SkipBeforeRelu(nn.Module):
    """Reads the ReLU's input twice, so that a hook at that input sees more than the ReLU's gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, zoo.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc((x + self.conv(self.relu(x))).mean((2, 3)))
