"""Slow, obvious retraining: removal one image at a time, then a bare loop of steps, all in float64."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.oracles.removal import remove


def altered(images: Tensor, relevance: Tensor, percent: float, keep: bool) -> Tensor:
    """Images (N, C, H, W) after removal by a relevance (N, H, W) without ties; the mean colour is 0."""
    nothing = [0.0] * images.shape[1]
    rows = [
        remove(image.numpy(), its.numpy(), percent, True, keep, nothing)
        for image, its in zip(images, relevance, strict=True)
    ]
    return torch.from_numpy(np.stack(rows)).double()


def sgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    crop: int,
    flip: bool,
) -> None:
    """Trains ``model`` in place by plain gradient descent, the order and the augmentation drawn as documented."""
    model.double().train()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        draws = torch.Generator().manual_seed(seed * 1_000_003 + epoch + 1)
        for start in range(0, len(images), batch):
            chosen = order[start : start + batch]
            rows = augmented(images[chosen], draws, crop, flip)
            loss = F.cross_entropy(model(rows), labels[chosen])
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= rate * parameter.grad


def augmented(images: Tensor, draws: torch.Generator, crop: int, flip: bool) -> Tensor:
    """Flips first, then crops, image by image."""
    count, _, height, width = images.shape
    flips = torch.rand(count, generator=draws) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    places = torch.randint(0, 2 * crop + 1, (2, count, 1, 1), generator=draws).view(2, count)
    rows = []
    for k in range(count):
        image = images[k].flip(2) if flips[k] else images[k]
        padded = F.pad(image, (crop, crop, crop, crop))
        top, left = places[0, k], places[1, k]
        rows.append(padded[:, top : top + height, left : left + width])
    return torch.stack(rows)
