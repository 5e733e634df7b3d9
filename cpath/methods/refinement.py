"""Integrated gradients whose nodes are added where the completeness residual asks for them.

The contributions of a site are complete if they sum to f(x) − f(z ← b). That difference is known for the price of
one forward pass, so the quadrature can tell for itself whether it has enough nodes. The endpoint rule of n nodes is
part of that of 3n − 1: its cells are cut into three, and their midpoints stay. So nothing is computed twice:

    >>> from cpath.methods.quadrature import quadrature
    >>> [round(node, 3) for node in quadrature("endpoint", 2)[0]]
    [0.333, 1.0]
    >>> [round(node, 3) for node in quadrature("endpoint", 5)[0]]
    [0.111, 0.333, 0.556, 0.778, 1.0]

The first level, a single node at 1, is the gradient of the network as it is, which a backward pass gives for all
sites at once. Sites near the output, behind which little bends, stop there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cpath.checks import warn
from cpath.methods.base import Contributions
from cpath.methods.integration import at_baseline, groups, integrate, parts, rows_per_pass
from cpath.probe import Probe, Record


def levels(most: int) -> list[int]:
    """List the numbers of nodes of the nested endpoint rules.

    Args:
        most: Largest number of nodes.

    Returns:
        1, 2, 5, 14, 41, 122 … up to ``most``.
    """
    found = [1]
    while 3 * found[-1] - 1 <= most:
        found.append(3 * found[-1] - 1)
    return found


def new_nodes(level: int) -> list[float]:
    """List the nodes of a nested endpoint rule that the one before does not have, without the last node 1.

    Args:
        level: Number of nodes n of the rule, from `levels`.

    Returns:
        The nodes, in ascending order.
    """
    whole = 2 * level - 1
    return [odd / whole for odd in range(1, whole, 2) if odd % 3]


@dataclass
class _Site:
    """One site of a group of inputs while its nodes are added.

    Attributes:
        name: Name of the site.
        activation: Its output z (B, *site).
        step: z − b (B, *site).
        at_one: Gradient at z (B, *site).
        inner: Sum of the gradients at all other nodes (B, *site).
        drop: f(x) − f(z ← b), (B,).
        weighted: Σ_k w_k ∂f/∂z of the last level of each input (B, *site).
        residual: Relative completeness residual (B,) of that.
    """

    name: str
    activation: Tensor
    step: Tensor
    at_one: Tensor
    inner: Tensor
    drop: Tensor
    weighted: Tensor
    residual: Tensor

    def settle(self, rows: Tensor, level: int) -> None:
        """Compute the contributions of some inputs by the rule of a number of nodes."""
        self.weighted[rows] = (2 * self.inner[rows] + self.at_one[rows]) / (2 * level - 1)
        total = (self.weighted[rows] * self.step[rows]).flatten(1).sum(1)
        self.residual[rows] = (total - self.drop[rows]).abs() / self.drop[rows].abs()


def refined_gradients(probe: Probe, tolerance: float, most: int) -> Contributions:
    """Compute the signed contributions of every site, with as many nodes as each site and input needs.

    Warns if the largest number of nodes is too small for some.

    Args:
        probe: The inputs in front of the model.
        tolerance: Largest relative completeness residual.
        most: Largest number of nodes.

    Returns:
        Contributions, with the residual.
    """
    record = probe.record()
    values: dict[str, Tensor] = record.gradients
    residuals = {name: torch.empty_like(record.response) for name in values}
    for group in groups(record):
        known = probe.part(group).remembering()
        for name in values:
            site = _first_level(known, name, record, group)
            _refine(known, site, record, tolerance, most)
            values[name][group] = site.weighted * site.step
            residuals[name][group] = site.residual
    missed = sum(int((residual > tolerance).sum()) for residual in residuals.values())
    if missed:
        warn(
            f"neuron_intgrad: the residual is above tolerance={tolerance:g} for {missed} of "
            f"{len(residuals) * len(probe)} pairs of a site and an input, with {levels(most)[-1]} nodes: "
            "see scores.residual, and allow more nodes."
        )
    return Contributions(values, residuals)


def _first_level(known: Probe, name: str, record: Record, group: slice) -> _Site:
    activation, at_one = record.activations[name][group], record.gradients[name][group].clone()
    drop = record.response[group].clone()
    for part in parts(len(known), rows_per_pass(record, 1, known.max_batch)[name].images):
        drop[part] -= at_baseline(known.part(part), name, activation[part])
    step = known.above_baseline(name, activation)
    weighted, residual = torch.empty_like(at_one), torch.empty_like(drop)
    site = _Site(name, activation, step, at_one, torch.zeros_like(at_one), drop, weighted, residual)
    site.settle(torch.arange(len(drop), device=drop.device), 1)
    return site


def _refine(known: Probe, site: _Site, record: Record, tolerance: float, most: int) -> None:
    for level in levels(most)[1:]:
        pending = (site.residual > tolerance).nonzero().flatten()  # 0/0 is nothing to refine
        if not len(pending):
            return
        nodes = [(alpha, 1.0) for alpha in new_nodes(level)]
        rows = rows_per_pass(record, len(nodes), known.max_batch)[site.name]
        for part in parts(len(pending), rows.images):
            chosen = pending[part]
            added = torch.zeros_like(site.inner[chosen])
            integrate(known.part(chosen), site.name, site.activation[chosen], added, nodes, rows.lanes)
            site.inner[chosen] += added
        site.settle(pending, level)
