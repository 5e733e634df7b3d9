"""Attributions that follow from pathways and neuron contributions (Khakzar et al. 2021, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpath.attribution.base import Attribution, register
from cpath.attribution.gradcam import upsample
from cpath.attribution.response import Maps, ResponseProbe, no_influence_error, one_or_all
from cpath.checks import check_count, within_memory
from cpath.errors import MaskError
from cpath.inputs import GivenT, Inputs, check_inputs
from cpath.methods.base import Method
from cpath.methods.contribution import NeuronIntGrad
from cpath.methods.integration import integrate
from cpath.methods.quadrature import quadrature
from cpath.pathway import Pathway, check_pathway
from cpath.response import Target
from cpath.scores import find_pathway
from cpath.sites import differentiating, evaluating
from cpath.threshold import check_sparsity


def pathway_gradient(
    model: nn.Module, inputs: GivenT, pathway: Pathway, target: Target = None, *, max_batch: int = 64
) -> GivenT:
    """Compute the gradient ∂f/∂x of the response of the network restricted to a pathway.

    Args:
        model: The model that the pathway was found in.
        inputs: Floats (B, …) on the model's device, such as images (B, C, H, W); a tuple or a mapping, see
            `cpath.inputs`.
        pathway: Pathway of the same inputs, or of one input, which then applies to all.
        target: Class of the response: an int, ints (B,), or None for the class that the pathway was found for, or,
            if the pathway names none, the class that the unrestricted network predicts. Or a function of the
            model's output that returns floats (B,), also for a pathway that was found for it.
        max_batch: Largest number of inputs in one forward pass.

    Returns:
        Gradients (B, …), detached; for a tuple or a mapping in the same structure, with None in the place of what
        has no gradient.

    Raises:
        InputError: If inputs or target are unusable, or ``pathway`` is not a `Pathway`.
        MaskError: If the pathway does not fit the model or the inputs.
        OutOfMemoryError: If a pass of ``max_batch`` inputs does not fit into the device's memory.

    Source: Khakzar et al. 2021, section 4.

    Example:
        >>> pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90)
        >>> cpath.pathway_gradient(model, images, pathway).shape
        torch.Size([2, 3, 8, 8])
    """
    check_pathway(pathway)
    max_batch = check_count("max_batch", max_batch)
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer inputs at once"
    with evaluating(model), differentiating(), within_memory(remedy):
        checked = check_inputs(model, inputs)
        if len(pathway) not in (1, len(checked)):
            raise MaskError(f"the pathway belongs to {len(pathway)} inputs, the batch has {len(checked)}.")
        explained = _target(pathway, checked, target)
        probe = ResponseProbe(model, checked, explained, sites=pathway.sites, max_batch=max_batch)
        found = gradients_in_parts(probe, pathway)
    gradients: GivenT = probe.inputs.structured(dict(zip(probe.inputs.sources, found, strict=True)))
    return gradients


def _target(pathway: Pathway, inputs: Inputs, target: Target) -> Target:
    if target is not None or pathway.target is None:
        return target
    # A pathway read from a file is on the CPU. A pathway of one input applies to any number.
    return pathway.target.to(inputs.device).expand(len(inputs))


def gradients_in_parts(probe: ResponseProbe, pathway: Pathway) -> tuple[Tensor, ...]:
    """Compute the gradients of the restricted network, as many inputs at once as fit into a pass.

    Args:
        probe: The inputs in front of the model.
        pathway: Their pathway.

    Returns:
        Gradient (B, …) of each tensor in ``probe.sources``.
    """
    at_once = probe.inputs_at_once()
    parts = [
        _restricted_gradient(probe.part(part), pathway if len(pathway) == 1 else pathway[part])
        for part in (slice(start, start + at_once) for start in range(0, len(probe), at_once))
    ]
    return tuple(torch.cat(found) for found in zip(*parts, strict=True))


def _restricted_gradient(probe: ResponseProbe, pathway: Pathway) -> tuple[Tensor, ...]:
    _ = probe.left_out  # looked at before anything is restricted
    if probe.asked is None:
        _ = probe.target  # of the unrestricted network, before the restricted one runs
    leaves = probe.inputs.leaves()
    with pathway.restrict(probe.model) as seen:
        gradients = torch.autograd.grad(probe.response(*leaves).sum(), leaves)
    pathway.check_reached(seen)
    return gradients


@dataclass(frozen=True, kw_only=True)
class PathwayGradient(Attribution):
    """Gradient of the network restricted to the pathway that a method finds.

    Args:
        method: Extraction method, or its name.
        sparsity: Per cent of all neurons to prune, 0 ≤ sparsity < 100.

    Raises:
        InputError: If ``sparsity`` is out of range.

    Source: Khakzar et al. 2021, section 4.

    Example:
        >>> attribution = cpath.attribution.PathwayGradient(method="neuron_intgrad", sparsity=80)
        >>> cpath.attribute(model, images, attribution).shape
        torch.Size([2, 3, 8, 8])
    """

    method: str | Method = "neuron_mct"
    sparsity: float = 90

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)

    @property
    def name(self) -> str:
        """Name of the extraction method."""
        return self.method if isinstance(self.method, str) else self.method.name

    def maps(self, probe: ResponseProbe) -> Maps:
        """Compute ∂f/∂x of the restricted network."""
        pathway = find_pathway(
            probe.model,
            probe.inputs,
            self.method,
            self.sparsity,
            probe.asked,
            sites=probe.sites,
            unit=probe.units,
            baseline=probe.baseline,
            max_batch=probe.max_batch,
        )
        if probe.asked is None:
            probe = probe.asking(pathway.target)
        return one_or_all(gradients_in_parts(probe, pathway))


@register("neuron_intgrad_star")
@dataclass(frozen=True, kw_only=True)
class NeuronIntGradStar(Attribution):
    """Positive part of the channel sum of the signed `neuron_intgrad` contributions at one site.

    The map is upsampled to the input's size (bilinear). It is GradCAM with integrated instead of averaged
    gradients. The paper shows NeuronIntGrad* without releasing it, so this is a reading of it.

    Args:
        nodes: Number of quadrature nodes, one forward and backward pass each.
        rule: Quadrature, as for `cpath.methods.NeuronIntGrad`.
        site: Name of the site; None for GradCAM's, the last convolutional one or its concatenated branches.

    Raises:
        UnknownNameError: If there is no such rule.
        InputError: If the rule needs more nodes.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.NeuronIntGradStar(site="relu1")).shape
        torch.Size([2, 1, 8, 8])
    """

    nodes: int = NeuronIntGrad.nodes
    rule: str = NeuronIntGrad.rule
    site: str | None = None

    def __post_init__(self) -> None:
        quadrature(self.rule, self.nodes)  # raises for unusable settings

    @property
    def rows(self) -> int:
        """Number of nodes: one row each."""
        return self.nodes

    def maps(self, probe: ResponseProbe) -> Tensor:
        """Compute ReLU(Σ_c z_c · Σ_k w_k ∂f(α_k z)/∂z_c), upsampled, (B, 1, H, W)."""
        _ = probe.images  # raises where there are none
        found = [self._signed(probe, site) for site in probe.spatial_sites(self.site)]
        return upsample(torch.stack(found).sum(0).clamp(min=0), probe.images)

    def _signed(self, probe: ResponseProbe, site: str) -> Tensor:
        activation = probe.activation(site)
        nodes = list(zip(*quadrature(self.rule, self.nodes), strict=True))
        mean = torch.zeros_like(activation)
        _, depends = integrate(probe, site, activation, mean, nodes, max(1, probe.rows_at_once // len(probe)))
        if not depends:
            raise no_influence_error(site)
        return (activation * mean).sum(1, keepdim=True)
