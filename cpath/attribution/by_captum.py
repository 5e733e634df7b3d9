"""Attributions that are computed with Captum: gradients at the input.

Captum gets the response as a function of the input and never sees the model, so it sets no hook in it. Captum
finds ReLUs as modules and therefore misses functional ones: GBP hands it a function that handles them through
cpath's sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cpath.attribution.base import Attribution, register
from cpath.attribution.response import Maps, ResponseProbe, one_or_all
from cpath.checks import check_count, check_seed
from cpath.errors import InputError, SiteError, unknown_name
from cpath.methods.quadrature import quadrature
from cpath.optional import optional
from cpath.randomness import image_generators
from cpath.sites import EVERY_SITE, intercept

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
