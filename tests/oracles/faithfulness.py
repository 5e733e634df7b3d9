"""Faithfulness by the book: one input, one size, one forward pass by plain hooks at a time, in sets of Python."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.hooks import watched
from tests.oracles.units import numbers

Unit = tuple[str, int]
"""Site and number of the unit in it."""


def top(scores: Mapping[str, Sequence[float]], keep: float) -> set[Unit]:
    """The best units: those above the score that the k-th smallest has, all but keep per cent being k."""
    of_unit = {(site, number): score for site, values in scores.items() for number, score in enumerate(values)}
    count = len(of_unit)
    k = count - math.floor(Decimal(str(keep)) * count / 100)
    limit = sorted(of_unit.values())[k - 1] if k else 0.0
    return {unit for unit, score in of_unit.items() if score > limit and score > 0}


def answer(
    model: nn.Module,
    call: Callable[[nn.Module], Any],
    functions: Collection[str],
    unit: str,
    baseline: Mapping[str, Tensor] | None,
    kept: set[Unit],
) -> Any:
    """The model's output with all units but the kept ones at their baseline (*site); at zero if none is given."""

    def edit(name: str, output: Tensor) -> Tensor:
        of = numbers(tuple(output.shape[1:]), unit)
        is_kept = torch.tensor([(name, int(number)) in kept for number in of.flatten()]).view(of.shape)
        instead = torch.zeros_like(output[0]) if baseline is None else baseline[name]
        return torch.where(is_kept, output[0], instead)[None]

    with watched(model, functions, edit=edit):
        return call(model)


def curves(
    model: nn.Module,
    call: Callable[[nn.Module], Any],
    read: Callable[[Any], Tensor],
    scores: Mapping[str, Sequence[float]],
    keep: Sequence[float],
    *,
    functions: Collection[str] = ("relu",),
    unit: str = "neuron",
    baseline: Mapping[str, Tensor] | None = None,
    whole: float | None = None,
) -> tuple[list[float], list[float]]:
    """Sufficiency and necessity of one input by size; ``read`` gives the number f of a network's output."""
    everything = {(site, number) for site, values in scores.items() for number in range(len(values))}

    def f(kept: set[Unit]) -> float:
        return float(read(answer(model, call, functions, unit, baseline, kept)).detach())

    empty = f(set())
    whole = f(everything) if whole is None else whole
    best = [top(scores, share) for share in keep]
    sufficiency = [(f(kept) - empty) / (whole - empty) for kept in best]
    necessity = [(whole - f(everything - kept)) / (whole - empty) for kept in best]
    return sufficiency, necessity
