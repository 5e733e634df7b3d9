"""Scores of units against a baseline by the book: one image, neurons grouped by loops over their indices."""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from tests.oracles.networks import Network, Weights

Values = dict[str, Tensor]
"""By site, of one image, without the batch."""

AXES = {
    ("channel", 1): (0,),
    ("channel", 2): (1,),
    ("channel", 3): (0,),
    ("token", 2): (0,),
    ("token", 3): (1,),
    ("head", 2): (1,),
    ("head", 3): (0,),
}
"""Axes that tell a unit from another, by kind and number of dimensions, in the networks of these tests."""


def numbers(shape: tuple[int, ...], unit: str) -> Tensor:
    """The number of the unit that each neuron of a site belongs to."""
    found = torch.zeros(shape, dtype=torch.int64)
    known: dict[tuple[int, ...], int] = {}
    for index in product(*[range(size) for size in shape]):
        key = index if unit == "neuron" else tuple(index[axis] for axis in AXES[unit, len(shape)])
        found[index] = known.setdefault(key, len(known))
    return found


def summed(values: Tensor, unit: str) -> list[float]:
    """Sums over the neurons of each unit of a site."""
    of = numbers(tuple(values.shape), unit).flatten().tolist()
    sums = [0.0] * (max(of) + 1)
    for number, value in zip(of, values.flatten().tolist(), strict=True):
        sums[number] += value
    return sums


def spread(units: Tensor, shape: tuple[int, ...], unit: str) -> Tensor:
    """A number for each unit (N,), at each of its neurons."""
    return units[numbers(shape, unit)]


def run(
    network: Network,
    weights: Weights,
    image: Tensor,
    baseline: Values,
    kept: Values | None = None,
    replace: Values | None = None,
) -> tuple[Tensor, Values]:
    """Logits and outputs of one image: kept · z + (1 − kept) · b, or values put in place of it."""
    seen: Values = {}

    def site(name: str, pre: Tensor) -> Tensor:
        output = torch.where(pre > 0, pre, torch.zeros_like(pre))
        if kept is not None:
            output = kept[name][None] * output + (1 - kept[name][None]) * baseline[name][None]
        if replace is not None and name in replace:
            output = replace[name][None]
        seen[name] = output
        return output

    logits = network(weights, image[None], site)
    return logits[0], {name: output[0] for name, output in seen.items()}


def mct(network: Network, weights: Weights, image: Tensor, target: int, baseline: Values) -> Values:
    """(z − b) · ∂f/∂z of the neurons."""
    return _products(network, weights, image, target, baseline, None)


def _products(
    network: Network, weights: Weights, image: Tensor, target: int, baseline: Values, kept: Values | None
) -> Values:
    # Each site is replaced by a leaf of its value in turn, so that it has a gradient of its own.
    _, outputs = run(network, weights, image, baseline, kept)
    found = {}
    for name, output in outputs.items():
        leaf = output.detach().clone().requires_grad_()
        logits, _ = run(network, weights, image, baseline, kept, {name: leaf})
        (slope,) = torch.autograd.grad(logits[target], leaf)
        found[name] = ((output - baseline[name]) * slope).detach()
    return found


def intgrad(
    network: Network,
    weights: Weights,
    image: Tensor,
    target: int,
    baseline: Values,
    nodes: list[tuple[float, float]],
) -> Values:
    """(z − b) · Σ w ∂f(z ← b + α (z − b))/∂z of the neurons."""
    _, outputs = run(network, weights, image, baseline)
    found = {}
    for name, output in outputs.items():
        step, total = (output - baseline[name]).detach(), torch.zeros_like(output)
        for alpha, weight in nodes:
            leaf = (baseline[name] + alpha * step).requires_grad_()
            logits, _ = run(network, weights, image, baseline, None, {name: leaf})
            (slope,) = torch.autograd.grad(logits[target], leaf)
            total = total + weight * slope
        found[name] = step * total
    return found


