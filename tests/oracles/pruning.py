"""Greedy pruning by the book: one image, a network pass a round, Python sets of neurons."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.oracles import contribution
from tests.oracles.networks import Network, Weights

Neuron = tuple[str, int]


def rounds_of_removal(
    network: Network, weights: Weights, image: Tensor, target: int, rounds: int, power: float
) -> dict[Neuron, tuple[int, float]]:
    """(round of removal, contribution in that round) of every neuron that was ever active."""
    removed: dict[Neuron, tuple[int, float]] = {}
    at_start = 0
    for done in range(1, rounds + 1):
        contributions = _contributions(network, weights, image, target, set(removed))
        at_start = at_start or len(contributions)
        leave = int(((rounds - done) / rounds) ** power * at_start)
        ascending = sorted(contributions.values())
        too_many = max(0, len(contributions) - leave)
        threshold = ascending[too_many - 1] if too_many else 0.0
        removed |= {neuron: (done, value) for neuron, value in contributions.items() if value <= threshold}
    return removed


def _contributions(
    network: Network, weights: Weights, image: Tensor, target: int, removed: set[Neuron]
) -> dict[Neuron, float]:
    """|z · ∂f/∂z| of the neurons that are active in the network without ``removed``."""
    _, seen = contribution.run(network, weights, image[None])
    masks = {name: torch.ones_like(output) for name, output in seen.items()}
    for name, index in removed:
        masks[name].view(-1)[index] = 0
    logits, seen = contribution.run(network, weights, contribution.tracked(image), masks=masks)
    gradients = torch.autograd.grad(logits[0, target], list(seen.values()))
    found = {}
    for (name, output), gradient in zip(seen.items(), gradients, strict=True):
        for index, (z, slope) in enumerate(
            zip(output.flatten().tolist(), gradient.flatten().tolist(), strict=True)
        ):
            if z > 0:
                found[name, index] = abs(z * slope)
    return found


def places(removed: dict[Neuron, tuple[int, float]]) -> dict[Neuron, int]:
    """1 + how many went before, by neuron; contributions of a round tell two neurons apart as float32 does."""
    single = {neuron: (done, torch.tensor(value).item()) for neuron, (done, value) in removed.items()}
    first: dict[tuple[int, float], int] = {}
    for place, when in enumerate(sorted(single.values()), start=1):
        first.setdefault(when, place)
    return {neuron: first[when] for neuron, when in single.items()}
