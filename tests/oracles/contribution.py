"""Contributions by the book: one image, one site, one node after the other, in full forward passes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tests.oracles.networks import Network, Weights

# Nodes and weights, written out.
MIDPOINT_5 = [(0.1, 0.2), (0.3, 0.2), (0.5, 0.2), (0.7, 0.2), (0.9, 0.2)]
ENDPOINT_5 = [(1 / 9, 2 / 9), (3 / 9, 2 / 9), (5 / 9, 2 / 9), (7 / 9, 2 / 9), (1.0, 1 / 9)]
ENDPOINT_9 = [(node / 17, 2 / 17) for node in (1, 3, 5, 7, 9, 11, 13, 15)] + [(1.0, 1 / 17)]
TRAPEZOID_3 = [(0.0, 0.25), (0.5, 0.5), (1.0, 0.25)]
LEGENDRE_2 = [(0.5 - 3**-0.5 / 2, 0.5), (0.5 + 3**-0.5 / 2, 0.5)]


def run(
    network: Network,
    weights: Weights,
    image: Tensor,
    replace: Mapping[str, Tensor] | None = None,
    masks: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (B, classes) and the sites' outputs, with some replaced or multiplied by a mask."""
    seen: dict[str, Tensor] = {}

    def site(name: str, pre: Tensor) -> Tensor:
        output = torch.where(pre > 0, pre, torch.zeros_like(pre))
        if masks is not None:
            output = output * masks[name]
        if replace is not None and name in replace:
            output = replace[name]
        seen[name] = output
        return output

    return network(weights, image, site), seen


def tracked(image: Tensor) -> Tensor:
    """The image as a batch of one whose sites have gradients."""
    return image[None].clone().requires_grad_()


def mct(network: Network, weights: Weights, image: Tensor, target: int) -> dict[str, Tensor]:
    """Signed z · ∂f/∂z of one image (C, H, W), by site."""
    logits, seen = run(network, weights, tracked(image))
    gradients = torch.autograd.grad(logits[0, target], list(seen.values()))
    return {
        name: (output * gradient)[0].detach()
        for (name, output), gradient in zip(seen.items(), gradients, strict=True)
    }


def intgrad(
    network: Network, weights: Weights, image: Tensor, target: int, site: str, nodes: list[tuple[float, float]]
) -> Tensor:
    """Signed z · Σ w ∂f(z ← α z)/∂z of one image at one site."""
    z = run(network, weights, image[None])[1][site].detach()
    total = torch.zeros_like(z)
    for alpha, weight in nodes:
        scaled = (alpha * z).requires_grad_()
        logits, _ = run(network, weights, image[None], {site: scaled})
        (gradient,) = torch.autograd.grad(logits[0, target], scaled)
        total = total + weight * gradient
    return (z * total)[0].detach()


def residual(
    network: Network, weights: Weights, image: Tensor, target: int, site: str, contributions: Tensor
) -> float:
    """|Σ contributions − (f(x) − f(z ← 0))| / |f(x) − f(z ← 0)|."""
    logits, seen = run(network, weights, image[None])
    without, _ = run(network, weights, image[None], {site: torch.zeros_like(seen[site])})
    drop = float(logits[0, target]) - float(without[0, target])
    error = abs(sum(contributions.flatten().tolist()) - drop)
    return error / abs(drop) if drop else math.nan
