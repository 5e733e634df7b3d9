"""Attributions that are computed with Captum: gradients at the input and at the last convolutional site.

Captum gets the response as a function of the input and never sees the model, so it sets no hook in it. Captum
finds ReLUs and layers as modules and therefore misses functional ones: where an attribution concerns activation
functions (GBP, GradCAM), the function that Captum gets handles them through cpath's sites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cpath.attribution.base import Attribution, register
from cpath.attribution.response import Maps, ResponseProbe, no_influence_error, one_or_all
from cpath.checks import check_count, check_seed
from cpath.errors import InputError, SiteError, unknown_name
from cpath.methods.quadrature import quadrature
from cpath.optional import optional
from cpath.randomness import image_generators
from cpath.sites import EVERY_SITE, intercept, unwrap

_RULES = {"legendre": "gausslegendre", "midpoint": "riemann_middle", "trapezoid": "riemann_trapezoid"}
"""Quadrature rules that Captum has, and its names of them."""


def captum(purpose: str) -> Any:
    """Import ``captum.attr``.

    Args:
        purpose: Name of the attribution that needs it.

    Returns:
        The module.

    Raises:
        MissingPackageError: If Captum is not installed.
    """
    return optional("captum.attr", "captum>=0.9", f"the attribution '{purpose}'")


@register("gradients")
@dataclass(frozen=True, kw_only=True)
class Gradients(Attribution):
    """Gradient ∂f/∂x of the response, signed.

    Source: Simonyan et al., Deep Inside Convolutional Networks, 2013, where the magnitude is taken.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.Gradients()).shape
        torch.Size([2, 3, 8, 8])
    """

    def maps(self, probe: ResponseProbe) -> Maps:
        """Compute the signed gradients."""
        saliency = captum(self.name).Saliency(probe.response)
        return one_or_all(saliency.attribute(probe.inputs.leaves(), abs=False))


@register("input_mct")
@dataclass(frozen=True, kw_only=True)
class InputMCT(Attribution):
    """Gradient times input, x · ∂f/∂x: the first-order marginal contribution of each input element.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.InputMCT()).shape
        torch.Size([2, 3, 8, 8])
    """

    def maps(self, probe: ResponseProbe) -> Maps:
        """Compute gradient times input."""
        product = captum(self.name).InputXGradient(probe.response)
        return one_or_all(found.detach() for found in product.attribute(probe.inputs.leaves()))


@register("input_intgrad")
@dataclass(frozen=True, kw_only=True)
class InputIntGrad(Attribution):
    """Integrated gradients from a baseline to x.

    Args:
        nodes: Number of quadrature nodes, one forward and backward pass each.
        baseline: Value of every input element at the start of the path. 0 is the mean colour if the images are
            normalised by their mean, as published.
        rule: Quadrature: "legendre", "midpoint" or "trapezoid", as for `cpath.methods.NeuronIntGrad`.

    Raises:
        UnknownNameError: If Captum has no such rule.
        InputError: If the rule needs more nodes.

    Source: Sundararajan et al., Axiomatic Attribution for Deep Networks, ICML 2017.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.InputIntGrad(nodes=20)).shape
        torch.Size([2, 3, 8, 8])
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
        """Number of nodes: one row each."""
        return self.nodes

    def maps(self, probe: ResponseProbe) -> Maps:
        """Compute (x − baseline) · Σ w_k ∂f(baseline + α_k (x − baseline))/∂x."""
        integrated = captum(self.name).IntegratedGradients(probe.response)
        _ = probe.target  # of the inputs, before the first scaled ones pass
        maps: tuple[Tensor, ...] = integrated.attribute(
            probe.sources,
            baselines=(self.baseline,) * len(probe.sources),
            n_steps=self.nodes,
            # With one node, "midpoint" and "legendre" are the same rule, but Captum accepts only the latter.
            method=_RULES["legendre" if self.nodes == 1 else self.rule],
            internal_batch_size=max(len(probe), probe.rows_at_once),
        )
        if self.rule == "trapezoid":
            maps = tuple(found * (self.nodes / (self.nodes - 1)) for found in maps)  # Captum's sum to 1 - 1/nodes
        return one_or_all(
            found.detach().to(source.dtype) for found, source in zip(maps, probe.sources, strict=True)
        )


@register("smoothgrad")
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Attribution):
    """Mean gradient over noisy copies of x.

    The noise is drawn here, per image and seeded, because that of Captum's NoiseTunnel depends on the batch and on
    the global random state.

    Args:
        samples: Number of noisy copies.
        noise: Standard deviation of the noise, as a share of the range of values in the image.
        seed: Seed of the noise.

    Raises:
        InputError: If a setting is out of range.

    Source: Smilkov et al., SmoothGrad: removing noise by adding noise, 2017.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.SmoothGrad(samples=10)).shape
        torch.Size([2, 3, 8, 8])
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
        """Number of samples: one row each."""
        return self.samples

    def maps(self, probe: ResponseProbe) -> Maps:
        """Compute the signed mean gradient."""
        saliency = captum(self.name).Saliency(probe.response)
        _ = probe.target  # of the inputs, before the first noisy ones pass
        sources = probe.sources
        generators = image_generators(probe.inputs, self.seed, self.name)
        sigmas = [self.noise * _range(source) for source in sources]
        totals = tuple(torch.zeros_like(source) for source in sources)
        at_once = max(1, probe.rows_at_once // len(probe))
        for start in range(0, self.samples, at_once):
            count = min(at_once, self.samples - start)
            draws = [_draw(sources, generators) for _ in range(count)]
            noisy = tuple(
                (source + sigma * torch.stack(noise).to(source)).flatten(0, 1).requires_grad_()
                for source, sigma, noise in zip(sources, sigmas, zip(*draws, strict=True), strict=True)
            )  # each (count · B, …)
            gradients: tuple[Tensor, ...] = saliency.attribute(noisy, abs=False)
            for total, gradient in zip(totals, gradients, strict=True):
                total += gradient.view(count, *total.shape).sum(0)
        return one_or_all(total / self.samples for total in totals)


def _range(values: Tensor) -> Tensor:
    """Compute the range of values of each input (B, 1, …)."""
    each = values.reshape(len(values), -1)
    return (each.amax(1) - each.amin(1)).view(-1, *[1] * (values.dim() - 1))


def _draw(sources: Sequence[Tensor], generators: Sequence[torch.Generator]) -> list[Tensor]:
    """Draw standard normal noise for every source, each input's from its own generator."""
    rows = [[torch.randn(s.shape[1:], generator=one, device="cpu") for s in sources] for one in generators]
    return [torch.stack(noise) for noise in zip(*rows, strict=True)]


