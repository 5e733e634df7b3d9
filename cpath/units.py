"""Units: what is scored, kept and pruned as one. A neuron, a channel, a token or an attention head.

A site's output for one input has a shape, and a unit of it is one index of one axis (a head of (heads, tokens, d)
is one index of the first). The units of a site therefore have a shape too, which broadcasts to the site's:

======================  ================  ================  ================
output for one input    ``channel``       ``token``         ``head``
======================  ================  ================  ================
(C,)                    (C,)
(tokens, C)             (1, C)            (tokens, 1)
(C, H, W)               (C, 1, 1)
(C, D, H, W)            (C, 1, 1, 1)
(heads, tokens, d) of   (heads, 1, d)     (1, tokens, 1)    (heads, 1, 1)
``…:attention``
======================  ================  ================  ================

A shape does not tell everything: Swin and ConvNeXt hold (H, W, C), and a network of 1-d convolutions holds
(C, length). For these, `Units` names the axis, for all sites or by the pattern of a site's name:

    >>> cpath.Units("channel").shape("relu1", (4, 8, 8))
    (4, 1, 1)
    >>> cpath.Units("channel", axis=-1).shape("features.1.0:gelu", (56, 56, 96))
    (1, 1, 96)
    >>> cpath.Units("channel", axis={"features.*": -1}).shape("relu1", (4, 8, 8))
    (4, 1, 1)
    >>> cpath.Units("token", axis={"stages.*": (0, 1)}).shape("stages.0:gelu", (7, 7, 384))
    (7, 7, 1)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cpath.display import Shown
from cpath.errors import InputError, SiteError, described, unknown_name

UNITS = ("neuron", "channel", "token", "head")
"""Names of the kinds of units."""

Axis = int | tuple[int, ...]
"""Axis of a site's output for one input, without the batch, or several whose indices together make a unit."""

AxisRule = Axis | Mapping[str, Axis] | Callable[[str, tuple[int, ...]], Axis | None]
"""An axis for all sites; axes by patterns of the sites' names; or a function of a site's name and shape."""

_SHOWN = 12  # sites in a message

_OF_ATTENTION: dict[str, Axis] = {"channel": (0, 2), "token": 1, "head": 0}
_BY_DIMENSIONS: dict[tuple[str, int], Axis] = {
    ("channel", 1): 0,
    ("channel", 2): 1,
    ("channel", 3): 0,
    ("channel", 4): 0,
    ("token", 2): 0,
}


