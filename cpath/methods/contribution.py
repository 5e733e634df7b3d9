"""Contribution methods: the loss of response if a neuron is removed (Khakzar et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from cpath.checks import check_count
from cpath.errors import InputError
from cpath.methods.base import Contributions, Method, register
from cpath.methods.integration import weighted_gradients
from cpath.methods.quadrature import quadrature
from cpath.methods.refinement import refined_gradients
from cpath.probe import Probe


@register("neuron_mct")
@dataclass(frozen=True, kw_only=True)
class NeuronMCT(Method):
    """First-order marginal contribution: score |(z − b) · ∂f/∂z|, with one backward pass for all sites.

    The baseline b is zero unless said. The score of a channel, token or head is the magnitude of the sum over its
    neurons.

    Source: Khakzar et al. 2021, section 3.1.

    Example:
        >>> cpath.score(model, images, cpath.methods.NeuronMCT())
        Scores(method='neuron_mct', images=2, sites=2, neurons=352)
    """

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """Compute the signed contributions (z − b) · ∂f/∂z."""
        record = probe.record()
        return {
            name: gradient.mul_(probe.above_baseline(name, record.activations[name]))
            for name, gradient in record.gradients.items()
        }


@register("neuron_intgrad")
@dataclass(frozen=True, kw_only=True)
class NeuronIntGrad(Method):
    """Integrated gradients of each site, from its baseline to its value: |(z − b) · ∫ ∂f(b + α (z − b))/∂z dα|.

    The baseline b is zero unless said, so that the score is |z · ∫ ∂f(α z)/∂z dα|. One site is moved at a time, and
    everything after it is recomputed. The score of a channel, token or head is the magnitude of the sum over its
    neurons. The completeness residual is reported with the scores.

    Args:
        nodes: Number of quadrature nodes over α.
        rule: Name of the quadrature (`cpath.methods.quadrature.RULES`).
        residual: Compute the residual, which takes one more forward pass of what lies behind each site.
        tolerance: Largest relative residual. If it is given, each site of each input gets nodes of the endpoint
            rule until its residual is no larger (see `cpath.methods.refinement`), instead of ``nodes`` each.
        max_nodes: Largest number of nodes for ``tolerance``. Where they do not suffice, a warning says so.

    Raises:
        UnknownNameError: If there is no such rule.
        InputError: If the rule needs more nodes, or cannot be refined to a tolerance.

    Source: Khakzar et al. 2021, section 3.1.

    Example:
        >>> scores = cpath.score(model, images, cpath.methods.NeuronIntGrad(nodes=5))
        >>> {name: residual.shape for name, residual in scores.residual.items()}
        {'relu1': torch.Size([2]), 'relu2': torch.Size([2])}
    """

    nodes: int = 9
    rule: str = "endpoint"
    residual: bool = True
    tolerance: float | None = None
    max_nodes: int = 122

    def __post_init__(self) -> None:
        quadrature(self.rule, self.nodes)  # raises for unusable settings
        check_count("max_nodes", self.max_nodes)
        if self.tolerance is None:
            return
        if not 0 < self.tolerance < float("inf"):
            raise InputError(f"tolerance must be a positive number, not {self.tolerance}.")
        if self.rule != "endpoint" or not self.residual:
            raise InputError("tolerance refines the endpoint rule by its residual: it needs both.")

    def contributions(self, probe: Probe) -> Contributions:
        """Compute the signed contributions (z − b) · Σ w_k ∂f(b + α_k (z − b))/∂z, with the residual."""
        if self.tolerance is not None:
            return refined_gradients(probe, self.tolerance, self.max_nodes)
        return weighted_gradients(probe, *quadrature(self.rule, self.nodes), residual=self.residual)
