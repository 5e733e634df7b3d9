"""How the sites of a network lie side by side in one flat row of neurons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True)
class SiteLayout:
    """Shapes of the sites, without the batch, in call order.

    Scores and masks of a batch are one (B, neurons) tensor each; the tensors by site are views of it, so that
    whole-network operations (thresholds, overlaps, files) run over one piece of memory.
    """

    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, values: Mapping[str, Tensor]) -> SiteLayout:
        """Layout of tensors (B, *site) by site."""
        return cls({name: tuple(value.shape[1:]) for name, value in values.items()})

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Neurons by site."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Where each site lies in a flat row."""
        ends = list(accumulate(self.sizes.values()))
        return {name: slice(end - size, end) for (name, size), end in zip(self.sizes.items(), ends, strict=True)}

    @cached_property
    def neurons(self) -> int:
        """Neurons of the whole network."""
        return sum(self.sizes.values())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The sites of ``flat`` (B, neurons), as views (B, *site)."""
        return {name: flat[:, where].view(len(flat), *self.shapes[name]) for name, where in self.slices.items()}

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """One (B, neurons) tensor from tensors (B, *site) by site."""
        return torch.cat([values[name].reshape(len(values[name]), size) for name, size in self.sizes.items()], 1)


def common_dtype(values: Mapping[str, Tensor]) -> torch.dtype:
    """The floating-point type that holds the numbers of all sites.

    Booleans count as float32, integers as float64.
    """
    found = reduce(torch.promote_types, (value.dtype for value in values.values()))
    if found.is_floating_point or found.is_complex:
        return found
    return torch.float32 if found == torch.bool else torch.float64
