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
from tests.architectures import ARCHITECTURES, REFUSING, Architecture, lively
from tests.oracles.hooks import Edit, watched

NODES = ((1 / 6, 1 / 3), (1 / 2, 1 / 3), (5 / 6, 1 / 3))
"""Midpoints of three cells, with their weights."""
SPARSITY = 80


@dataclass
class ByHand:
    """A network with hooks on it."""

    model: nn.Module
    inputs: Any
    architecture: Architecture

    def __post_init__(self) -> None:
        self.target = self.architecture.response or self.run()[0].argmax(1)

    def answer(self, output: Any) -> Tensor:
        """Logits (B, classes), or the responses (B,) that are read off another output."""
        if self.architecture.response is not None:
            return self.architecture.response(output)
        return output if isinstance(output, Tensor) else output.logits

    def responses(self, answer: Tensor) -> Tensor:
        return answer if answer.dim() == 1 else answer[range(len(answer)), self.target]

    def run(self, edit: Edit | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The answer, and the outputs of the sites."""
        with watched(self.model, self.architecture.functions, self.architecture.classes, edit) as sites:
            output = call(self.model, self.inputs)
        return self.answer(output), sites

    def contributions(self) -> dict[str, Tensor]:
        """z · ∂f/∂z of every site that sees the input."""

        def keep_gradient(name: str, output: Tensor) -> Tensor:
            kept = output * 1  # which an activation in place behind it does not overwrite
            kept.retain_grad()
            return kept

        answer, sites = self.run(keep_gradient)
        self.responses(answer).sum().backward()
        self.model.zero_grad()
        return {name: (z * z.grad).detach() for name, z in sites.items() if name not in self.architecture.left_out}

    def integrated(self, site: str) -> tuple[Tensor, Tensor]:
        """z · Σ w ∂f(z ← αz)/∂z at a site, and the relative difference of its sum from f(x) − f(z ← 0)."""
        answer, sites = self.run()
        z = sites[site].detach()
        total = torch.zeros_like(z)
        for alpha, weight in NODES:
            moved = (alpha * z).requires_grad_()
            there, _ = self.run(lambda name, output, moved=moved: moved if name == site else output)
            total += weight * torch.autograd.grad(self.responses(there).sum(), moved)[0]
        without, _ = self.run(lambda name, output: 0 * output if name == site else output)
        drop = (self.responses(answer) - self.responses(without)).detach()
        return z * total, ((z * total).flatten(1).sum(1) - drop).abs() / drop.abs()

    def masked(self, masks: Mapping[str, Tensor]) -> Tensor:
        """The answer of the network whose sites are multiplied by masks."""
        return self.run(lambda name, output: output * masks[name] if name in masks else output)[0].detach()


def call(model: nn.Module, inputs: Any) -> Any:
    return model(**inputs) if isinstance(inputs, Mapping) else model(inputs)


def per_unit(contribution: Tensor, axis: Mapping[int, int]) -> Tensor:
    """Σ over all axes of (B, …) but the batch and that of the units."""
    if not axis:
        return contribution
    summed = [one for one in range(1, contribution.dim()) if one != axis[contribution.dim()]]
    return contribution.sum(summed, keepdim=True) if summed else contribution


def strongest(contributions: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """True for each input's units of larger magnitude than `SPARSITY` per cent of all its units."""
    every = [sorted(torch.cat([c[i].flatten() for c in contributions.values()]).abs().tolist()) for i in range(2)]
    thresholds = torch.tensor(
        [values[math.ceil(len(values) * SPARSITY / 100) - 1] for values in every], dtype=torch.float64
    )
    return {name: c.abs() > thresholds.view(-1, *[1] * (c.dim() - 1)) for name, c in contributions.items()}


def parameters() -> list[Any]:
    return [
        pytest.param(architecture, id=name, marks=[pytest.mark.slow] if architecture.slow else [])
        for name, architecture in ARCHITECTURES.items()
    ]


@pytest.mark.parametrize("architecture", parameters())
def test_an_architecture_is_scored_and_masked_as_by_hooks(architecture):
    model, inputs = lively(architecture.build()), architecture.inputs()
    hand = ByHand(model, inputs, architecture)
    sites, unit, tolerance = architecture.sites, architecture.unit, architecture.tolerance
    by_midpoints = cpath.methods.NeuronIntGrad(nodes=len(NODES), rule="midpoint")

    def close(found: Tensor, expected: Tensor) -> None:
        largest = float(expected.detach().abs().max())
        torch.testing.assert_close(found, expected.detach(), rtol=0, atol=tolerance * largest)

    with zoo.untouched(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", cpath.OutputSiteWarning)
        with cpath.observe(model, sites=sites) as seen, torch.no_grad():
            observed = hand.answer(call(model, inputs))
        scores = cpath.score(model, inputs, "neuron_mct", hand.target, sites=sites)
        of_units = cpath.score(model, inputs, "neuron_mct", hand.target, sites=sites, unit=unit)
        integrated = cpath.score(model, inputs, by_midpoints, hand.target, sites=sites)
        pathway = cpath.find_pathway(model, inputs, "neuron_mct", SPARSITY, hand.target, sites=sites, unit=unit)
        with torch.no_grad(), pathway.restrict(model):
            restricted = hand.answer(call(model, inputs))

    answer, outputs = hand.run()
    close(observed, answer)
    hidden = [name for name in outputs if name not in architecture.left_out]
    assert list(scores.values) == hidden
    assert sorted(scores.left_out) == sorted(architecture.left_out)
    products = hand.contributions()
    by_unit = {name: per_unit(product, architecture.axis) for name, product in products.items()}
    alive = [name for name in hidden if products[name].any()]
    assert len(alive) > 0.9 * len(hidden)  # a few of two neurons are dead
    for name in hidden:
        close(seen.activations[name], outputs[name])
        close(scores.signed[name], products[name])
        close(of_units.signed[name], by_unit[name])
    chosen = alive[len(alive) // 2]
    expected, residual = hand.integrated(chosen)
    close(integrated.signed[chosen], expected)
    torch.testing.assert_close(integrated.residual[chosen], residual, rtol=10 * tolerance, atol=10 * tolerance)
    masks = strongest(by_unit)
    assert list(pathway.masks) == hidden
    for name, mask in masks.items():
        assert torch.equal(pathway.masks[name], mask)
    close(restricted, hand.masked(masks))
    assert not torch.allclose(restricted, answer)


# What cannot be right is refused


@dataclass(frozen=True)
class Refused:
    """A choice of sites or units that a network has not, and the beginning of what is said."""

    name: str
    sites: Any
    message: str
    unit: str = "neuron"


REFUSED = [
    Refused("convnext", "relu", r"calls none of the functions looked for \(relu\)\. It calls gelu \(2×\)"),
    Refused("gpt2, neurons", "gelu", r"calls none of the functions looked for \(gelu\)"),
    Refused("mixer", "attention", "calls no attention that can be seen"),
    Refused("swin", "attention", "calls no attention that can be seen.*name the modules that compute attention"),
    Refused("maxvit", "attention", "calls no attention that can be seen"),
    Refused("levit", "attention", "calls no attention that can be seen"),
    Refused("opt", "relu", r"gives shape \(6, 20\) for one input and \(12, 20\) for two"),
    Refused("mobilevit", "silu", r"transformer\.0\.mlp\.act' gives shape .* leaves it out"),
    Refused("mobilevit", "attention", r":attention' gives shape .* first dimension must be the batch"),
    Refused("resnet18", "relu", r"in which no axis is known to be the heads", "head"),
    Refused(
        "bert, neurons",
        "GeluActivation",
        r"No module and no class of the model is called so.*GELUActivation \(2×\)",
    ),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.name} {case.sites} {case.unit}")
def test_what_an_architecture_has_not_is_refused_with_what_to_do(case):
    architecture = {**ARCHITECTURES, **REFUSING}[case.name]
    model = lively(architecture.build())
    error = (cpath.SiteError, cpath.UnknownNameError)
    target = architecture.response or 1
    with zoo.untouched(model), pytest.raises(error, match=case.message):
        cpath.score(model, architecture.inputs(), target=target, sites=case.sites, unit=case.unit)