def residuals(
    network: Network, weights: Weights, image: Tensor, target: int, baseline: Values, contributions: Values
) -> dict[str, float]:
    """|Σ contributions − (f(x) − f(z ← b))| / |f(x) − f(z ← b)| of each site."""
    whole, _ = run(network, weights, image, baseline)
    found = {}
    for name, values in contributions.items():
        without, _ = run(network, weights, image, baseline, None, {name: baseline[name]})
        drop = float(whole[target] - without[target])
        found[name] = abs(sum(values.flatten().tolist()) - drop) / abs(drop) if drop else math.nan
    return found


def rounds_of_removal(
    network: Network,
    weights: Weights,
    image: Tensor,
    target: int,
    baseline: Values,
    unit: str,
    rounds: int,
    power: float,
) -> dict[tuple[str, int], tuple[int, float]]:
    """(round of removal, contribution in that round) of every unit that ever differed from its baseline."""
    removed: dict[tuple[str, int], tuple[int, float]] = {}
    at_start = 0
    for done in range(1, rounds + 1):
        _, shapes = run(network, weights, image, baseline)
        kept = {}
        for name, output in shapes.items():
            of_units = torch.ones(int(numbers(tuple(output.shape), unit).max()) + 1, dtype=output.dtype)
            for site, number in removed:
                if site == name:
                    of_units[number] = 0
            kept[name] = spread(of_units, tuple(output.shape), unit)
        _, outputs = run(network, weights, image, baseline, kept)
        contributions = {}
        for name, values in _products(network, weights, image, target, baseline, kept).items():
            # Roundings are no difference: the same value may be computed in another order.
            rounding = 1e-14 * outputs[name].abs().max()
            moved = summed(((outputs[name] - baseline[name]).abs() > rounding).double(), unit)
            for number, value in enumerate(summed(values, unit)):
                if moved[number] and (name, number) not in removed:
                    contributions[name, number] = abs(value)
        at_start = at_start or len(contributions)
        leave = int(((rounds - done) / rounds) ** power * at_start)
        too_many = max(0, len(contributions) - leave)
        compared = {which: float(f"{value:.7e}") for which, value in contributions.items()}  # eight digits tie
        threshold = sorted(compared.values())[too_many - 1] if too_many else 0.0
        removed |= {which: (done, contributions[which]) for which, value in compared.items() if value <= threshold}
    return removed


def route(
    network: Network,
    weights: Weights,
    image: Tensor,
    baseline: Values,
    unit: str,
    *,
    iterations: int,
    learning_rate: float,
    momentum: float,
    gamma: float,
) -> dict[str, Tensor] | None:
    """Gates of the units, by site, trained from 1 by PyTorch's own SGD; None if no step kept the class."""
    original, outputs = run(network, weights, image, baseline)
    original = original.detach()
    p = torch.softmax(original, 0)
    shapes = {name: tuple(output.shape) for name, output in outputs.items()}
    gates = {
        name: torch.ones(int(numbers(shape, unit).max()) + 1, dtype=image.dtype).requires_grad_()
        for name, shape in shapes.items()
    }
    optimiser = torch.optim.SGD(gates.values(), lr=learning_rate, momentum=momentum)

    def evaluate() -> tuple[Tensor, int]:
        kept = {name: spread(gate, shapes[name], unit) for name, gate in gates.items()}
        logits, _ = run(network, weights, image, baseline, kept)
        cross_entropy = -(p * torch.log_softmax(logits, 0)).sum()
        return cross_entropy + gamma * sum(gate.sum() for gate in gates.values()), int(logits.argmax())

    best, lowest = None, float("inf")
    for _ in range(iterations):
        optimiser.zero_grad()
        evaluate()[0].backward()
        optimiser.step()
        with torch.no_grad():
            for gate in gates.values():
                gate.clamp_(0, 100)
            loss, predicted = evaluate()
        if predicted == int(original.argmax()) and loss.item() < lowest:
            lowest = loss.item()
            best = {name: gate.detach().clone() for name, gate in gates.items()}
    return best


def input_gradient(
    network: Network, weights: Weights, image: Tensor, target: int, baseline: Values, kept: Values
) -> Tensor:
    """∂f/∂x of the restricted network."""
    source = image.clone().requires_grad_()
    logits, _ = run(network, weights, source, baseline, kept)
    return torch.autograd.grad(logits[target], source)[0]
