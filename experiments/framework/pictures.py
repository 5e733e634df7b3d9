"""What pictures say of the images in them: the pixels, and what the network sees there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from experiments.framework.subject import Images


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the network says of the first images."""

    target: Tensor
    """(B,) the predicted class."""
    probability: Tensor
    """(B,) float64, of that class."""
    titles: list[str]
    """Class and probability, two lines."""


def predictions(model: nn.Module, images: Images, count: int) -> Predictions:
    """Predicted classes of the first ``count`` images, with their probabilities."""
    with torch.no_grad():
        logits = model(images.batch(slice(0, count)))
    probability, target = logits.double().softmax(1).max(1)
    titles = [
        f"{images.data.classes[int(label)]}\n{_per_cent(float(p))}"
        for p, label in zip(probability, target, strict=True)
    ]
    return Predictions(target, probability, titles)


def _per_cent(probability: float) -> str:
    # 99.7 % is not certainty, and must not read like it.
    return f"{100 * probability:.0f} %" if probability < 0.995 else "> 99 %"


def pixels_of(images: Images, count: int) -> np.ndarray:
    """(count, H, W, C) pixels in [0, 1] of the first images."""
    pixels = images.data.normalisation.invert(images.batch(slice(0, count)).cpu()).clamp(0, 1)
    return np.asarray(pixels.permute(0, 2, 3, 1).numpy())
