"""Attributions that follow from pathways and neuron contributions (Khakzar et al. 2021, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cpath.attribution.base import Attribution, register
from cpath.attribution.by_captum import upsample
from cpath.attribution.response import ResponseProbe, no_influence_error
from cpath.checks import check_count, within_memory
from cpath.errors import MaskError
from cpath.methods.base import Method
from cpath.methods.contribution import NeuronIntGrad, integrate
from cpath.methods.quadrature import quadrature
from cpath.pathway import Pathway, check_pathway
from cpath.probe import Target, check_images
from cpath.scores import find_pathway
from cpath.sites import differentiating, evaluating
from cpath.threshold import check_sparsity


def pathway_gradient(
    model: nn.Module, images: Tensor, pathway: Pathway, target: Target = None, *, max_batch: int = 64
) -> Tensor:
    """Compute the gradient ∂f/∂x of the response of the network restricted to a pathway.

    Args:
        model: The model that the pathway was found in.
        images: Floats (B, C, H, W) on the model's device.
        pathway: Pathway of the same images, or of one image, which then applies to all.
        target: Class of the response: an int, ints (B,), or None for the class that the pathway was found for, or,
            if the pathway names none, the class that the unrestricted network predicts.
        max_batch: Largest number of images in one forward pass.

    Returns:
        Gradients (B, C, H, W), detached.

    Raises:
        InputError: If images or target are unusable, or ``pathway`` is not a `Pathway`.
        MaskError: If the pathway does not fit the model or the images.
        OutOfMemoryError: If a pass of ``max_batch`` images does not fit into the device's memory.

    Source: Khakzar et al. 2021, section 4.

    Example:
        >>> pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90)
        >>> cpath.pathway_gradient(model, images, pathway).shape
        torch.Size([2, 3, 8, 8])
    """
    check_pathway(pathway)
    max_batch = check_count("max_batch", max_batch)
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer images at once"
    with evaluating(model), differentiating(), within_memory(remedy):
        check_images(model, images)
        if len(pathway) not in (1, len(images)):
            raise MaskError(f"the pathway belongs to {len(pathway)} images, the batch has {len(images)}.")
        if target is None and pathway.target is not None:
            # A pathway read from a file is on the CPU. A pathway of one image applies to any number.
            target = pathway.target.to(images.device).expand(len(images))
        probe = ResponseProbe(model, images, target, max_batch=max_batch)
        at_once = probe.rows_at_once
        parts = [
            _restricted_gradient(probe.part(part), pathway if len(pathway) == 1 else pathway[part])
            for part in (slice(start, start + at_once) for start in range(0, len(probe), at_once))
        ]
    return torch.cat(parts)


def _restricted_gradient(probe: ResponseProbe, pathway: Pathway) -> Tensor:
    _ = probe.left_out  # looked at before anything is restricted
    if probe.asked is None:
        _ = probe.target  # of the unrestricted network, before the restricted one runs
    with pathway.restrict(probe.model) as seen:
        source = probe.images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(probe.response(source).sum(), source)
    pathway.check_reached(seen)
    return gradient


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

    def maps(self, probe: ResponseProbe) -> Tensor:
        """Compute ∂f/∂x of the restricted network."""
        pathway = find_pathway(
            probe.model,
            probe.images,
            self.method,
            self.sparsity,
            probe.asked,
            sites=probe.sites,
            max_batch=probe.max_batch,
        )
        return pathway_gradient(probe.model, probe.images, pathway, max_batch=probe.max_batch)


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
