"""Iterative pruning: the weakest neurons go first, and the rest is measured again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from cpath.checks import check_count
from cpath.devices import widest
from cpath.errors import InputError
from cpath.layout import common_dtype
from cpath.methods.base import Method, check_contributions, register
from cpath.probe import Probe, Record
from cpath.sites import is_active
from cpath.threshold import count_true, for_each_row, keep_above_kth


@register("greedy")
@dataclass(frozen=True, kw_only=True)
class Greedy(Method):
    """Iterative pruning: neurons are ordered by the round that removes them, within a round by their contribution.

    Each round measures |z · ∂f/∂z| in the network as pruned so far and removes the weakest of the neurons that are
    active now. After round r of R at most A · (1 − r/R)^power of them are left, A being the number of neurons
    active at the start: the number removed runs from 0 to the whole, in steps that become finer as the network
    becomes smaller if the power is above 1. An active neuron that contributes nothing is removed in any case.
    Removed neurons never return. Dead ones are not removed: removing others can bring them to life, and from then
    on they count. A neuron that was never active in any round scores 0.

    A channel, token or head is removed as one: its contribution is the sum over its neurons, and it is active if
    any of them is. With another baseline than zero, pruned units are set to it, the contribution is
    (z − b) · ∂f/∂z, and active means z ≠ b.

    A score between r and r + 1 says that round r, counted from 1, removed the neuron. Its fraction rises with the
    contribution, to the precision of float32, and has no other meaning; scores are float64 to hold both. On a
    device without float64 (MPS), contributions within a round that differ by less than a thousandth may tie.

    Of a model in float64, contributions that agree to eight digits are tied, and no round parts them: units that
    contribute the same, as those of a token that occurs twice, go together, in a batch as alone. Likewise a unit is
    at its baseline if it differs from it by roundings.

    Few large steps remove neurons before others come to life in their place: on an ImageNet SqueezeNet the dead
    share of the 90 % pathway is 0.26 with 5 equal steps, 0.50 with 10 and 0.58 with 20, but 0.78, 0.75 and 0.75
    with 10, 20 and 40 steps of power 2, hence the default.

    Args:
        rounds: Number of rounds R.
        power: Exponent of the schedule; 1 for equal steps.

    Raises:
        InputError: If a setting is out of range.

    Source: greedy pruning in Khakzar et al. 2021, which finds dead neurons in its pathways.

    Example:
        >>> scores = cpath.score(model, images, cpath.methods.Greedy(rounds=4))
        >>> int(scores.flat.max())  # the last round removes the strongest neurons
        4
    """

    signed: ClassVar[bool] = False
    rounds: int = 10
    power: float = 2.0

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds)
        if not 0 < self.power < float("inf"):
            raise InputError(f"power must be a positive number, not {self.power}.")

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """Compute the round of removal, from 1, plus a fraction by the contribution; 0 if never active."""
        pruning = _Pruning(probe, self.name)
        start = pruning.active_counts()
        for done in range(1, self.rounds + 1):
            share = ((self.rounds - done) / self.rounds) ** self.power
            # A round that removed nothing leaves the same network behind: there is nothing to measure.
            if pruning.remove_weakest([int(share * count) for count in start], done) and done < self.rounds:
                pruning.measure()
        return pruning.layout.views(pruning.scores)


class _Pruning:
    """Network of each image as pruned so far, and the round of removal of its units, all (B, units)."""

    def __init__(self, probe: Probe, method: str) -> None:
        record = probe.record()
        dtype, device = common_dtype(record.activations), record.response.device
        self.layout = probe.layout(record.activations)
        self._probe, self._method = probe, method
        shape = (len(probe), self.layout.units)
        # Masks of the images' type rather than bool: multiplying by them is thirty times faster on a CPU.
        self._left = torch.ones(shape, dtype=dtype, device=device)
        self._active = torch.empty(shape, dtype=torch.bool, device=device)
        self._contributions = torch.empty(shape, dtype=dtype, device=device)
        self.scores = torch.zeros(shape, dtype=widest(device), device=device)
        self._note(record)

    def measure(self) -> None:
        """Run the network as pruned so far."""
        self._note(self._probe.record(self.layout.views(self._left)))

    def _note(self, record: Record) -> None:
        contributions, active = self.layout.views(self._contributions), self.layout.views(self._active)
        differences: dict[str, Tensor] = {}
        for name, activation in record.activations.items():
            # Removed units are at their baseline: the difference is zero, so they are not active.
            difference = self._probe.above_baseline(name, activation)
            if self._probe.baseline is not None:
                _settle_on_baseline(difference, activation)
            differences[name] = difference
            product = self.layout.sum(name, record.gradients[name].mul_(difference))
            torch.abs(product.to(self._contributions.dtype), out=contributions[name])
        check_contributions(self._contributions, self._method)

        def note_active(_: Tensor, image: slice) -> None:
            for name, difference in differences.items():
                if difference.shape == active[name].shape:
                    is_active(difference[image], out=active[name][image])
                else:
                    active[name][image] = self.layout.any(name, is_active(difference[image]))

        if self._active.device.type == "cpu":
            for_each_row(note_active, self._active, [slice(row, row + 1) for row in range(len(self._active))])
        else:
            note_active(self._active, slice(None))

    def active_counts(self) -> list[int]:
        """Count the units of each image that are active now."""
        return count_true(self._active).tolist()

    def remove_weakest(self, leave: list[int], round_: int) -> bool:
        """Remove all but the strongest ``leave[i]`` of image i's active units; return True if any was removed."""
        units = self.layout.units
        # Inactive units contribute 0, so that among all N the weakest active ones follow them.
        kept = keep_above_kth(_without_rounding(self._contributions), [units - most for most in leave])
        if kept.device.type == "cpu":
            # A type of NumPy's, in which 0 has the same bits.
            left = self._left.view(_SAME_SIZE[self._left.element_size()])
            note = partial(_note_removal, round_)
            return any(for_each_row(note, self._contributions.float(), self._active, kept, self.scores, left))
        weakest = self._active.logical_and(kept.logical_not_())
        noted = self._contributions.float().view(torch.int32).to(self.scores.dtype).mul_(_FRACTION).add_(round_)
        torch.where(weakest, noted, self.scores, out=self.scores)
        self._left.masked_fill_(weakest, 0)
        return bool(weakest.any())


