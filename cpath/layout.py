"""Layout of a network's sites side by side in one flat row of units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import accumulate

import torch
from torch import Tensor

from cpath.devices import widest
from cpath.errors import SiteError
from cpath.units import NEURONS, Units


@dataclass(frozen=True)
class SiteLayout:
    """Shapes of the sites' units, without the batch dimension, in call order.

    Scores and masks of a batch are one (B, units) tensor each; the tensors by site are views of it, so that
    whole-network operations (thresholds, overlaps, files) run over one piece of memory. The shape of a site's units
    broadcasts to that of its output: it is the same for neurons, and (C, 1, 1) of (C, H, W) for channels.

    Args:
        shapes: Shape of each site's units for one image, by site name.
        unit: Kind of unit (`cpath.units.UNITS`).

    Example:
        >>> from cpath.layout import SiteLayout
        >>> layout = SiteLayout({"relu1": (4, 8, 8), "fc": (10,)})
        >>> layout.units, layout.slices["fc"]
        (266, slice(256, 266, None))
    """

    shapes: dict[str, tuple[int, ...]]
    unit: str = NEURONS.kind

    @classmethod
    def of(cls, values: Mapping[str, Tensor], units: Units = NEURONS) -> SiteLayout:
        """Take the layout of the units in tensors by site.

        Args:
            values: Tensors (B, *site) by site name.
            units: Kind of unit.

        Returns:
            Their layout.

        Raises:
            SiteError: If a site has no such units, or a pattern that names axes fits no site.
        """
        units.check_patterns(values)
        return cls({name: units.shape(name, tuple(value.shape[1:])) for name, value in values.items()}, units.kind)

    @classmethod
    def named(cls, shapes: Mapping[str, Sequence[int]], unit: str | None) -> SiteLayout:
        """Read a layout from the header of a file.

        Args:
            shapes: Shapes by site.
            unit: Kind of unit; None for that of files from before there were others.

        Returns:
            The layout.
        """
        return cls({name: tuple(shape) for name, shape in shapes.items()}, unit or NEURONS.kind)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of units of each site."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Position of each site in a flat row."""
        ends = list(accumulate(self.sizes.values()))
        return {name: slice(end - size, end) for (name, size), end in zip(self.sizes.items(), ends, strict=True)}

    @cached_property
    def units(self) -> int:
        """Number of units of the whole network."""
        return sum(self.sizes.values())

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """View a flat tensor by site.

        Args:
            flat: Values (B, units).

        Returns:
            Views (B, *units) of ``flat`` by site name.
        """
        return {name: flat[:, where].view(len(flat), *self.shapes[name]) for name, where in self.slices.items()}

    def flatten(self, values: Mapping[str, Tensor]) -> Tensor:
        """Join tensors by site into one flat tensor.

        Args:
            values: Tensors (B, *units) by site name, in any order.

        Returns:
            Values (B, units), a copy.
        """
        return torch.cat([values[name].reshape(len(values[name]), size) for name, size in self.sizes.items()], 1)

    def sum(self, name: str, values: Tensor) -> Tensor:
        """Sum over the neurons of each unit.

        Args:
            name: Name of the site.
            values: Tensor (B, *site), or (B, *units) already.

        Returns:
            Sums (B, *units); ``values`` itself if its neurons are the units.
        """
        return values.sum(rest, keepdim=True) if (rest := self._rest(name, values)) else values

    def any(self, name: str, values: Tensor) -> Tensor:
        """Find the units of which any neuron is marked.

        Args:
            name: Name of the site.
            values: Booleans (B, *site), or (B, *units) already.

        Returns:
            Booleans (B, *units); ``values`` itself if its neurons are the units.
        """
        return values.any(rest, keepdim=True) if (rest := self._rest(name, values)) else values

    def all(self, name: str, values: Tensor) -> Tensor:
        """Find the units of which all neurons are marked.

        Args:
            name: Name of the site.
            values: Booleans (B, *site), or (B, *units) already.

        Returns:
            Booleans (B, *units); ``values`` itself if its neurons are the units.
        """
        return values.all(rest, keepdim=True) if (rest := self._rest(name, values)) else values

    def fits(self, name: str, shape: tuple[int, ...]) -> bool:
        """Check that the units of a site broadcast to its output.

        Args:
            name: Name of the site.
            shape: Shape of its output for one image.

        Returns:
            True if they do, which for neurons means that the shapes are the same.
        """
        units = self.shapes[name]
        if self.unit == NEURONS.kind:
            return units == shape
        return len(units) == len(shape) and all(one in (1, size) for one, size in zip(units, shape, strict=True))

    def _rest(self, name: str, values: Tensor) -> tuple[int, ...]:
        """Dimensions of (B, *site) that lie within a unit."""
        shape = tuple(values.shape[1:])
        if not self.fits(name, shape):
            raise SiteError(
                f"site '{name}' gives {shape} for each image where its {self.unit}s have the shape "
                f"{self.shapes[name]}: the model's sites differ from one image to another."
            )
        return tuple(
            place for place, (one, size) in enumerate(zip(self.shapes[name], shape, strict=True), 1) if one != size
        )


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
