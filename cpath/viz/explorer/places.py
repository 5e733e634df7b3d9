"""Places of a site's units: their channels, and the grid that they are shown on."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

_FEWEST_TOKENS, _MOST_EXTRA = 16, 5


@dataclass(frozen=True)
class SiteGrid:
    """The units of a site as channels at places of a grid, whose cells hold several places where it is large.

    Args:
        name: Name of the site.
        shape: Shape of the units for one input.
        axes: Axes of ``shape`` as (channels, rows, columns); None where there is none.
        rows: Rows of places.
        columns: Columns of places.
        skipped: Leading places that are not on the grid, such as a class token.
        word: Name of what an index of the channels' axis is: "channel" or "head".
        over_input: The grid lies over the image.
        cells: Rows and columns of the cells that are shown.

    Example:
        >>> from cpath.viz.explorer.places import SiteGrid
        >>> grid = SiteGrid.of("relu1", (4, 8, 8), side=4)
        >>> grid.channels, grid.rows, grid.columns, grid.cells, grid.over_input
        (4, 8, 8, (4, 4), True)
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[int | None, int | None, int | None]
    rows: int
    columns: int
    skipped: int
    word: str
    over_input: bool
    cells: tuple[int, int]

    @classmethod
    def of(cls, name: str, shape: tuple[int, ...], side: int) -> SiteGrid:
        """Find the channels and places of a site by the shape of its units.

        Args:
            name: Name of the site.
            shape: Shape of its units for one input.
            side: Most cells in a row or column.

        Returns:
            The grid. A square number of tokens, with up to five before it, is taken for patches of an image.
        """
        axes, word = _axes_of(name, shape)
        _, down, across = axes
        rows = 1 if down is None else shape[down]
        columns = 1 if across is None else shape[across]
        skipped, over_input = 0, down is not None and across is not None and rows * columns > 1
        if down is None and columns >= _FEWEST_TOKENS:
            patches = math.isqrt(columns)
            if columns - patches**2 <= _MOST_EXTRA:
                skipped, rows, columns, over_input = columns - patches**2, patches, patches, True
        cells = cells_of(rows, side), cells_of(columns, side)
        return cls(name, shape, axes, rows, columns, skipped, word, over_input, cells)

    @property
    def channels(self) -> int:
        """Number of channels."""
        axis = self.axes[0]
        return 1 if axis is None else self.shape[axis]

    @property
    def per_channel(self) -> int:
        """Number of units of a channel."""
        return math.prod(self.shape) // self.channels

    @property
    def per_place(self) -> int:
        """Number of units at a place."""
        return math.prod(self.shape) // (self.rows * self.columns + self.skipped)

    def arranged(self, values: np.ndarray) -> np.ndarray:
        """Put the channels first, then the places.

        Args:
            values: Values (B, *shape).

        Returns:
            The values (B, channels, places, rest).
        """
        wanted = [axis + 1 for axis in self.axes if axis is not None]
        rest = [axis for axis in range(1, values.ndim) if axis not in wanted]
        places = values.shape[0], self.channels, self.rows * self.columns + self.skipped
        return values.transpose(0, *wanted, *rest).reshape(*places, -1)

    def summed(self, places: np.ndarray) -> np.ndarray:
        """Sum over the places of each cell.

        Args:
            places: Numbers (…, places).

        Returns:
            Sums (…, rows of cells, columns of cells).
        """
        return self._pooled(places, np.add)

    def united(self, places: np.ndarray) -> np.ndarray:
        """Join the bits of the places of each cell.

        Args:
            places: Bits (…, places), whole numbers.

        Returns:
            Bits (…, rows of cells, columns of cells), set where any place of the cell has them.
        """
        return self._pooled(places, np.bitwise_or)

    def _pooled(self, places: np.ndarray, join: np.ufunc) -> np.ndarray:
        on_grid = places[..., self.skipped :].reshape(*places.shape[:-1], self.rows, self.columns)
        return pooled(on_grid, self.cells, join)


def cells_of(size: int, most: int) -> int:
    """Divide places in a row into cells of one size, as far as that goes.

    Args:
        size: Number of places.
        most: Most cells.

    Returns:
        Number of cells.

    Example:
        >>> from cpath.viz.explorer.places import cells_of
        >>> cells_of(7, 32), cells_of(112, 32), cells_of(60, 7)
        (7, 28, 7)
    """
    return -(-size // -(-size // most))


def pooled(values: np.ndarray, cells: tuple[int, int], join: np.ufunc) -> np.ndarray:
    """Join the values of each cell of a grid. Row y of R is in the cell ⌊y · cells / R⌋.

    Args:
        values: Values (…, rows, columns).
        cells: Rows and columns of cells, no more than there are of values.
        join: Function that joins them, such as `numpy.add`.

    Returns:
        Joined values (…, *cells).
    """
    for axis, count in zip((-2, -1), cells, strict=True):
        size = values.shape[axis]
        if count < size:
            starts = -(-np.arange(count) * size // count)  # rounded up
            values = join.reduceat(values, starts, axis=axis)
    return values


def _axes_of(name: str, shape: tuple[int, ...]) -> tuple[tuple[int | None, int | None, int | None], str]:
    """Axes of the channels, rows and columns, and the word for a channel."""
    if len(shape) == 3 and re.search(r":attention(#\d+)?$", name):
        return (0, None, 1), "head"
    if len(shape) == 3 and shape[0] == shape[1] != shape[2]:  # (H, W, C), as in Swin and ConvNeXt
        return (2, 0, 1), "channel"
    if len(shape) >= 3:
        return (0, len(shape) - 2, len(shape) - 1), "channel"
    if len(shape) == 2:
        return (1, None, 0), "channel"
    return (0 if shape else None, None, None), "channel"
