"""Answers of networks with gates at their sites, and the gates' gradients of how far they are from an aim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpath._torch import eagerly
from cpath.baselines import blended
from cpath.layout import SiteLayout
from cpath.margin import Margin, OutputFunction, lead, rise_of
from cpath.outputs import no_gradient_error
from cpath.probe import Probe, Record
from cpath.sites import EVERY_SITE, intercept

_LEAST_RISE = 0.2  # on a copy, as a part of that on the input: as in `cpath.evaluation.faithfulness_transfer`


@dataclass(frozen=True, eq=False)
class Aim:
    """Answer that the gated networks of some inputs are to give.

    Attributes:
        probe: The inputs in front of the model.
        layout: Units of its sites.
        strength: Number to read off the output.
        empty: Its value (B,) in the empty network.
        rise: Difference (B,) to the value that is to be reached; NaN where there is nothing to reach.
    """

    probe: Probe
    layout: SiteLayout
    strength: Margin | OutputFunction
    empty: Tensor
    rise: Tensor

    @classmethod
    def of(cls, probe: Probe, layout: SiteLayout, record: Record) -> Aim:
        """Ask the whole and the empty network.

        The margin of the predicted class is to be what it is in the whole network, and that of another class what
        that of the predicted one is there.

        Args:
            probe: The inputs in front of the model.
            layout: Units of its sites.
            record: What the whole network says of them.

        Returns:
            The aim.
        """
        strength: Margin | OutputFunction
        if record.class_logits is None:
            assert probe.function is not None
            strength, goal = OutputFunction(probe.function, len(probe)), record.response
        else:
            assert probe.target is not None
            strength, goal = Margin.over_best_other(probe.target, record.logits), lead(record.logits)
        empty = _of_empty(probe, layout, strength)
        return cls(probe, layout, strength, empty, rise_of(goal.to(empty), empty, record.class_logits))

    def on_copy(self, probe: Probe, record: Record) -> Aim:
        """Ask the same question about a copy of the inputs.

        Args:
            probe: The copies in front of the model.
            record: What the whole network says of the inputs themselves.

        Returns:
            The aim, with NaN as the rise where it is less than a fifth of that on the input.
        """
        on_copy = probe.record(gradients=False)
        if on_copy.class_logits is None:
            goal = on_copy.response
        else:
            assert isinstance(self.strength, Margin)
            answer = self.strength.read(on_copy.class_logits, 1)[0]
            own = self.strength.target == record.logits.argmax(1)
            goal = torch.where(own, answer, lead(on_copy.logits).to(answer))
        empty = _of_empty(probe, self.layout, self.strength)
        rise = rise_of(goal.to(empty), empty, on_copy.class_logits)
        small = rise.abs() < _LEAST_RISE * self.rise.abs()
        return Aim(probe, self.layout, self.strength, empty, rise.masked_fill(small, torch.nan))

    def part(self, rows: Tensor) -> Aim:
        """Select inputs.

        Args:
            rows: Their numbers.

        Returns:
            Their aim.
        """
        strength: Margin | OutputFunction
        if isinstance(self.strength, Margin):
            strength = Margin(self.strength.target[rows], self.strength.against[rows])
        else:
            strength = OutputFunction(self.strength.function, len(rows))
        return Aim(self.probe.part(rows), self.layout, strength, self.empty[rows], self.rise[rows])

    def gradient(self, gates: Tensor, necessity: float) -> Tensor:
        """Compute the gradient (B, units) of the distance from the aim by the gates.

        Args:
            gates: Gates (B, units).
            necessity: Weight of the answer that is left with the gates turned round.

        Returns:
            Gradient of |1 − F| + ``necessity`` · |1 − N|, F being the part of the answer that the gated network
            recovers, and N that which the network with gates of 1 − λ has lost. 0 where there is no aim.
        """
        found = self._gradient(gates, 1)
        if necessity:
            found.sub_(self._gradient(1 - gates, 0), alpha=necessity)
        return found

    def _gradient(self, gates: Tensor, part: float) -> Tensor:
        """Gradient of the distance of the recovered part of the answer from ``part``."""
        leaves = {name: view.detach().requires_grad_() for name, view in self.layout.views(gates).items()}
        answer = self.strength.read(gated(self.probe, leaves), 1)[0]
        # Divided by infinity, an answer has no gradient.
        recovered = (answer - self.empty) / self.rise.nan_to_num(nan=torch.inf)
        loss = (part - recovered).abs().sum()
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return self.layout.flatten(dict(zip(leaves, found, strict=True)))


def _of_empty(probe: Probe, layout: SiteLayout, strength: Margin | OutputFunction) -> Tensor:
    """Answer (B,) of the network with all units at their baseline."""
    closed = torch.zeros(len(probe), layout.units, device=probe.device)
    with torch.no_grad():
        return strength.read(gated(probe, layout.views(closed)), 1)[0]


def gated(probe: Probe, gates: Mapping[str, Tensor]) -> Any:
    """Run the network with gates λ at its sites, λ z + (1 − λ) b for an output z.

    Args:
        probe: The inputs in front of the model.
        gates: Gates (B, *units) by site.

    Returns:
        Its output.

    Raises:
        SiteError: If a site has no gradient where its gates have one.
    """

    def visit(name: str, output: Tensor) -> Tensor:
        if gates[name].requires_grad and not torch.is_grad_enabled():
            raise no_gradient_error(name)
        baseline = None if probe.baseline is None else probe.baseline.at(name, output)
        return blended(output, gates[name], baseline)

    watching = intercept(probe.model, visit, edits=EVERY_SITE, sites=probe.sites, left_out=probe.left_out)
    with eagerly(), watching:
        return probe.inputs.clone().call(probe.model)
