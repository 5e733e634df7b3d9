"""Soft version of keeping the top k: gates between 0 and 1 that sum to k, and their gradient.

The gate of a unit with parameter s is σ((s − τ) / T), with τ such that all gates of an input sum to k. For T → 0
the gates are 1 for the k largest parameters, and 0 for all others.

τ depends on the parameters. With w_i = σ'((s_i − τ) / T) / T, differentiating Σ_i gate_i = k by s_j gives

    w_j − ∂τ/∂s_j Σ_i w_i = 0,  so that  ∂τ/∂s_j = w_j / Σ_i w_i,

and a function with the gradient G by the gates has by s the gradient

    w_j (G_j − Σ_i w_i G_i / Σ_i w_i):

a unit gains if its gate is worth more than the average of those that it would displace.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MOST = 60  # steps; a few are usual
_SAMPLE = 1 << 12


def soft_top(parameters: Tensor, budgets: Tensor, temperature: float) -> Tensor:
    """Compute the gates.

    Args:
        parameters: s (B, N); −∞ for units whose gate is 0 whatever the budget.
        budgets: k (B,), above 0 and below the number of other units.
        temperature: T.

    Returns:
        Gates (B, N) that sum to the budgets.

    Example:
        >>> from cpath.methods.soft_top import soft_top
        >>> gates = soft_top(torch.tensor([[0.0, 1.0, 2.0, 3.0]]), torch.tensor([2.0]), temperature=0.1)
        >>> gates.round(decimals=3)
        tensor([[0.0000, 0.0070, 0.9930, 1.0000]])
    """
    # Here the gates sum to no more than the budget: each is at most k / N.
    above = parameters.amax(1) - temperature * torch.logit(budgets / parameters.shape[1])
    guess = above
    stride = parameters.shape[1] // _SAMPLE
    if stride > 1:
        sample = parameters[:, ::stride].contiguous()
        share = budgets * sample.shape[1] / parameters.shape[1]
        share = torch.minimum(share, 0.9 * sample.isfinite().sum(1)).clamp(min=torch.finfo(share.dtype).tiny)
        guess, _ = _solved(sample, share, temperature, above, above)
        guess = torch.where(guess.isfinite(), guess, above).minimum(above)
    return _solved(parameters, budgets, temperature, guess, above)[1]


def _solved(
    parameters: Tensor, budgets: Tensor, temperature: float, guess: Tensor, above: Tensor
) -> tuple[Tensor, Tensor]:
    """Find τ (B,) of at most ``above`` by Newton's method on log Σ gates, and the gates (B, N).

    The logarithm falls ever more steeply with τ, so that a step from the left ends right of τ, and steps from the
    right come nearer without passing it. A step that passes a τ known to be too large is halved. An input stops
    where its gates sum to its budget up to rounding, so that it has the same gates in any batch.
    """
    close = 64 * torch.finfo(parameters.dtype).eps
    gates = torch.empty_like(parameters)
    settled = torch.zeros_like(budgets, dtype=torch.bool)
    for _ in range(_MOST):
        torch.sub(parameters, guess.unsqueeze(1), out=gates).div_(temperature).sigmoid_()
        total = gates.sum(1)
        settled |= (total / budgets - 1).abs() <= close
        if settled.all():
            break
        slope = (total - torch.linalg.vecdot(gates, gates)) / temperature
        above = torch.where(total < budgets, guess, above)
        step = guess + (total / budgets).log() * total / slope
        step = torch.where(step <= above, step, (guess + above) / 2)
        guess = torch.where(settled, guess, step)
    return guess, gates


def through_soft_top(gradient: Tensor, gates: Tensor, temperature: float) -> Tensor:
    """Carry a gradient from the gates back to their parameters.

    Args:
        gradient: Gradient G (B, N) by the gates. It is overwritten.
        gates: The gates (B, N).
        temperature: T.

    Returns:
        Gradient (B, N) by the parameters.
    """
    # An input at a time stays in a processor's cache, which halves the time; a GPU takes them together.
    size = 1 if gates.device.type == "cpu" else max(1, len(gates))
    for start in range(0, len(gates), size):
        opened, found = gates[start : start + size], gradient[start : start + size]
        weight = opened * (1 - opened) / temperature
        total = weight.sum(1).clamp(min=torch.finfo(weight.dtype).tiny)
        found.sub_((torch.linalg.vecdot(weight, found) / total).unsqueeze(1)).mul_(weight)
    return gradient
