"""Attributions that come from Captum: gradients at the input and at the last convolutional site.

Captum gets the response as a function of the input and never sees the model, so it sets no hook in it. Where an
attribution concerns activation functions (GBP, GradCAM), cpath's sites stand between the two: Captum finds
ReLUs and layers by their modules, and so misses functional ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpath.attribution.base import Attribution, register
from cpath.attribution.response import ResponseProbe, no_influence_error
from cpath.checks import check_count, check_seed
from cpath.errors import InputError, SiteError, unknown_name
from cpath.methods.quadrature import quadrature
from cpath.optional import optional
from cpath.probe import no_sites_error
from cpath.randomness import image_generators
from cpath.sites import EVERY_SITE, intercept

_RULES = {"legendre": "gausslegendre", "midpoint": "riemann_middle", "trapezoid": "riemann_trapezoid"}
"""Captum's names of the quadrature rules that it has."""


def captum(purpose: str) -> Any:
    """`captum.attr`; raises `MissingPackageError` where Captum is absent."""
    return optional("captum.attr", "captum>=0.9", f"the attribution '{purpose}'")


def _leaf(images: Tensor) -> Tensor:
    """The same values as a tensor of our own that requires gradients: the user's never does."""
    return images.detach().requires_grad_()


@register("gradients")
@dataclass(frozen=True, kw_only=True)
class Gradients(Attribution):
    """∂f/∂x, signed (Simonyan et al. 2013 without the magnitude)."""

    def maps(self, probe: ResponseProbe) -> Tensor:
        """Signed gradients."""
        saliency = captum(self.name).Saliency(probe.response)
        return saliency.attribute(_leaf(probe.images), abs=False)  # type: ignore[no-any-return]


@register("input_mct")
@dataclass(frozen=True, kw_only=True)
class InputMCT(Attribution):
    """x · ∂f/∂x: the first-order marginal contribution of each input element."""

    def maps(self, probe: ResponseProbe) -> Tensor:
        """Gradient times input."""
        product = captum(self.name).InputXGradient(probe.response)
        return product.attribute(_leaf(probe.images)).detach()  # type: ignore[no-any-return]


@register("input_intgrad")
@dataclass(frozen=True, kw_only=True)
class InputIntGrad(Attribution):
    """Integrated gradients from ``baseline`` to x (Sundararajan et al. 2017).

    ``baseline`` 0 is the mean colour where the data is normalised by its mean, as published. ``rule`` and ``nodes``
    name the quadrature as for `cpath.methods.NeuronIntGrad`; Captum has "legendre", "midpoint" and "trapezoid".
    """

    nodes: int = 50
    baseline: float = 0.0
    rule: str = "legendre"

    def __post_init__(self) -> None:
        if self.rule not in _RULES:
            raise unknown_name("quadrature rule", self.rule, _RULES)
        quadrature(self.rule, self.nodes)  # raises for unusable settings

    @property
    def rows(self) -> int:
        """One row a node."""
        return self.nodes

    def maps(self, probe: ResponseProbe) -> Tensor:
        """(x − baseline) · Σ w_k ∂f(baseline + α_k (x − baseline))/∂x."""
        integrated = captum(self.name).IntegratedGradients(probe.response)
        _ = probe.target  # of the images, before the first scaled ones pass
        found: Tensor = integrated.attribute(
            probe.images,
            baselines=self.baseline,
            n_steps=self.nodes,
            # Of one node both rules are the same, but Captum has only this one.
            method=_RULES["legendre" if self.nodes == 1 else self.rule],
            internal_batch_size=max(len(probe), probe.rows_at_once),
        )
        if self.rule == "trapezoid":
            found = found * (self.nodes / (self.nodes - 1))  # Captum's weights sum to 1 - 1/nodes
        return found.detach().to(probe.images.dtype)


