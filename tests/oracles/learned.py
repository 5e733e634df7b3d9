"""Learned ranking by the book: one input, plain autograd, bisection for τ, PyTorch's own Adam."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tests.oracles.networks import Network, Weights
from tests.oracles.units import Values, run, spread


def ranks(order: Sequence[float], ranked: Sequence[bool]) -> list[float]:
    """From 0 to 1; the mean of the places of equal numbers; minus infinity for those that are not ranked."""
    values = sorted(value for value, part in zip(order, ranked, strict=True) if part)
    last = max(1, len(values) - 1)
    found = []
    for value, part in zip(order, ranked, strict=True):
        places = [place for place, other in enumerate(values) if other == value]
        found.append(sum(places) / len(places) / last if part else -torch.inf)
    return found


def gates(parameters: Tensor, budget: float, temperature: float) -> Tensor:
    """σ((s − τ) / T) with the sum k, as a function of s through τ too."""
    low, high = -1e3, 1e3
    for _ in range(200):
        middle = (low + high) / 2
        total = torch.sigmoid((parameters.detach() - middle) / temperature).sum()
        low, high = (middle, high) if total > budget else (low, middle)
    tau = (low + high) / 2
    # A step of Newton's method at the solution: it changes nothing, but knows how τ depends on s.
    at_tau = torch.sigmoid((parameters - tau) / temperature)
    slope = float((at_tau * (1 - at_tau)).detach().sum()) / temperature
    return torch.sigmoid((parameters - (tau + (at_tau.sum() - budget) / slope)) / temperature)


def train(
    network: Network,
    weights: Weights,
    image: Tensor,
    baseline: Values,
    unit: str,
    start: Sequence[float],
    sizes: Mapping[str, int],
    budgets: Sequence[float],
    *,
    classes: tuple[int, int],
    goal: float,
    learning_rate: float,
    temperature: float,
    necessity: float = 0.0,
    copies: Sequence[tuple[Tensor, float]] = (),
) -> Tensor:
    """The parameters of all units in a row, trained on |1 − F| + necessity |1 − N|, one step for each budget.

    Copies are other images with their goals: after a step on the image come two on copies, one after another.
    """
    _, outputs = run(network, weights, image, baseline)

    def margin(values: Tensor, image: Tensor) -> Tensor:
        parts = dict(zip(sizes, values.split(list(sizes.values())), strict=True))
        kept = {name: spread(parts[name], tuple(output.shape), unit) for name, output in outputs.items()}
        logits, _ = run(network, weights, image, baseline, kept)
        return logits[classes[0]] - logits[classes[1]]

    parameters = torch.tensor(start, dtype=image.dtype)
    ranked = parameters.isfinite()
    nothing = torch.zeros_like(parameters)
    free = parameters[ranked].requires_grad_()
    adam = torch.optim.Adam([free], lr=learning_rate)
    turns = [(image, goal), *copies]
    own_rise = goal - float(margin(nothing, image).detach())
    following = itertools.cycle(turns[1:])
    for step, budget in enumerate(budgets):
        here, aim = turns[0] if not copies or step % 3 == 0 else next(following)
        empty = float(margin(nothing, here).detach())
        rise = aim - empty
        opened = nothing.masked_scatter(ranked, gates(free, budget, temperature))
        loss = abs(1 - (margin(opened, here) - empty) / rise)
        if necessity:
            loss = loss + necessity * abs(margin(1 - opened, here) - empty) / abs(rise)
        if abs(rise) < 0.2 * abs(own_rise):
            loss = loss * 0  # the network itself does not give the answer there
        adam.zero_grad()
        loss.backward()
        adam.step()
    return parameters.masked_scatter(ranked, free.detach())
