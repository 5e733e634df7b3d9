"""Networks restricted to the best-scored units, or robbed of them, at many sizes from one scoring.

A mask is never stored: each site compares its scores with one threshold for each input and size, which is the rule
of `cpath.threshold` with its ties.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cpath._torch import eagerly
from cpath.baselines import blended
from cpath.checks import check_number
from cpath.devices import rows_at_once
from cpath.errors import InputError, MaskError, described
from cpath.inputs import Inputs
from cpath.margin import Strength
from cpath.probe import Probe
from cpath.scores import Scores
from cpath.sites import ACTIVATIONS, EVERY_SITE, intercept
from cpath.threshold import for_each_row, per_cent_of

NOTHING = torch.inf
"""Threshold above which no unit scores."""


def check_keep(keep: object) -> tuple[float, ...]:
    """Check shares of units to keep.

    Args:
        keep: Per cents of all units.

    Returns:
        The per cents as floats.

    Raises:
        InputError: If they are no ascending numbers in 0 < keep ≤ 100.
    """
    if isinstance(keep, str) or not hasattr(keep, "__iter__"):
        raise InputError(f"keep must be per cents of the units, one or several, not {described(keep)}.")
    shares = tuple(check_number("keep", float(value) if isinstance(value, Tensor) else value) for value in keep)
    if not shares or list(shares) != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] <= 100:
        raise InputError(f"keep must be ascending per cents of the units, above 0 and at most 100; got {shares}.")
    return shares


def thresholds(scores: Scores, keep: Sequence[float]) -> Tensor:
    """Find the scores that a unit must exceed to be among the best.

    Args:
        scores: Scores of B inputs.
        keep: Per cents of all units.

    Returns:
        Thresholds (len(keep), B): the k-th smallest score, k being the number of units that are not kept.
    """
    units = scores.layout.units
    ks = [units - math.floor(per_cent_of(share, units)) for share in keep]
    flat = scores.flat.float() if scores.flat.dtype == torch.bfloat16 else scores.flat  # unknown to NumPy
    found = torch.zeros(len(flat), len(ks), dtype=flat.dtype, device=flat.device)
    for_each_row(lambda row, into: _kth_smallest(row, ks, into), flat.contiguous(), found)
    return found.T


def _kth_smallest(row: Tensor, ks: Sequence[int], into: Tensor) -> None:
    """Write the k-th smallest of a row for each k; 0 for k = 0, as no score is below it."""
    places = [k - 1 for k in ks if k > 0]
    if not places:
        return
    if row.device.type == "cpu":
        values = torch.from_numpy(np.partition(row.numpy(), places)[places])
    else:
        values = torch.stack([row.kthvalue(place + 1).values for place in places])
    into[[number for number, k in enumerate(ks) if k > 0]] = values


def count_kept(scores: Scores, above: Tensor) -> Tensor:
    """Count the units that score above their thresholds.

    Args:
        scores: Scores of B inputs.
        above: Thresholds (K, B).

    Returns:
        Counts (K, B), int64.
    """
    counts = torch.empty(above.T.shape, dtype=torch.int64, device=above.device)
    for_each_row(_count_above, scores.flat.contiguous(), above.T, counts)
    return counts.T


def _count_above(row: Tensor, limits: Tensor, into: Tensor) -> None:
    if row.device.type == "cpu" and row.dtype != torch.bfloat16:  # unknown to NumPy, which is many times faster
        above = [int(np.count_nonzero(np.greater(row.numpy(), limit))) for limit in limits.numpy()]
    else:
        above = [int((row > limit).sum()) for limit in limits]
    into.copy_(torch.tensor(above))


def check_belong(scores: Scores, inputs: Inputs) -> None:
    """Check that scores belong to as many inputs, on the same device.

    Args:
        scores: The scores.
        inputs: The inputs.

    Raises:
        MaskError: If they do not.
    """
    if len(scores) != len(inputs):
        raise MaskError(f"the scores belong to {len(scores)} inputs, the batch has {len(inputs)}.")
    if scores.flat.device != inputs.device:
        raise MaskError(
            f"the scores are on {scores.flat.device}, the inputs on {inputs.device}: use "
            f"scores.to('{inputs.device}')."
        )


class TopUnits:
    """Networks of a batch of inputs that are restricted to the best-scored units, or robbed of them.

    Args:
        probe: The inputs in front of the model, with the sites and the baseline of the scores.
        scores: Scores of the same inputs.
        activations: Output (B, *site) of every site.

    Raises:
        MaskError: If the scores do not belong to the model and its inputs.
    """

    def __init__(self, probe: Probe, scores: Scores, activations: dict[str, Tensor]) -> None:
        self._probe, self._scores, self._baseline = probe, scores, probe.baseline
        self._check_layout(activations)
        largest = max(output[0].numel() * output.element_size() for output in activations.values())
        self._versions_at_once = max(1, rows_at_once(probe.device, largest, probe.max_batch) // len(probe))
        # What an activation function returns is nobody else's yet; what a module returns may be.
        self._in_place = set(scores.sites) <= set(ACTIVATIONS)
        self._memory = torch.empty(0, device=probe.device)
        self._left_out = frozenset({*scores.left_out, *probe.left_out} - set(scores.layout.shapes))

    def _check_layout(self, activations: dict[str, Tensor]) -> None:
        layout = self._scores.layout
        for name, output in activations.items():
            if name not in layout.shapes or not layout.fits(name, tuple(output.shape[1:])):
                raise MaskError(
                    f"at site '{name}' the model gives {tuple(output.shape[1:])} for each input, where the scores "
                    f"have {layout.shapes.get(name, 'no such site')}: they belong to another model or input size."
                )
        missing = [name for name in layout.shapes if name not in activations]
        if missing:
            raise MaskError(
                f"the model never reached site '{missing[0]}' of the scores: they belong to another model."
            )

    def strengths(self, strength: Strength, above: Tensor, *, keep_top: bool) -> Tensor:
        """Read the answers of the restricted networks.

        Args:
            strength: Number to read off the output.
            above: Thresholds (V, B): the top units are those that score above.
            keep_top: Keep the top units and set all others to their baseline; False for the reverse.

        Returns:
            Answers (V, B).
        """
        return torch.cat(
            [self._pass(strength, part, keep_top) for part in torch.split(above, self._versions_at_once)]
        )

    def _pass(self, strength: Strength, above: Tensor, keep_top: bool) -> Tensor:
        versions, batch = above.shape
        inputs = self._probe.inputs[torch.arange(batch, device=above.device).repeat(versions)]
        reached: set[str] = set()

        def visit(name: str, output: Tensor) -> Tensor | None:
            scores = self._scores.values.get(name)
            if scores is None or len(output) != versions * batch:
                raise self._another_site(name, output)
            reached.add(name)
            kept = self._marked(scores, above, keep_top, output.dtype)
            whole = output.view(versions, batch, *output.shape[1:])
            baseline = None if self._baseline is None else self._baseline.at(name, output).unsqueeze(0)
            if not self._in_place:
                return blended(whole, kept, baseline).flatten(0, 1)
            if baseline is None:
                whole.mul_(kept)
            else:
                torch.lerp(baseline, whole, kept, out=whole)
            return None

        edits = () if self._in_place else EVERY_SITE
        watching = intercept(
            self._probe.model,
            visit,
            edits=edits,
            in_place=self._in_place,
            sites=self._scores.sites,
            left_out=self._left_out,
        )
        with eagerly(), watching:
            output = inputs.clone().call(self._probe.model)  # it may change what belongs to all inputs
        unreached = self._scores.layout.shapes.keys() - reached
        if unreached:
            raise MaskError(f"the restricted network never reached site '{min(unreached)}' of the scores.")
        return strength.read(output, versions)

    def _marked(self, scores: Tensor, above: Tensor, keep_top: bool, dtype: torch.dtype) -> Tensor:
        """Mark the kept units (V, B, *units) of a site by 1, until the next call.

        They are floats in one piece of memory for all sites: on a CPU, multiplying by booleans and fetching fresh
        memory would take several times as long.
        """
        shape = (len(above), *scores.shape)
        count = math.prod(shape)
        if len(self._memory) < count or self._memory.dtype != dtype:
            self._memory = torch.empty(count, dtype=dtype, device=scores.device)
        limit = above.view(*above.shape, *[1] * (scores.dim() - 1))
        compare = torch.gt if keep_top else torch.le
        return compare(scores, limit, out=self._memory[:count].view(shape))

    def _another_site(self, name: str, output: Tensor) -> MaskError:
        return MaskError(
            f"the restricted network gives {tuple(output.shape)} at site '{name}', which the scores do not have: "
            "its sites differ from those of the whole network."
        )
