"""Local linearity: the distance that an image can move before the restricted network stops being affine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpath.checks import check_count
from cpath.errors import SiteError
from cpath.inputs import check_images
from cpath.layout import SiteLayout
from cpath.pathway import Pathway, check_pathway
from cpath.randomness import seeded
from cpath.sites import DEFAULT_SITES, KINKS, Sites, count_calls, differentiating, evaluating, intercept, unwrap

_ELEMENTS_AT_ONCE = 1 << 24


def affine_radius(model: nn.Module, images: Tensor, pathway: Pathway, *, neurons: int | None = None) -> Tensor:
    """Compute the radius of the ℓ2-ball around each image in which the restricted network is affine.

    While no kept neuron's pre-activation a_i changes sign, the response of the network restricted to ``pathway`` is
    an affine function of the image, and so is every a_i. The distance to the nearest change of sign is therefore
    exactly the minimum over kept neurons of |a_i(x)| / ‖∇_x a_i(x)‖₂. Where a slope changes elsewhere too, as that
    of ReLU6 at 6, the nearest of these points counts. This holds for networks of piecewise affine activations and
    affine layers; max pooling, and activations that are no sites, bound the region further.

    Args:
        model: The model that the pathway was found in.
        images: Floats (B, C, H, W) on the model's device.
        pathway: Pathway of the same images.
        neurons: Number of kept neurons to look at, for an upper bound of the radius: those whose slope changes
            first along one random direction, the same for all images. None for all kept neurons, which is exact and
            takes one backward pass for each of them.

    Returns:
        Radius (B,), in units of the images; infinite where no kept neuron depends on the image, with ``neurons``
        too.

    Raises:
        InputError: If images are unusable or ``neurons`` is below 1.
        MaskError: If the pathway does not fit the model or the images.
        SiteError: If a site runs where gradients are switched off, if it has no pre-activation, or if the model
            calls a curved function, such as GELU or attention: it is affine nowhere.

    Source: Khakzar et al. 2021, section 4 (the network is locally affine; the paper does not measure the radius).

    Example:
        >>> pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90)
        >>> exact = cpath.analysis.affine_radius(model, images, pathway)
        >>> bound = cpath.analysis.affine_radius(model, images, pathway, neurons=5)
        >>> exact.shape, bool((exact <= bound).all())
        (torch.Size([2]), True)
    """
    neurons = None if neurons is None else check_count("neurons", neurons)
    check_pathway(pathway)
    check_images(model, images)
    model = unwrap(model)  # a compiled model cannot be differentiated twice
    before: dict[str, Tensor] = {}
    height: dict[str, Tensor] = {}  # distance of a pre-activation to where the slope changes

    def note(name: str, value: Tensor, kinks: tuple[float, ...] | None) -> None:
        assert kinks is not None  # the model calls no curved function
        before[name] = value.clone()  # because an in-place activation overwrites it
        height[name] = torch.stack([(value.detach() - kink).abs() for kink in kinks]).amin(0)

    with evaluating(model), differentiating():
        check_piecewise_affine(model, images, pathway.sites)
        source = images.detach().requires_grad_()
        noting = intercept(
            model,
            lambda name, output: None,
            sites=pathway.sites,
            inputs=note,
            left_out=pathway.left_out_of(model),
        )
        with pathway.restrict(model) as seen, noting:
            model(source.clone())
        pathway.check_reached(seen)
        if any(not value.requires_grad for value in before.values()):
            raise SiteError("a site runs where gradients are switched off: remove the no_grad() in the model.")
        return _least_distance(before, height, source, pathway, neurons)


def check_piecewise_affine(model: nn.Module, images: Tensor, sites: Sites = DEFAULT_SITES) -> None:
    """Refuse a model that is affine nowhere, or sites that have no pre-activation.

    Args:
        model: The model, in eval mode.
        images: Floats (B, C, H, W) on the model's device; one is enough.
        sites: What the sites are, see `cpath.sites`.

    Raises:
        SiteError: If the model calls a curved function, such as GELU or attention, or a site is no activation.

    Example:
        >>> cpath.analysis.check_piecewise_affine(model, images)  # ReLUs: nothing is raised
    """
    with intercept(model, lambda name, output: None, sites=sites, inputs=lambda *seen: None):
        curved = sorted(count_calls(lambda: model(images)).keys() - KINKS.keys())
    if curved:
        raise SiteError(
            f"the model calls curved functions ({', '.join(curved)}): there is no ball in which it is affine. Use "
            "a model whose activations are piecewise affine, such as ReLU."
        )


def _least_distance(
    before: dict[str, Tensor], height: dict[str, Tensor], source: Tensor, pathway: Pathway, neurons: int | None
) -> Tensor:
    layout = SiteLayout.of({name: before[name] for name in pathway.layout.shapes})  # of neurons, whatever the unit
    magnitudes = layout.flatten(height)
    chosen = layout.flatten({name: mask.expand_as(before[name]) for name, mask in pathway.masks.items()})
    if neurons is not None and neurons < magnitudes.shape[1]:
        slopes = layout.flatten(_slopes_one_way(before, source)).abs()
        # Those without a slope do not depend on the image: their sign never changes.
        chosen = chosen & (slopes > 0)
        nearest = (magnitudes / slopes).masked_fill(~chosen, float("inf")).topk(neurons, dim=1, largest=False)
        chosen = torch.zeros_like(chosen).scatter_(1, nearest.indices, True) & chosen
    radius = torch.full((len(source),), float("inf"), dtype=source.dtype, device=source.device)
    for name, where in layout.slices.items():
        here, value = chosen[:, where], before[name]
        counts = here.sum(1)
        most = int(counts.max())
        lanes = max(1, _ELEMENTS_AT_ONCE // max(value.numel(), source.numel()))
        # Lane j holds the j-th chosen neuron of every image: they are independent, and share a backward pass.
        order = here.int().argsort(dim=1, descending=True, stable=True)
        for start in range(0, most, lanes):
            picked = order[:, start : min(start + lanes, most)].T
            there = torch.arange(start, start + len(picked), device=counts.device).unsqueeze(1) < counts
            seeds = torch.zeros(len(picked), *here.shape, dtype=value.dtype, device=value.device)
            seeds.scatter_(2, picked.unsqueeze(2), there.unsqueeze(2).to(value.dtype))
            (gradient,) = torch.autograd.grad(
                value,
                source,
                seeds.view(len(picked), *value.shape),
                retain_graph=True,
                is_grads_batched=True,
                allow_unused=True,
                materialize_grads=True,
            )
            slope = gradient.flatten(2).norm(dim=2)
            away = magnitudes[:, where].gather(1, picked.T).T
            distance = torch.where(there & (slope > 0), away / slope, float("inf"))
            radius = torch.minimum(radius, distance.amin(0))
    return radius


def _slopes_one_way(before: dict[str, Tensor], source: Tensor) -> dict[str, Tensor]:
    """Compute the derivative of every pre-activation along one random direction, by two backward passes."""
    generator = seeded(0)
    direction = torch.randn(source.shape[1:], generator=generator, device="cpu").to(source).expand_as(source)
    # A vector-Jacobian product is linear in its vector: its derivative by that is the Jacobian-vector product.
    vectors = [torch.zeros_like(value).requires_grad_() for value in before.values()]
    (pulled,) = torch.autograd.grad(
        list(before.values()), source, vectors, create_graph=True, materialize_grads=True, allow_unused=True
    )
    slopes = torch.autograd.grad(
        pulled, vectors, direction, retain_graph=True, materialize_grads=True, allow_unused=True
    )
    return {name: slope.detach() for name, slope in zip(before, slopes, strict=True)}
