"""Local linearity: how far an image can move before the restricted network stops being affine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpath.checks import check_count
from cpath.errors import SiteError
from cpath.pathway import Pathway
from cpath.probe import check_images
from cpath.sites import differentiating, evaluating, intercept

_ELEMENTS_AT_ONCE = 1 << 24


def affine_radius(model: nn.Module, images: Tensor, pathway: Pathway, *, neurons: int | None = None) -> Tensor:
    """Radius (B,) of the ℓ2-ball around each image in which the restricted network is affine.

    While no kept neuron's pre-activation a_i changes sign, the response of the network restricted to ``pathway``
    is an affine function of the image (paper, section 4), and so is every a_i. The nearest change of sign is
    therefore exactly the minimum over kept neurons of |a_i(x)| / ‖∇_x a_i(x)‖₂ away, in units of the images.
    Infinite where no kept neuron depends on the image.

    ``neurons=None`` takes every kept neuron: exact, and one backward pass each. Otherwise the ``neurons`` kept ones
    of the smallest |a_i| in each image are taken: an upper bound of the radius. Only networks of ReLU and affine
    layers are meant; max pooling bounds the region further.

    Raises `InputError` for unusable images and for ``neurons`` below 1, `MaskError` where the pathway does not fit,
    `SiteError` where a site has no gradient.
    """
    neurons = None if neurons is None else check_count("neurons", neurons)
    check_images(model, images)
    before: dict[str, Tensor] = {}
    with evaluating(model), differentiating():
        source = images.detach().requires_grad_()
        # A copy of each pre-activation, because an in-place activation overwrites it.
        noting = intercept(
            model,
            lambda name, output: None,
            activations=pathway.activations,
            inputs=lambda name, value: before.update({name: value.clone()}),
        )
        with pathway.restrict(model) as seen, noting:
            model(source.clone())
        pathway.check_reached(seen)
        if any(not value.requires_grad for value in before.values()):
            raise SiteError("a site runs where gradients are switched off: remove the no_grad() in the model.")
        return _least_distance(before, source, pathway, neurons)


def _least_distance(before: dict[str, Tensor], source: Tensor, pathway: Pathway, neurons: int | None) -> Tensor:
    magnitudes = pathway.layout.flatten({name: value.detach().abs() for name, value in before.items()})
    chosen = pathway.flat.expand_as(magnitudes)
    if neurons is not None and neurons < magnitudes.shape[1]:
        nearest = magnitudes.masked_fill(~chosen, float("inf")).topk(neurons, dim=1, largest=False).indices
        chosen = torch.zeros_like(chosen).scatter_(1, nearest, True) & chosen
    radius = torch.full((len(source),), float("inf"), dtype=source.dtype, device=source.device)
    for name, where in pathway.layout.slices.items():
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
            height = magnitudes[:, where].gather(1, picked.T).T
            distance = torch.where(there & (slope > 0), height / slope, float("inf"))
            radius = torch.minimum(radius, distance.amin(0))
    return radius
