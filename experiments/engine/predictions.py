"""Predictions of the network for a batch, with the captions of pictures."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpath.response import check_logits, logits_of, predicted
from experiments.engine.images import Batch


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions for the images of a batch."""

    target: Tensor
    """(B,) the predicted class."""
    probability: Tensor
    """(B,) float64, of that class."""
    titles: list[str]
    """Predicted class, its probability, and the true class, in three lines."""


def predictions(model: nn.Module, batch: Batch) -> Predictions:
    """Predict the classes of a batch.

    Args:
        model: in eval mode.
        batch: the images, of a dataset that names the classes.

    Returns:
        Classes, probabilities and captions.
    """
    with torch.no_grad():
        output = model(batch.images.clone())  # a model may change its input in place
    target = predicted(check_logits(output, len(batch)))
    probability = logits_of(output).double().softmax(1).gather(1, target.unsqueeze(1)).squeeze(1)
    names = batch.source.data.classes
    titles = [
        f"predicted {names[int(label)]}\n({_per_cent(float(share))})\ntrue {names[int(true)]}"
        for share, label, true in zip(probability, target, batch.labels, strict=True)
    ]
    return Predictions(target, probability, titles)


def _per_cent(probability: float) -> str:
    # 99.7 % is not certainty, and must not read like it.
    return f"{100 * probability:.0f} %" if probability < 0.995 else "> 99 %"