@register("smoothgrad")
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Attribution):
    """Mean gradient over ``samples`` noisy copies of x (Smilkov et al. 2017).

    The noise is N(0, σ), σ being ``noise`` times the range of values in the image. It is drawn here, per image
    and seeded, because that of Captum's NoiseTunnel depends on the batch and on the global random state.
    """

    samples: int = 50
    noise: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("samples", self.samples)
        check_seed(self.seed)
        if self.noise < 0:
            raise InputError(f"noise must not be negative, not {self.noise}.")

    @property
    def rows(self) -> int:
        """One row a sample."""
        return self.samples

    def maps(self, probe: ResponseProbe) -> Tensor:
        """Signed mean gradient."""
        saliency = captum(self.name).Saliency(probe.response)
        _ = probe.target  # of the images, before the first noisy ones pass
        images = probe.images
        generators = image_generators(images, self.seed, self.name)
        sigma = self.noise * (images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True))
        total = torch.zeros_like(images)
        at_once = max(1, probe.rows_at_once // len(probe))
        for start in range(0, self.samples, at_once):
            count = min(at_once, self.samples - start)
            draws = [
                torch.stack([torch.randn(images.shape[1:], generator=generator) for generator in generators])
                for _ in range(count)
            ]
            noisy = images + sigma * torch.stack(draws).to(images)  # (count, B, C, H, W)
            gradients: Tensor = saliency.attribute(_leaf(noisy.flatten(0, 1)), abs=False)
            total += gradients.view(count, *images.shape).sum(0)
        return total / self.samples


@register("gbp")
@dataclass(frozen=True, kw_only=True)
class GBP(Attribution):
    """Guided backpropagation: at every ReLU only the positive part of the gradient passes (Springenberg 2015).

    The gradient is Captum's, the rule is applied at cpath's sites. Captum's own GuidedBackprop gives the same
    where each ReLU is a module and nothing else reads its input (ResNets, VGG); it is silently wrong for
    functional ReLUs, for skip connections that start before a ReLU, and for models that ignore what an
    in-place ReLU returns. Raises `SiteError` for a model without a site.
    """

    def maps(self, probe: ResponseProbe) -> Tensor:
        """Signed guided gradients."""
        seen = 0

        def guide(name: str, output: Tensor) -> None:
            nonlocal seen
            seen += 1
            if not output.requires_grad:
                raise SiteError(
                    f"site '{name}' runs where gradients are switched off: remove the model's no_grad()."
                )
            # The ReLU then zeroes the gradient where z = 0, as its derivative says.
            output.register_hook(lambda gradient: gradient.clamp(min=0))  # type: ignore[no-untyped-call]

        def response(inputs: Tensor) -> Tensor:
            # Edited though nothing is replaced: the hook then sits on a tensor that no in-place operation shares.
            with intercept(probe.model, guide, edits=EVERY_SITE, activations=probe.activation_names):
                found = probe.response(inputs)
            if not seen:
                raise no_sites_error(probe.activation_names)
            return found

        saliency = captum(self.name).Saliency(response)
        return saliency.attribute(_leaf(probe.images), abs=False)  # type: ignore[no-any-return]


@register("gradcam")
@dataclass(frozen=True, kw_only=True)
class GradCAM(Attribution):
    """Positive part of the channels weighted by their mean gradient (Selvaraju et al. 2017), (B, 1, H, W).

    At the last convolutional site, or at ``site``; upsampled to the input's size (bilinear). Where that site is one
    of several branches that are concatenated, at all of them, as at the layer that joins them. Captum's
    LayerGradCam sees a site of any kind, reused, in-place or functional, as a layer of its own.
    """

    site: str | None = None

    def maps(self, probe: ResponseProbe) -> Tensor:
        """ReLU(Σ_c z_c · mean(∂f/∂z_c)), upsampled."""
        cams = [self._signed(probe, site) for site in probe.spatial_sites(self.site)]
        return upsample(torch.stack(cams).sum(0).clamp(min=0), probe.images)

    def _signed(self, probe: ResponseProbe, site: str) -> Tensor:
        layer = nn.Identity()

        def through_layer(name: str, output: Tensor) -> Tensor | None:
            return layer(output) if name == site else None

        def response(inputs: Tensor) -> Tensor:
            with intercept(probe.model, through_layer, edits={site}, activations=probe.activation_names):
                found = probe.response(inputs)
            if not found.requires_grad:
                raise no_influence_error(site)
            return found

        try:
            cam: Tensor = captum(self.name).LayerGradCam(response, layer).attribute(probe.images)
        except RuntimeError as error:
            if "appears to not have been used" in str(error):
                raise no_influence_error(site) from error
            raise
        return cam.detach()


def upsample(maps: Tensor, images: Tensor) -> Tensor:
    """``maps`` (B, 1, h, w) at the size of ``images``, bilinear, the edges of both aligned."""
    return F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)
