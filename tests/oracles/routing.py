"""Distillation guided routing by the book: one image, plain autograd, PyTorch's own SGD."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.oracles import contribution
from tests.oracles.networks import Network, Weights

Gates = dict[str, Tensor]


def route(
    network: Network,
    weights: Weights,
    image: Tensor,
    start: Gates,
    *,
    iterations: int,
    learning_rate: float,
    momentum: float,
    gamma: float,
    max_gate: float = 100.0,
    retries: int = 100,
) -> tuple[Gates | None, int]:
    """The gates of one image (C, H, W), and how often γ was divided; None when every try failed."""
    for division in range(retries + 1):
        found = _try(network, weights, image, start, iterations, learning_rate, momentum, gamma, max_gate)
        if found is not None:
            return found, division
        gamma = gamma / 10
    return None, retries


def _try(
    network: Network,
    weights: Weights,
    image: Tensor,
    start: Gates,
    iterations: int,
    learning_rate: float,
    momentum: float,
    gamma: float,
    max_gate: float,
) -> Gates | None:
    with torch.no_grad():
        original, _ = contribution.run(network, weights, image[None])
    p = torch.softmax(original[0], 0)
    gates = {name: gate.clone().requires_grad_() for name, gate in start.items()}
    optimiser = torch.optim.SGD(gates.values(), lr=learning_rate, momentum=momentum)

    def evaluate() -> tuple[Tensor, int]:
        logits, _ = contribution.run(network, weights, image[None], masks=gates)
        cross_entropy = -(p * torch.log_softmax(logits[0], 0)).sum()
        return cross_entropy + gamma * sum(gate.sum() for gate in gates.values()), int(logits[0].argmax())

    best, lowest = None, float("inf")
    for _ in range(iterations):
        optimiser.zero_grad()
        evaluate()[0].backward()
        optimiser.step()
        with torch.no_grad():
            for gate in gates.values():
                gate.copy_(torch.clamp(gate, 0, max_gate))
            loss, predicted = evaluate()
        if predicted == int(original[0].argmax()) and loss.item() < lowest:
            lowest = loss.item()
            best = {name: gate.detach().clone() for name, gate in gates.items()}
    return best
