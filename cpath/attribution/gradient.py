"""Pathway gradient: the saliency map of a restricted network (paper, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpath.attribution.response import ResponseProbe
from cpath.checks import within_memory
from cpath.errors import InputError, MaskError
from cpath.pathway import Pathway
from cpath.probe import Target, check_images
from cpath.sites import differentiating, evaluating


def pathway_gradient(model: nn.Module, images: Tensor, pathway: Pathway, target: Target = None) -> Tensor:
    """Gradient ∂f/∂x of the response of the network restricted to ``pathway``, (B, C, H, W).

    ``target`` defaults to the class that the pathway was extracted for, else to the class that the
    unrestricted network predicts. Raises `MaskError` when the pathway does not fit.
    """
    if not isinstance(pathway, Pathway):
        raise InputError(f"pathway must be a cpath.Pathway, not {type(pathway).__name__}.")
    with evaluating(model), differentiating(), within_memory("pass fewer images at once"):
        check_images(model, images)
        if len(pathway) not in (1, len(images)):
            raise MaskError(f"the pathway belongs to {len(pathway)} images, the batch has {len(images)}.")
        if target is None and pathway.target is not None:
            # Read from a file, it is on the CPU. A pathway of one image applies to any number.
            target = pathway.target.to(images.device).expand(len(images))
        probe = ResponseProbe(model, images, target)
        if target is None:
            _ = probe.target  # of the unrestricted network, before the restricted one runs
        with pathway.restrict(model) as seen:
            source = probe.images.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(probe.response(source).sum(), source)
        pathway.check_reached(seen)
    return gradient


def single_channel(attribution: Tensor) -> Tensor:
    """(B, 1, H, W) from (B, C, H, W): per pixel, the signed value of the channel of the largest magnitude."""
    if attribution.dim() != 4:
        raise InputError(f"an attribution is (B, C, H, W), not {tuple(attribution.shape)}.")
    return attribution.gather(1, attribution.abs().argmax(1, keepdim=True))
