"""Attributions that follow from pathways and neuron contributions (paper, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpath.attribution.base import Attribution, register
from cpath.attribution.by_captum import upsample
from cpath.attribution.response import ResponseProbe, no_influence_error
from cpath.checks import check_count, within_memory
from cpath.errors import InputError, MaskError
from cpath.methods.base import Method
from cpath.methods.contribution import NeuronIntGrad, integrate
from cpath.methods.quadrature import quadrature
from cpath.pathway import Pathway
from cpath.probe import Target, check_images
from cpath.scores import find_pathway
from cpath.sites import differentiating, evaluating
from cpath.threshold import check_sparsity


def pathway_gradient(
    model: nn.Module, images: Tensor, pathway: Pathway, target: Target = None, *, max_batch: int = 64
) -> Tensor:
    """Gradient ∂f/∂x of the response of the network restricted to ``pathway``, (B, C, H, W).

    ``target`` defaults to the class that the pathway was extracted for, else to the class that the
    unrestricted network predicts. ``max_batch`` as for `cpath.score`. Raises `MaskError` when the pathway does not
    fit, and as `cpath.score` does for unusable images and targets.
    """
    if not isinstance(pathway, Pathway):
        raise InputError(f"pathway must be a cpath.Pathway, not {type(pathway).__name__}.")
    max_batch = check_count("max_batch", max_batch)
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer images at once"
    with evaluating(model), differentiating(), within_memory(remedy):
        check_images(model, images)
        if len(pathway) not in (1, len(images)):
            raise MaskError(f"the pathway belongs to {len(pathway)} images, the batch has {len(images)}.")
        if target is None and pathway.target is not None:
            # Read from a file, it is on the CPU. A pathway of one image applies to any number.
            target = pathway.target.to(images.device).expand(len(images))
        probe = ResponseProbe(model, images, target, max_batch=max_batch)
        at_once = probe.rows_at_once
        parts = [
            _restricted_gradient(probe.part(part), pathway if len(pathway) == 1 else pathway[part])
            for part in (slice(start, start + at_once) for start in range(0, len(probe), at_once))
        ]
    return torch.cat(parts)


def _restricted_gradient(probe: ResponseProbe, pathway: Pathway) -> Tensor:
    if probe.asked is None:
        _ = probe.target  # of the unrestricted network, before the restricted one runs
    with pathway.restrict(probe.model) as seen:
        source = probe.images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(probe.response(source).sum(), source)
    pathway.check_reached(seen)
    return gradient


@dataclass(frozen=True, kw_only=True)
class PathwayGradient(Attribution):
    """Gradient of the network restricted to the pathway that ``method`` finds at ``sparsity`` per cent."""

    method: str | Method = "neuron_mct"
    sparsity: float = 90

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)

    @property
    def name(self) -> str:
        """The method's."""
        return self.method if isinstance(self.method, str) else self.method.name

    def maps(self, probe: ResponseProbe) -> Tensor:
        """∂f/∂x of the restricted network."""
        pathway = find_pathway(
            probe.model,
            probe.images,
            self.method,
            self.sparsity,
            probe.asked,
            activations=probe.activation_names,
            max_batch=probe.max_batch,
        )
        return pathway_gradient(probe.model, probe.images, pathway, max_batch=probe.max_batch)


@register("neuron_intgrad_star")
@dataclass(frozen=True, kw_only=True)
class NeuronIntGradStar(Attribution):
    """Positive part of the channel sum of the signed `neuron_intgrad` contributions at one site, (B, 1, H, W).

    At GradCAM's site or branches, or at ``site``; upsampled to the input's size (bilinear): GradCAM with integrated
    instead of averaged gradients. The paper shows NeuronIntGrad* without releasing it, so this is a reading of it.
    ``rule`` and ``nodes`` as for `cpath.methods.NeuronIntGrad`.
    """

    nodes: int = NeuronIntGrad.nodes
    rule: str = NeuronIntGrad.rule
    site: str | None = None

    def __post_init__(self) -> None:
        quadrature(self.rule, self.nodes)  # raises for unusable settings

    @property
    def rows(self) -> int:
        """One row a node."""
        return self.nodes

    def maps(self, probe: ResponseProbe) -> Tensor:
        """ReLU(Σ_c z_c · Σ_k w_k ∂f(α_k z)/∂z_c), upsampled."""
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
