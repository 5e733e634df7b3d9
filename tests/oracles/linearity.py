"""The radius of the affine ball by the book: one neuron's gradient after the other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from tests.oracles.networks import Network, Weights


def nearest_neuron(
    network: Network, weights: Weights, image: Tensor, masks: Mapping[str, Tensor]
) -> tuple[float, Tensor]:
    """Least |a| / ‖∇a‖ over the kept neurons of one image, and the unit step that takes the nearest to zero."""
    x = image[None].clone().requires_grad_()
    before: dict[str, Tensor] = {}

    def site(name: str, pre: Tensor) -> Tensor:
        before[name] = pre
        return torch.where(pre > 0, pre, torch.zeros_like(pre)) * masks[name]

    network(weights, x, site)
    least, step = math.inf, torch.zeros_like(image)
    for name, pre in before.items():
        for i, kept in enumerate(masks[name].flatten().tolist()):
            if not kept:
                continue
            value = pre.flatten()[i]
            (gradient,) = torch.autograd.grad(value, x, retain_graph=True, allow_unused=True)
            slope = 0.0 if gradient is None else gradient.norm().item()
            if slope > 0 and abs(value.item()) / slope < least:
                least = abs(value.item()) / slope
                step = -math.copysign(1, value.item()) * gradient[0] / slope
    return least, step
