"""Baselines, which a method must beat to have found anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cpath.checks import check_seed
from cpath.layout import common_dtype
from cpath.methods.base import Method, register
from cpath.probe import Probe
from cpath.randomness import image_generators
from cpath.sites import is_active


@register("random")
@dataclass(frozen=True, kw_only=True)
class Random(Method):
    """Random scores: U(0, 1) for every unit, drawn from the seed and the image itself.

    Args:
        seed: Seed of the draws.

    Example:
        >>> cpath.find_pathway(model, images, cpath.methods.Random(seed=1), sparsity=75).sparsity
        tensor([75., 75.], dtype=torch.float64)
    """

    costly: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """Draw U(0, 1) for every unit."""
        activations = probe.record(gradients=False).activations
        layout = probe.layout(activations)
        # In half precision the draws would collapse onto a few thousand values, whose ties are never split.
        dtype = torch.promote_types(common_dtype(activations), torch.float32)
        flat = torch.stack(
            [
                torch.rand(layout.units, generator=g, device="cpu")
                for g in image_generators(probe.inputs, self.seed, self.name)
            ]
        )
        return layout.views(flat.to(probe.device, dtype))


@register("active")
@dataclass(frozen=True, kw_only=True)
class Active(Method):
    """Active subnetwork: score 1 for every active neuron, 0 for the dead ones.

    A channel, token or head is active if any of its neurons is.

    Example:
        >>> pathway = cpath.find_pathway(model, images, cpath.methods.Active(), sparsity=0)
        >>> with pathway.restrict(model):
        ...     restricted = model(images)
        >>> torch.allclose(restricted, model(images))
        True
    """

    costly: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    graded: ClassVar[bool] = False

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """Mark the neurons with z ≠ 0, which for ReLU is z > 0."""
        activations = probe.record(gradients=False).activations
        layout = probe.layout(activations)
        return {name: layout.any(name, is_active(z)).to(z.dtype) for name, z in activations.items()}