# Non-negative floats have the same order as their bits read as integers. 31 bits fit behind the point of a float64,
# so that nothing has to be sorted, which would take as long as a pass through the network.
_FRACTION = 2.0**-31
_ROUNDING = 2.0**-46  # 64 roundings of a float64
_NOISE = 24  # last bits of a float64's 52 behind the point
_SAME_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _settle_on_baseline(difference: Tensor, activation: Tensor) -> None:
    """Set differences (B, *site) in float64 to zero that are roundings: as of a token that the baseline shares.

    Otherwise its units would be active if the baseline was computed in a batch of another size.
    """
    if difference.dtype == torch.float64:
        largest = activation.abs().flatten(1).amax(1).view(-1, *[1] * (activation.dim() - 1))
        difference.masked_fill_(difference.abs() <= _ROUNDING * largest, 0)


def _without_rounding(contributions: Tensor) -> Tensor:
    """Round float64 to eight digits, so that units which contribute the same compare as equal.

    A token that occurs twice has such units. Their sums are rounded in another order in a batch than alone, and the
    threshold would part them by that, while ties are never split. Float32 has no digits to spare.
    """
    if contributions.dtype != torch.float64:
        return contributions
    # Non-negative floats, as integers, have the same order: rounding these rounds those.
    bits = contributions.view(torch.int64) + (1 << (_NOISE - 1))
    return bits.bitwise_and_(-(1 << _NOISE)).view(torch.float64)


def _note_removal(
    round_: int, contributions: Tensor, active: Tensor, kept: Tensor, scores: Tensor, left: Tensor
) -> int:
    """Score the active units of an image that are not kept, remove them, and return their number."""
    weakest = np.greater(active.numpy(), kept.numpy(), out=kept.numpy())
    gone = np.flatnonzero(weakest)
    bits = contributions.numpy()[gone].view(np.int32)
    scores.numpy()[gone] = bits * _FRACTION + round_
    left.numpy()[gone] = 0
    return len(gone)
