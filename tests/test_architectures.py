"""Networks of torchvision, timm and transformers: each as by plain hooks and plain autograd, in float64."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cpath
from tests import zoo
from tests.architectures import ARCHITECTURES, Architecture, lively
from tests.oracles.hooks import Edit, watched

NODES = ((1 / 6, 1 / 3), (1 / 2, 1 / 3), (5 / 6, 1 / 3))
"""Midpoints of three cells, with their weights."""


@dataclass
class ByHand:
    """A network with hooks on it."""

    model: nn.Module
    inputs: Any
    architecture: Architecture

    def run(self, edit: Edit | None = None) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Logits, or the output that takes their place, responses (B,), and the outputs of the sites."""
        whole = self.architecture
        with watched(self.model, whole.functions, whole.classes, edit) as sites:
            output = self.model(**self.inputs) if isinstance(self.inputs, Mapping) else self.model(self.inputs)
        if whole.response is not None:
            return whole.response(output), whole.response(output), sites
        logits = output if isinstance(output, Tensor) else output.logits
        return logits, logits[:, 1], sites

    def contributions(self) -> dict[str, Tensor]:
        """z · ∂f/∂z of every site."""

        def keep_gradient(name: str, output: Tensor) -> Tensor:
            kept = output * 1  # which an activation in place behind it does not overwrite
            if kept.requires_grad:
                kept.retain_grad()
            return kept

        _, response, sites = self.run(keep_gradient)
        response.sum().backward()
        products = {name: (z * z.grad).detach() for name, z in sites.items() if z.grad is not None}
        self.model.zero_grad()
        return products

    def integrated(self, site: str) -> tuple[Tensor, Tensor]:
        """z · Σ w ∂f(z ← αz)/∂z at a site, and the relative difference of its sum from f(x) − f(z ← 0)."""
        _, response, sites = self.run()
        z = sites[site].detach()
        total = torch.zeros_like(z)
        for alpha, weight in NODES:
            moved = (alpha * z).requires_grad_()
            _, there, _ = self.run(lambda name, output, moved=moved: moved if name == site else output)
            total += weight * torch.autograd.grad(there.sum(), moved)[0]
        with torch.no_grad():
            _, without, _ = self.run(lambda name, output: 0 * output if name == site else output)
        drop = response.detach() - without
        return z * total, ((z * total).flatten(1).sum(1) - drop).abs() / drop.abs()

    def masked(self, masks: Mapping[str, Tensor]) -> Tensor:
        """Logits of the network whose sites are multiplied by masks."""
        with torch.no_grad():
            return self.run(lambda name, output: output * masks[name] if name in masks else output)[0]


def per_unit(contribution: Tensor, axis: Mapping[int, int]) -> Tensor:
    """Σ over all axes of (B, …) but the batch and that of the units."""
    if not axis:
        return contribution
    summed = [one for one in range(1, contribution.dim()) if one != axis[contribution.dim()]]
    return contribution.sum(summed, keepdim=True) if summed else contribution


def close(found: Tensor, expected: Tensor) -> None:
    """Equal up to rounding of the largest value."""
    torch.testing.assert_close(found, expected.detach(), rtol=1e-7, atol=1e-10 * float(expected.abs().max()))


@pytest.fixture(params=list(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


def test_an_architecture_is_scored_and_masked_as_by_hooks(architecture):
    model, inputs = lively(architecture.build()), architecture.inputs()
    hand = ByHand(model, inputs, architecture)
    target = 1 if architecture.response is None else architecture.response
    sites, unit = architecture.sites, architecture.unit
    products, (logits, _, outputs) = hand.contributions(), hand.run()
    with zoo.untouched(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", cpath.OutputSiteWarning)
        with cpath.observe(model, sites=sites) as seen, torch.no_grad():
            observed = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
        scores = cpath.score(model, inputs, "neuron_mct", target, sites=sites)
        of_units = cpath.score(model, inputs, "neuron_mct", target, sites=sites, unit=unit)
        integrated = cpath.score(
            model, inputs, cpath.methods.NeuronIntGrad(nodes=3, rule="midpoint"), target, sites=sites
        )
        pathway = cpath.find_pathway(model, inputs, "neuron_mct", 50, target, sites=sites, unit=unit)
        with torch.no_grad(), pathway.restrict(model):
            restricted = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)

    def answer(output: Any) -> Tensor:
        if architecture.response is not None:
            return architecture.response(output)
        return output if isinstance(output, Tensor) else output.logits

    close(answer(observed), logits)
    hidden = [name for name in outputs if name not in architecture.left_out]
    assert list(scores.values) == list(pathway.masks) == hidden
    assert sorted(scores.left_out) == sorted(architecture.left_out)
    for name in hidden:
        close(seen.activations[name], outputs[name])
        assert products[name].abs().max() > 0
        close(scores.signed[name], products[name])
        close(of_units.signed[name], per_unit(products[name], architecture.axis))
    chosen = hidden[len(hidden) // 2]
    expected, residual = hand.integrated(chosen)
    close(integrated.signed[chosen], expected)
    torch.testing.assert_close(integrated.residual[chosen], residual, rtol=1e-6, atol=1e-9)
    assert all(math.isclose(value, 50, abs_tol=5) for value in pathway.sparsity.tolist())
    masked = hand.masked(pathway.masks)
    close(answer(restricted), masked)
    assert not torch.allclose(masked, logits)
