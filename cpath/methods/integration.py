"""Integration of a site's gradient from its baseline to its value, with everything behind the site recomputed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cpath.devices import rows_at_once
from cpath.methods.base import Contributions
from cpath.outputs import gradient_at
from cpath.probe import Probe, Record


def weighted_gradients(
    probe: Probe, alphas: Sequence[float], weights: Sequence[float], residual: bool = True
) -> Contributions:
    """Compute the signed contributions (z − b) · Σ w_k ∂f(b + α_k (z − b))/∂z of every site.

    Args:
        probe: The images in front of the model.
        alphas: Nodes α_k ≥ 0, in ascending order.
        weights: Their weights w_k.
        residual: Compute the completeness residual too.

    Returns:
        Contributions, with the residual if asked for.
    """
    record = probe.record()
    # At α = 1 the network is the unchanged one, whose gradient the record has for every site.
    at_one = sum(weight for alpha, weight in zip(alphas, weights, strict=True) if alpha == 1)
    nodes = [(alpha, weight) for alpha, weight in zip(alphas, weights, strict=True) if alpha != 1]
    for gradient in record.gradients.values():
        gradient.mul_(at_one)
    sites = list(record.activations)
    zeroed = {site: torch.empty_like(record.response) for site in sites} if residual else {}
    starts_at_zero = bool(nodes) and nodes[0][0] == 0
    rows = rows_per_pass(record, max(1, len(nodes)), probe.max_batch)
    single = rows_per_pass(record, 1, probe.max_batch)
    for group in groups(record):
        known = probe.part(group).remembering()
        for site in sites:
            activation, gradient = record.activations[site][group], record.gradients[site][group]
            at_zero = zeroed[site][group] if residual else None
            for part in parts(len(known), rows[site].images):
                first, _ = integrate(
                    known.part(part), site, activation[part], gradient[part], nodes, rows[site].lanes
                )
                if at_zero is not None and starts_at_zero and first is not None:
                    at_zero[part] = first
            if at_zero is not None and not starts_at_zero:
                for part in parts(len(known), single[site].images):
                    at_zero[part] = at_baseline(known.part(part), site, activation[part])
    values = {
        site: record.gradients[site].mul_(probe.above_baseline(site, record.activations[site])) for site in sites
    }
    if not residual:
        return Contributions(values)
    drops = {site: record.response - zeroed[site] for site in sites}
    return Contributions(
        values,
        {site: (values[site].flatten(1).sum(1) - drop).abs() / drop.abs() for site, drop in drops.items()},
    )


# Largest memory for the results that are kept of the network before a site, which is about that of the activations.
_REMEMBERED_BYTES = 2**30


def groups(record: Record) -> list[slice]:
    """Divide the inputs into groups whose results can be kept at once.

    Args:
        record: Their activations.

    Returns:
        Slices of the batch.
    """
    each = sum(activation[0].numel() * activation.element_size() for activation in record.activations.values())
    return parts(len(record.response), max(1, _REMEMBERED_BYTES // each))


def parts(count: int, size: int) -> list[slice]:
    """Divide a range.

    Args:
        count: Its length.
        size: Largest length of a part.

    Returns:
        The parts, in order.
    """
    return [slice(start, start + size) for start in range(0, count, size)]


def at_baseline(probe: Probe, site: str, activation: Tensor) -> Tensor:
    """Compute the responses with the site's output set to its baseline.

    Args:
        probe: The inputs in front of the model, with the baseline.
        site: Name of the site.
        activation: Its output (B, *site).

    Returns:
        Responses (B,).
    """
    baseline = torch.zeros_like(activation)
    if probe.baseline is not None:
        baseline += probe.baseline.at(site, activation)
    with torch.no_grad():
        return probe.responses(site, baseline.unsqueeze(0))[0]


@dataclass(frozen=True)
class Rows:
    """Numbers of inputs, and of nodes of each, that share a pass.

    Attributes:
        images: Number of inputs.
        lanes: Number of nodes of each.
    """

    images: int
    lanes: int


def rows_per_pass(record: Record, lanes: int, max_batch: int) -> dict[str, Rows]:
    """Find the largest passes that keep to ``max_batch`` and, on a CPU, to tensors of a suitable size.

    Args:
        record: The activations.
        lanes: Number of nodes of each input.
        max_batch: Largest number of inputs in one forward pass.

    Returns:
        Numbers of inputs, and of nodes of each, by site.
    """
    plan, widest = {}, 0
    for name, activation in reversed(record.activations.items()):
        widest = max(widest, activation[0].numel() * activation.element_size())
        rows = rows_at_once(activation.device, widest, max_batch)
        plan[name] = Rows(max(1, rows // lanes), min(lanes, max_batch))
    return plan


def integrate(
    probe: Probe,
    site: str,
    activation: Tensor,
    gradient: Tensor,
    nodes: Sequence[tuple[float, float]],
    lanes: int,
) -> tuple[Tensor | None, bool]:
    """Add Σ w_k ∂f(b + α_k (z − b))/∂z to ``gradient``, in place.

    Args:
        probe: The images in front of the model, with the baseline b.
        site: Name of the site.
        activation: Its output z (B, *site).
        gradient: Tensor (B, *site) to add to.
        nodes: Pairs (α_k, w_k).
        lanes: Number of nodes in one pass.

    Returns:
        The response (B,) at the first node, None without nodes; and True if the response depends on the site.
    """
    first: Tensor | None = None
    depends = False
    for start in range(0, len(nodes), lanes):
        scale, weight = activation.new_tensor(nodes[start : start + lanes]).unbind(1)
        scale = scale.view(-1, *[1] * activation.dim())
        if probe.baseline is None:
            moved = scale * activation
        else:
            moved = torch.lerp(probe.baseline.at(site, activation), activation, scale)
        moved.requires_grad_()
        responses = probe.responses(site, moved)
        first = responses[0].detach() if first is None else first
        found = gradient_at((weight.unsqueeze(1) * responses).sum(), moved)
        if found is not None:
            depends = True
            gradient += found.sum(0)
    return first, depends
