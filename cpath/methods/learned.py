"""Learned ranking: an order of the units, trained on one input so that its first k answer as the whole network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cpath.checks import check_at_least, check_count, check_number, check_seed, warn
from cpath.errors import InputError
from cpath.layout import SiteLayout, common_dtype
from cpath.methods.base import Method, register
from cpath.methods.contribution import NeuronIntGrad
from cpath.methods.gated_answer import Aim
from cpath.methods.shifts import MOST, shifted_copies
from cpath.methods.soft_top import soft_top, through_soft_top
from cpath.probe import Probe, Record
from cpath.progress import steps as with_progress
from cpath.randomness import image_generators

# Largest memory for the parameters of inputs that are trained at once, and for what their backward pass keeps.
_BYTES = 2**31
_MOST_OPEN = 0.95  # of the units that take part


@register("learned_ranking")
@dataclass(frozen=True, kw_only=True)
class LearnedRanking(Method):
    """Order of the units, learned for each input so that the first k answer as the whole network for any k.

    Every unit has a parameter s, which starts at its rank by `NeuronIntGrad`, from 0 to 1. Each step draws a budget
    k log-uniformly between ``smallest`` and ``largest`` per cent of all units, multiplies the units by gates
    σ((s − τ) / T) with τ such that the gates sum to k (see `cpath.methods.soft_top`), and takes a step of Adam on
    |1 − F|, where F is the sufficiency of `cpath.faithfulness` for these gates. The score is s, shifted so that all
    scores are positive. One run serves every sparsity.

    For the predicted class, F is 1 where the gated network has the margin of the whole one. For another class, F is
    1 where the gated network prefers that class by as much as the whole network prefers the predicted one. A
    function has to reach its value in the whole network.

    A unit that is at its baseline on the input (dead, if that is zero) takes no part and scores 0, unless
    ``dead_units`` asks for it. An input whose answer does not rise from the empty to the whole network keeps the
    ranks that it starts with, and a warning says so.

    Such an order can be fitted to the input at hand without saying anything about the network's own reasons: see
    `cpath.evaluation.faithfulness_transfer` and `cpath.evaluation.other_answer` for the controls.

    Args:
        steps: Number of Adam's steps. With a ResNet-20 on 30 images of CIFAR-10, the mean `Faithfulness.cmd` is
            0.38 after 50 steps, 0.22 after 100, 0.15 after 200 and 0.13 after 300; it is 0.80 for `NeuronMCT`.
        learning_rate: Learning rate.
        temperature: Temperature T of the gates.
        smallest: Smallest budget, per cent of all units.
        largest: Largest budget, per cent of all units.
        necessity: Weight of |1 − N| beside |1 − F|, where N is the necessity of `cpath.faithfulness`: the answer is
            to be gone, too, when the first k units are removed. It doubles the time of a step. With 1,
            `Faithfulness.necessity_cmd` is 0.05 in place of 0.65, and `Faithfulness.cmd` 0.18 in place of 0.16
            (ResNet-20, 12 images of CIFAR-10).
        transfer: Number of shifted copies of each image that the order is trained on, beside the image itself, at
            which every third step looks. They are shifted by up to two 32nd parts of the side in each direction;
            the shift to the right that `cpath.evaluation.faithfulness_transfer` measures is not among them. With
            16, an order carries over to crops better and to other copies less well (docs/faithfulness.md).
        dead_units: Let units at their baseline take part.
        nodes: Number of nodes of the `NeuronIntGrad` that gives the first order.
        seed: Seed of the budgets, combined with the input itself.

    Raises:
        InputError: If a setting is out of range.

    Source: budgets drawn at random for one order of all units, as in MAttr, arXiv 2609.25518.

    Example:
        >>> scores = cpath.score(model, images, cpath.methods.LearnedRanking(steps=5))
        >>> with cpath.observe(model) as seen, torch.no_grad():
        ...     _ = model(images)
        >>> torch.equal(scores.values["relu2"] > 0, seen.activations["relu2"] > 0)
        True
    """

    signed: ClassVar[bool] = False
    steps: int = 300
    learning_rate: float = 0.05
    temperature: float = 0.2
    smallest: float = 0.1
    largest: float = 50.0
    necessity: float = 0.0
    transfer: int = 0
    dead_units: bool = False
    nodes: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(0, "steps", self.steps)
        check_at_least(0, "transfer", self.transfer)
        if self.transfer > MOST:
            raise InputError(f"transfer is a number of shifted copies, at most {MOST}; got {self.transfer}.")
        check_count("nodes", self.nodes)
        check_seed(self.seed)
        for setting in ("learning_rate", "temperature"):
            if not 0 < getattr(self, setting) < math.inf:
                raise InputError(f"{setting} must be a positive number, not {getattr(self, setting)}.")
        if not 0 <= check_number("necessity", self.necessity) < math.inf:
            raise InputError(f"necessity is a weight of at least 0, not {self.necessity}.")
        if not 0 < self.smallest <= self.largest <= 100:
            raise InputError(
                "smallest and largest are per cents of all units, 0 < smallest ≤ largest ≤ 100; got "
                f"{self.smallest} and {self.largest}."
            )

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """Train the parameters, and shift them to positive scores (B, *units)."""
        first = NeuronIntGrad(nodes=self.nodes, residual=False).contributions(probe).values
        layout = probe.layout(first)
        # Half precision has no room for the steps.
        dtype = torch.promote_types(common_dtype(first), torch.float32)
        found = torch.empty(len(probe), layout.units, dtype=dtype, device=probe.device)
        lost = 0
        size = _inputs_at_once(first, layout)
        for start in range(0, len(probe), size):
            rows = slice(start, start + size)
            part = probe.part(rows)
            order = layout.flatten({name: layout.sum(name, value[rows]).abs() for name, value in first.items()})
            record = part.record(gradients=False)
            parameters = _ranks(order.to(dtype), self._take_part(part, layout, record))
            aim = Aim.of(part, layout, record)
            trained = (~aim.rise.isnan() & parameters.isfinite().any(1)).nonzero().flatten()
            lost += len(part) - len(trained)
            if len(trained):
                aims = [each.part(trained) for each in (aim, *self._on_copies(aim, record))]
                self._train(aims, parameters, trained)
            found[rows] = self._scores(parameters)
        if lost:
            warn(
                f"{self.name}: the answer to {lost} of {len(probe)} inputs does not rise from the empty to the "
                "whole network; they keep the order of neuron_intgrad.",
                RuntimeWarning,
            )
        return layout.views(found)

    def _take_part(self, probe: Probe, layout: SiteLayout, record: Record) -> Tensor:
        """Mark the units (B, units) that are ranked."""
        if self.dead_units:
            return torch.ones(len(probe), layout.units, dtype=torch.bool, device=probe.device)
        moved = {name: probe.above_baseline(name, z) != 0 for name, z in record.activations.items()}
        return layout.flatten({name: layout.any(name, marked) for name, marked in moved.items()})

    def _on_copies(self, aim: Aim, record: Record) -> Iterator[Aim]:
        """Ask the question about shifted copies."""
        if self.transfer:
            for inputs in shifted_copies(aim.probe.inputs, self.transfer, self.seed):
                yield aim.on_copy(aim.probe.about(inputs), record)

    def _train(self, aims: Sequence[Aim], parameters: Tensor, rows: Tensor) -> None:
        """Train some rows of ``parameters`` in place, on the inputs, which come first, and on copies of them."""
        trained = parameters[rows]
        adam = _Adam(trained, self.learning_rate)
        budgets = self._budgets(aims[0].probe, trained)
        for step in with_progress(self.steps, self.name):
            gates = soft_top(trained, budgets[step], self.temperature)
            gradient = aims[_turn(step, len(aims) - 1)].gradient(gates, self.necessity)
            adam.step(through_soft_top(gradient, gates, self.temperature))
        parameters[rows] = trained

    def _budgets(self, probe: Probe, parameters: Tensor) -> Tensor:
        """Draw the budgets (steps, B), numbers of units."""
        units = parameters.shape[1]
        uniform = torch.stack(
            [
                torch.rand(self.steps, generator=generator, device="cpu", dtype=torch.float64)
                for generator in image_generators(probe.inputs, self.seed, self.name)
            ],
            1,
        )
        low, high = math.log(self.smallest / 100 * units), math.log(self.largest / 100 * units)
        budgets = (low + (high - low) * uniform).exp().to(parameters)
        # With all gates open there is nothing to learn.
        return torch.minimum(budgets, _MOST_OPEN * parameters.isfinite().sum(1))

    def _scores(self, parameters: Tensor) -> Tensor:
        """Shift the parameters (B, units) so that all are positive; 0 for units that are not ranked."""
        ranked = parameters.isfinite()
        least = parameters.masked_fill(~ranked, torch.inf).amin(1, keepdim=True)
        return torch.where(ranked, parameters - least + self.temperature, 0)


def _turn(step: int, copies: int) -> int:
    """Number of what a step looks at: the input itself (0) in every third one, else the copies in turn."""
    third, place = divmod(step, 3)
    return 0 if not copies or place == 0 else 1 + (2 * third + place - 1) % copies


def _inputs_at_once(values: Mapping[str, Tensor], layout: SiteLayout) -> int:
    """Count the inputs whose training fits into the memory that is allowed."""
    of_sites = sum(value[0].numel() * value.element_size() for value in values.values())
    each = 4 * of_sites + 8 * layout.units * 4  # kept for the backward pass; parameters, gates and Adam's state
    return max(1, _BYTES // each)


class _Adam:
    """Adam on a flat tensor, in place; elementwise, so that inputs do not influence each other."""

    _FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8

    def __init__(self, parameters: Tensor, learning_rate: float) -> None:
        self._parameters, self._learning_rate = parameters, learning_rate
        self._mean, self._square = torch.zeros_like(parameters), torch.zeros_like(parameters)
        self._count = 0

    def step(self, gradient: Tensor) -> None:
        """Take one step against the gradient."""
        self._count += 1
        self._mean.lerp_(gradient, 1 - self._FIRST)
        self._square.mul_(self._SECOND).addcmul_(gradient, gradient, value=1 - self._SECOND)
        first, second = 1 - self._FIRST**self._count, 1 - self._SECOND**self._count
        size = self._square.div(second).sqrt_().add_(self._EPSILON)
        self._parameters.addcdiv_(self._mean, size, value=-self._learning_rate / first)


def _ranks(order: Tensor, takes_part: Tensor) -> Tensor:
    """Rank the numbers of each input from 0 to 1; equal ones share a rank, and −∞ stands for those left out."""
    ranks = torch.full_like(order, -torch.inf)
    for row, part, into in zip(order, takes_part, ranks, strict=True):
        values = row[part]
        ordered = values.sort().values
        below, above = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
        into[part] = ((below + above).to(order.dtype) - 1) / (2 * max(1, len(values) - 1))
    return ranks