@register("gbp")
@dataclass(frozen=True, kw_only=True)
class GBP(Attribution):
    """Guided backpropagation: at every ReLU only the positive part of the gradient passes.

    The gradient is Captum's, the rule is applied at cpath's sites. Captum's own GuidedBackprop gives the same where
    each ReLU is a module and nothing else reads its input (ResNets, VGG). It is silently wrong for functional
    ReLUs, for skip connections that start before a ReLU, and for models that ignore the return value of an in-place
    ReLU. Computing it raises `SiteError` for a model without a site.

    Source: Springenberg et al., Striving for Simplicity: The All Convolutional Net, 2015.

    Example:
        >>> cpath.attribute(model, images, cpath.attribution.GBP()).shape
        torch.Size([2, 3, 8, 8])
    """

    def maps(self, probe: ResponseProbe) -> Maps:
        """Compute the signed guided gradients."""
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

        def response(*inputs: Tensor) -> Tensor:
            # Edited though nothing is replaced: the hook then sits on a tensor that no in-place operation shares.
            with intercept(
                probe.model,
                guide,
                edits=EVERY_SITE,
                sites=probe.sites,
                left_out=probe.left_out,
            ):
                found = probe.response(*inputs)
            if not seen:
                raise probe.no_sites_error()
            return found

        saliency = captum(self.name).Saliency(response)
        return one_or_all(saliency.attribute(probe.inputs.leaves(), abs=False))


@register("gradcam")
@dataclass(frozen=True, kw_only=True)
class GradCAM(Attribution):
    """Positive part of the sum of the channels, weighted by their mean gradients, at a convolutional site.

    The map is upsampled to the input's size (bilinear). If the last convolutional site is one of several branches
    that are concatenated, the map is taken at all of them, as at the layer that joins them. Captum's LayerGradCam
    sees a site of any kind (reused, in-place or functional) as a layer of its own.

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
            return upsample(self._signed_at_layer(probe, self.layer).clamp(min=0), probe.images)
        cams = [self._signed(probe, site) for site in probe.spatial_sites(self.site)]
        return upsample(torch.stack(cams).sum(0).clamp(min=0), probe.images)

    def _signed_at_layer(self, probe: ResponseProbe, name: str) -> Tensor:
        modules = dict(unwrap(probe.model).named_modules())
        if name not in modules:
            raise unknown_name("layer", name, modules)
        _ = probe.left_out  # looked at before the passes that count
        seen, layer = 0, nn.Identity()

        def through_layer(module: nn.Module, inputs: Any, output: Any) -> Tensor:
            nonlocal seen
            seen += 1
            if not isinstance(output, Tensor) or output.dim() != 4:
                raise SiteError(f"layer '{name}' does not give (B, C, h, w), which a map needs: name another one.")
            found: Tensor = layer(output)
            return found.clone()  # the model may go on with it in place

        def response(*inputs: Tensor) -> Tensor:
            nonlocal seen
            seen = 0
            found = probe.response(*inputs)
            if seen != 1:
                raise SiteError(f"the model calls layer '{name}' {seen} times for an answer: name one called once.")
            return found

        handle = modules[name].register_forward_hook(through_layer)
        try:
            return self._cam(name, response, layer, probe)
        finally:
            handle.remove()

    def _signed(self, probe: ResponseProbe, site: str) -> Tensor:
        layer = nn.Identity()

        def through_layer(name: str, output: Tensor) -> Tensor | None:
            return layer(output) if name == site else None

        def response(*inputs: Tensor) -> Tensor:
            with intercept(
                probe.model,
                through_layer,
                edits={site},
                sites=probe.sites,
                left_out=probe.left_out,
            ):
                found = probe.response(*inputs)
            if not found.requires_grad:
                raise no_influence_error(site)
            return found

        return self._cam(site, response, layer, probe)

    def _cam(self, name: str, response: Callable[..., Tensor], layer: nn.Module, probe: ResponseProbe) -> Tensor:
        try:
            cam: Tensor = captum(self.name).LayerGradCam(response, layer).attribute(probe.sources)
        except RuntimeError as error:
            if "appears to not have been used" in str(error):
                raise no_influence_error(name) from error
            raise
        return cam.detach()


def upsample(maps: Tensor, images: Tensor) -> Tensor:
    """Resize maps to the size of the images, bilinear, with the edges of both aligned.

    Args:
        maps: Maps (B, 1, h, w).
        images: Images (B, C, H, W).

    Returns:
        Maps (B, 1, H, W).
    """
    return F.interpolate(maps, images.shape[2:], mode="bilinear", align_corners=False)
