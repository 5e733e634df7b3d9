"""Computations of the code released with the paper, where they depart from the paper's definitions.

They are offered so that both readings stand side by side in a report. `neuron_intgrad` and `greedy` are the
definitions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from cpath.checks import check_count
from cpath.errors import InputError
from cpath.layout import SiteLayout, common_dtype
from cpath.methods.base import Contributions, Method, check_contributions, register
from cpath.methods.integration import weighted_gradients
from cpath.probe import Probe
from cpath.threshold import check_sparsity, keep_above
from cpath.units import NEURONS

ACCUMULATED_SCALES = tuple(k * (k + 1) / 20 for k in range(11))
"""0, .1, .3, .6, 1, 1.5 … 5.5: each node adds the next tenth to the scale of the node before."""


@register("neuron_intgrad_released")
@dataclass(frozen=True, kw_only=True)
class NeuronIntGradReleased(Method):
    """NeuronIntGrad as released: |z · mean of ∂f(α z)/∂z over 11 nodes|, with α from 0 to 5.5 instead of to 1.

    The released code accumulates the scale from node to node (`ACCUMULATED_SCALES`), so that most nodes lie outside
    the path from 0 to z and no integral is approximated, as the residual shows. Our reading of what is not
    specified: one site is scaled at a time, the scores multiply by the unscaled z, and all nodes weigh 1/11.

    Source: the code released with Khakzar et al. 2021.

    Example:
        >>> cpath.score(model, images, cpath.methods.NeuronIntGradReleased())
        Scores(method='neuron_intgrad_released', images=2, sites=2, neurons=352)
    """

    neurons_only: ClassVar[bool] = True

    def contributions(self, probe: Probe) -> Contributions:
        """Compute the signed contributions z · mean of ∂f(α_k z)/∂z, with the residual."""
        check_as_released(self.name, probe)
        nodes = len(ACCUMULATED_SCALES)
        return weighted_gradients(probe, ACCUMULATED_SCALES, [1 / nodes] * nodes)


@register("greedy_released")
@dataclass(frozen=True, kw_only=True)
class GreedyReleased(Method):
    """Greedy pruning as released: after each round every neuron of score zero is switched back on.

    Round r of R scores |z · ∂f/∂z| in the network as masked so far, counts every zero as the largest score, and
    masks what is not above the threshold at sparsity r/R · ``sparsity``, except the zeros. A masked neuron scores
    zero, so it returns one round later, and a dead one never leaves: the pathway misses the requested sparsity. The
    score is 1 for the neurons that the last round keeps.

    Args:
        rounds: Number of rounds. The released code takes rounds of one per cent each (``rounds`` = ``sparsity``);
            fewer are cheaper and leave the fault as it is.
        sparsity: Per cent of the neurons that the last round is to prune.
        round_zero: Count the rounds from 0, as released: round 0 masks nothing, and the last one stops a round
            short of ``sparsity``. ``GreedyReleased(rounds=90, sparsity=90, round_zero=True)`` ends at 89 %, as the
            released ``prune_greedy(1, iteration=90)`` does.

    Raises:
        InputError: If a setting is out of range.

    Source: the code released with Khakzar et al. 2021.

    Example:
        >>> pathway = cpath.find_pathway(model, images, cpath.methods.GreedyReleased(), sparsity=90)
        >>> bool((pathway.sparsity < 90).all())
        True
    """

    graded: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    neurons_only: ClassVar[bool] = True
    rounds: int = 10
    sparsity: float = 90.0
    round_zero: bool = False

    def __post_init__(self) -> None:
        check_count("rounds", self.rounds)
        check_sparsity(self.sparsity)

    def at(self, sparsity: float) -> Method:
        """Adapt the rounds to one sparsity: the neurons that they keep on the way are not nested."""
        return replace(self, sparsity=sparsity)

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """Mark the neurons that the last round keeps."""
        check_as_released(self.name, probe)
        record = probe.record()
        layout = SiteLayout.of(record.activations)
        dtype, device = common_dtype(record.activations), record.response.device
        scores = torch.empty(len(probe), layout.units, dtype=dtype, device=device)
        kept = torch.ones_like(scores)
        for done in range(1, self.rounds + 1):
            percent = (done - self.round_zero) * self.sparsity / self.rounds
            for name, view in layout.views(scores).items():
                torch.abs(record.gradients[name].mul_(record.activations[name]).to(dtype), out=view)
            check_contributions(scores, self.name)
            # Infinity stands for the largest score: zeros are the last that a threshold reaches, and are kept then.
            zero = scores == 0
            scores.masked_fill_(zero, float("inf"))
            kept = keep_above(scores, percent).logical_or_(zero).to(scores.dtype)
            if done < self.rounds:
                record = probe.record(layout.views(kept))
        return layout.views(kept)


def check_as_released(method: str, probe: Probe) -> None:
    """Check that a question is one that the released code can answer.

    Args:
        method: Name of the method.
        probe: The images in front of the model.

    Raises:
        InputError: If units other than neurons, or a baseline other than zero, are asked for.
    """
    if probe.units.kind != NEURONS.kind or probe.baseline is not None:
        raise InputError(
            f"method '{method}' computes what the released code does, which is per neuron and against zero: "
            f"use '{method.removesuffix('_released')}' for other units and baselines."
        )
