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

_MOST = 60  # bisections alone would need about as many
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
    count = parameters.isfinite().sum(1)
    # With τ here, all gates are at least k / N, or at most that.
    shift = -temperature * torch.logit(budgets / count)
    below = parameters.masked_fill(parameters.isinf(), torch.inf).amin(1) + shift
    above = parameters.amax(1) + shift
    guess = (above + below) / 2
    stride = parameters.shape[1] // _SAMPLE
    if stride > 1:
        sample = parameters[:, ::stride].contiguous()
        share = sample.isfinite().sum(1).clamp(min=1) / count
        guess, _ = _solved(sample, budgets * share, temperature, guess, below, above)
    return _solved(parameters, budgets, temperature, guess, below, above)[1]


def _solved(
    parameters: Tensor, budgets: Tensor, temperature: float, guess: Tensor, below: Tensor, above: Tensor
) -> tuple[Tensor, Tensor]:
    """Find τ (B,) between ``below`` and ``above`` by Newton's method on log Σ gates, and the gates (B, N).

    A step that leaves the bracket becomes a bisection. An input stops where its gates sum to its budget up to
    rounding, so that it has the same gates in any batch.
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
        high = total > budgets  # too much is open: τ must rise
        below, above = torch.where(high, guess, below), torch.where(high, above, guess)
        step = guess + (total / budgets).log() * total / slope
        step = torch.where((step > below) & (step < above), step, (below + above) / 2)
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
    weight = gates * (1 - gates) / temperature
    mean = torch.linalg.vecdot(weight, gradient) / weight.sum(1).clamp(min=torch.finfo(weight.dtype).tiny)
    return gradient.sub_(mean.unsqueeze(1)).mul_(weight)
