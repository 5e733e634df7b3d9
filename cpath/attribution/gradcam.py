"""GradCAM: a map of the last convolutional site, from one forward pass whatever the number of its branches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cpath.attribution.base import Attribution, register
from cpath.attribution.response import ResponseProbe, no_influence_error, not_reached_error
from cpath.errors import InputError, SiteError, unknown_name
from cpath.outputs import check_site
from cpath.sites import RightGradients, intercept, unwrap


@register("gradcam")
@dataclass(frozen=True, kw_only=True)
class GradCAM(Attribution):
    """Positive part of the sum of the channels, weighted by their mean gradients, at a convolutional site.

    The map is upsampled to the input's size (bilinear). If the last convolutional site is one of several branches
    that are concatenated, the map is taken at all of them, as at the layer that joins them. A site may be of any
    kind (reused, in-place or functional).

    Args:
        site: Name of the site; None for the last convolutional one.
        layer: Name of a module at whose output (B, C, h, w) the map is taken in place of a site, such as
            "features" of VGG, behind the last pooling, as published.

    Raises:
        InputError: If both are named.

    Source: Selvaraju et al., Grad-CAM, ICCV 2017.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.GradCAM(site="relu1")).shape
        torch.Size([2, 1, 8, 8])
    """

    site: str | None = None
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.site is not None and self.layer is not None:
            raise InputError("GradCAM takes its map at a site or at the output of a layer: name one of them.")

    def maps(self, probe: ResponseProbe) -> Tensor:
        """Compute ReLU(Σ_c z_c · mean(∂f/∂z_c)), upsampled, (B, 1, H, W)."""
        _ = probe.images  # raises where there are none
        if self.layer is not None:
            found, response = _at_layer(probe, self.layer)
        else:
            found, response = _at_sites(probe, probe.spatial_sites(self.site))
        return upsample(_weighted(found, response).clamp(min=0), probe.images)


def _at_sites(probe: ResponseProbe, sites: tuple[str, ...]) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the outputs of sites and the responses, in one graph."""
    found: dict[str, Tensor] = {}

    def visit(name: str, output: Tensor) -> Tensor | None:
        if name not in sites:
            return None
        found[name] = _in_graph(check_site(name, output, len(probe)))
        return found[name].clone()  # the model may go on with it in place

    watching = intercept(probe.model, visit, edits=set(sites), sites=probe.sites, left_out=probe.left_out)
    with watching:
        response = probe.response()
    for site in sites:
        if site not in found:
            raise not_reached_error(site)
    return found, response


def _at_layer(probe: ResponseProbe, name: str) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the output of a module and the responses, in one graph."""
    modules = dict(unwrap(probe.model).named_modules())
    if name not in modules:
        raise unknown_name("layer", name, modules)
    _ = probe.left_out  # looked at before the pass that counts
    found: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: Any, output: Any) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() != 4:
            raise SiteError(f"layer '{name}' does not give (B, C, h, w), which a map needs: name another one.")
        found.append(_in_graph(output))
        return found[-1].clone()  # the model may go on with it in place

    handle = modules[name].register_forward_hook(keep)
    try:
        with RightGradients():
            response = probe.response()
    finally:
        handle.remove()
    if len(found) != 1:
        raise SiteError(f"the model calls layer '{name}' {len(found)} times for an answer: name one called once.")
    return {name: found[0]}, response


def _in_graph(output: Tensor) -> Tensor:
    return output if output.requires_grad else output.detach().requires_grad_()


def _weighted(found: dict[str, Tensor], response: Tensor) -> Tensor:
    """Sum channels weighted by their mean gradients, (B, 1, h, w)."""
    if not response.requires_grad:
        raise no_influence_error(next(iter(found)))
    gradients = torch.autograd.grad(response.sum(), list(found.values()), allow_unused=True)
    cams = []
    for (name, output), gradient in zip(found.items(), gradients, strict=True):
        if gradient is None:
            raise no_influence_error(name)
        cams.append((output.detach() * gradient.mean((2, 3), keepdim=True)).sum(1, keepdim=True))
    return torch.stack(cams).sum(0)


def upsample(maps: Tensor, images: Tensor) -> Tensor:
    """Resize maps to the size of the images, bilinear, with the edges of both aligned.

    Args:
        maps: Maps (B, 1, h, w).
        images: Images (B, C, H, W).

    Returns:
        Maps (B, 1, H, W).
    """
    return F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)
