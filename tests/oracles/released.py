"""What the released code computes, by the book: one image at a time, Python floats and sets."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tests.oracles import contribution
from tests.oracles.networks import Network, Weights

# The scale of each node: the released code adds 0, then .1, then .2, … to what is there.
SCALES = [0.0, 0.1, 0.3, 0.6, 1.0, 1.5, 2.1, 2.8, 3.6, 4.5, 5.5]


def intgrad(network: Network, weights: Weights, image: Tensor, target: int, site: str) -> Tensor:
    """The activation times the plain mean of the gradients at all scales."""
    return contribution.intgrad(network, weights, image, target, site, [(scale, 1 / 11) for scale in SCALES])


def greedy(
    network: Network, weights: Weights, image: Tensor, target: int, rounds: int, sparsity: float, first: int = 1
) -> dict[str, Tensor]:
    """Masks that the released loop ends with; its rounds count from `first`."""
    _, seen = contribution.run(network, weights, image[None])
    masks = {name: torch.ones_like(output) for name, output in seen.items()}
    for done in range(first, first + rounds):
        logits, seen = contribution.run(network, weights, contribution.tracked(image), masks=masks)
        gradients = torch.autograd.grad(logits[0, target], list(seen.values()))
        scores = {
            (name, i): abs(score)
            for (name, output), gradient in zip(seen.items(), gradients, strict=True)
            for i, score in enumerate((output * gradient).flatten().tolist())
        }
        # Zeros count as the largest score, and are switched on whatever the threshold.
        largest_first = sorted(math.inf if score == 0 else score for score in scores.values())
        place = math.ceil(done * sparsity / rounds * len(scores) / 100)
        threshold = largest_first[place - 1] if place else -1.0
        for (name, i), score in scores.items():
            masks[name].view(-1)[i] = float(score == 0 or score > threshold)
    return {name: mask[0].bool() for name, mask in masks.items()}
