"""Baselines: what a method must beat to have found anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cpath.checks import check_seed
from cpath.layout import SiteLayout, common_dtype
from cpath.methods.base import Method, register
from cpath.probe import Probe
from cpath.randomness import image_generators
from cpath.sites import is_active


@register("random")
@dataclass(frozen=True, kw_only=True)
class Random(Method):
    """U(0, 1) for every neuron, seeded per image by ``seed`` and the image itself."""

    costly: ClassVar[bool] = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """U(0, 1)."""
        activations = probe.record(gradients=False).activations
        layout = SiteLayout.of(activations)
        # In half precision the draws would collapse onto a few thousand values, whose ties are never split.
        dtype = torch.promote_types(common_dtype(activations), torch.float32)
        flat = torch.stack(
            [torch.rand(layout.neurons, generator=g) for g in image_generators(probe.images, self.seed, self.name)]
        )
        return layout.views(flat.to(probe.images.device, dtype))


@register("active")
@dataclass(frozen=True, kw_only=True)
class Active(Method):
    """1 for every active neuron: the active subnetwork."""

    costly: ClassVar[bool] = False
    graded: ClassVar[bool] = False

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """1 where z ≠ 0, which for ReLU is z > 0."""
        activations = probe.record(gradients=False).activations
        return {name: is_active(activation).to(activation.dtype) for name, activation in activations.items()}
