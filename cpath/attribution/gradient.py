"""Pathway gradient: the saliency map of a restricted network (paper, section 4)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpath.errors import InputError
from cpath.pathway import Pathway
from cpath.probe import Probe, Target
from cpath.sites import evaluating


def pathway_gradient(model: nn.Module, images: Tensor, pathway: Pathway, target: Target = None) -> Tensor:
    """Gradient ∂f/∂x of the response of the network restricted to ``pathway``, (B, C, H, W).

    ``target`` defaults to the class that the pathway was extracted for, else to the class that the
    unrestricted network predicts. Raises `MaskError` when the pathway does not fit.
    """
    with evaluating(model):
        if target is None:
            target = pathway.target
        probe = Probe(model, images, target)
        labels = probe.target
        with torch.enable_grad(), pathway.restrict(model):
            source = images.detach().requires_grad_()
            # A non-leaf goes in, so that a model may change its input in place.
            response = model(source.clone()).gather(1, labels.unsqueeze(1)).sum()
            (gradient,) = torch.autograd.grad(response, source)
    return gradient


def single_channel(attribution: Tensor) -> Tensor:
    """(B, 1, H, W) from (B, C, H, W): per pixel, the signed value of the channel of the largest magnitude."""
    if attribution.dim() != 4:
        raise InputError(f"an attribution is (B, C, H, W), not {tuple(attribution.shape)}.")
    return attribution.gather(1, attribution.abs().argmax(1, keepdim=True))