@dataclass(frozen=True)
class Units(Shown):
    """Kind of unit, with the axes of the sites' outputs that tell one unit from another.

    Args:
        kind: ``"neuron"``, ``"channel"``, ``"token"`` or ``"head"``.
        axis: Axes where the rule (see `cpath.units`) does not hold: an axis of a site's output for one input,
            without the batch, or several whose indices together make a unit; by pattern of the sites' names if it
            is a mapping, the first that matches; or a function of a site's name and shape. Sites for which a
            mapping or function has nothing (None) follow the rule.

    Raises:
        UnknownNameError: If there is no such kind.
        InputError: If ``axis`` is unusable, or given for neurons.

    Example:
        >>> units = cpath.Units("channel", axis={"relu2": -1})  # as if relu2 held (H, W, C)
        >>> scores = cpath.score(model, images, unit=units)
        >>> {name: tuple(value.shape) for name, value in scores.values.items()}
        {'relu1': (2, 4, 1, 1), 'relu2': (2, 1, 1, 4)}
    """

    kind: str = "neuron"
    axis: AxisRule | None = None

    def __post_init__(self) -> None:
        if self.kind not in UNITS:
            raise unknown_name("unit", self.kind, UNITS)
        if self.axis is None:
            return
        if self.kind == "neuron":
            raise InputError("a neuron is one element of a site's output: it has no axis.")
        axes = self.axis.values() if isinstance(self.axis, Mapping) else (self.axis,)
        wrong = [axis for axis in axes if not _is_axis(axis) and not callable(axis)]
        if wrong:
            raise InputError(f"axis must be a whole number or a tuple of them, not {described(wrong[0])}.")

    def shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Find the shape of a site's units.

        Args:
            name: Name of the site.
            shape: Shape of its output for one input.

        Returns:
            A shape that broadcasts to ``shape``: the sizes of the units' axes, and 1 for all others.

        Raises:
            SiteError: If the site has no such axis.
        """
        if self.kind == "neuron":
            return shape
        axis = self._axis(name, shape)
        if axis is None:
            raise self._no_axis_error(name, shape)
        axes = axis if isinstance(axis, tuple) else (axis,)
        if not _is_axis(axis) or not all(-len(shape) <= one < len(shape) for one in axes):
            raise SiteError(f"site '{name}' gives {shape} for each input, which has no axis {axis}.")
        kept = {one % len(shape) for one in axes}
        return tuple(size if place in kept else 1 for place, size in enumerate(shape))

    def check_patterns(self, names: Iterable[str]) -> None:
        """Refuse patterns that fit no site: units would silently be those of the rule.

        Args:
            names: Names of all sites.

        Raises:
            SiteError: If there is such a pattern.
        """
        names = list(names)
        for pattern in self.axis if isinstance(self.axis, Mapping) else ():
            if not any(fnmatchcase(name, pattern) for name in names):
                shown = f"{', '.join(names[:_SHOWN])}{'' if len(names) <= _SHOWN else ', …'}"
                raise SiteError(f"axis names '{pattern}', which fits no site. The sites are {shown}.")

    def _axis(self, name: str, shape: tuple[int, ...]) -> Axis | None:
        asked: Axis | None = None
        if isinstance(self.axis, Mapping):
            asked = next((axis for pattern, axis in self.axis.items() if fnmatchcase(name, pattern)), None)
        elif self.axis is not None:
            asked = self.axis(name, shape) if callable(self.axis) else self.axis
        if asked is not None:
            return asked
        if len(shape) == 3 and re.search(r":attention(#\d+)?$", name):
            return _OF_ATTENTION[self.kind]
        return _BY_DIMENSIONS.get((self.kind, len(shape)))

    def _no_axis_error(self, name: str, shape: tuple[int, ...]) -> SiteError:
        return SiteError(
            f"site '{name}' gives {shape} for each input, in which no axis is known to be the {self.kind}s: leave "
            f"the site out (add '!{name}' to sites), {self._remedy(name, len(shape))}."
        )

    def _remedy(self, name: str, dimensions: int) -> str:
        def named(axis: str) -> str:
            return f"unit=cpath.Units('{self.kind}', axis={{'{name}': {axis}}})"

        if self.kind == "head":
            return f"choose sites that have heads (sites='attention'), or say which axis they are: {named('AXIS')}"
        if dimensions < 2:
            return "or choose another unit: 'channel' or 'neuron'" if dimensions else "or choose unit='neuron'"
        if self.kind == "token" and dimensions == 3:
            return (
                f"choose another unit, or take positions for tokens: {named('(1, 2)')} if it holds (C, H, W), "
                "(0, 1) if it holds (H, W, C)"
            )
        return f"or say which axis they are: {named('AXIS')}, with AXIS from 0 to {dimensions - 1}"


NEURONS = Units()
"""Every element of every site's output."""


def check_units(unit: str | Units) -> Units:
    """Check the argument that names the units.

    Args:
        unit: Name of the kind of unit, or the units.

    Returns:
        The units.

    Raises:
        UnknownNameError: If there is no such kind.
        InputError: If ``unit`` is something else.
    """
    if isinstance(unit, Units):
        return unit
    if not isinstance(unit, str):
        raise InputError(f"unit must be one of {', '.join(UNITS)}, or a cpath.Units, not {described(unit)}.")
    return Units(unit)


def _is_axis(axis: object) -> bool:
    axes = axis if isinstance(axis, tuple) and axis else (axis,)
    return all(isinstance(one, int) and not isinstance(one, bool) for one in axes)
