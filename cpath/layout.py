"""Layout of a network's sites side by side in one flat row of neurons."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import accumulate

import torch
from torch import Tensor

from cpath.devices import widest


@dataclass(frozen=True)
class SiteLayout:
    """Shapes of the sites, without the batch dimension, in call order.

    Scores and masks of a batch are one (B, neurons) tensor each; the tensors by site are views of it, so that
    whole-network operations (thresholds, overlaps, files) run over one piece of memory.

    Args:
        shapes: Shape of each site's output for one image, by site name.

    Example:
        >>> from cpath.layout import SiteLayout
        >>> layout = SiteLayout({"relu1": (4, 8, 8), "fc": (10,)})
        >>> layout.neurons, layout.slices["fc"]
        (266, slice(256, 266, None))
    """

    shapes: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, values: Mapping[str, Tensor]) -> SiteLayout:
        """Take the layout of tensors by site.

        Args:
            values: Tensors (B, *site) by site name.

        Returns:
            Their layout.
        """
        return cls({name: tuple(value.shape[1:]) for name, value in values.items()})

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of neurons of each site."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Position of each site in a flat row."""
        ends = list(accumulate(self.sizes.values()))
        return {name: slice(end - size, end) for (name, size), end in zip(self.sizes.items(), ends, strict=True)}

    @cached_property
    def neurons(self) -> int:
        """Number of neurons of the whole network."""
        return sum(self.sizes.values())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """View a flat tensor by site.

        Args:
            flat: Values (B, neurons).

        Returns:
            Views (B, *site) of ``flat`` by site name.
        """
        return {name: flat[:, where].view(len(flat), *self.shapes[name]) for name, where in self.slices.items()}

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """Join tensors by site into one flat tensor.

        Args:
            values: Tensors (B, *site) by site name, in any order.

        Returns:
            Values (B, neurons), a copy.
        """
        return torch.cat([values[name].reshape(len(values[name]), size) for name, size in self.sizes.items()], 1)


def common_dtype(values: Mapping[str, Tensor]) -> torch.dtype:
    """Find the floating-point type that holds the values of all sites.

    Args:
        values: Tensors by site name.

    Returns:
        The promoted type. Booleans count as float32, integers as float64 if their device has it.
    """
    found = reduce(torch.promote_types, (value.dtype for value in values.values()))
    if found.is_floating_point or found.is_complex:
        return found
    return torch.float32 if found == torch.bool else widest(next(iter(values.values())).device)
