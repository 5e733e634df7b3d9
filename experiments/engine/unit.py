"""The setting ``unit``: a kind of unit, or a kind with the axes of sites whose shapes do not tell them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator

from cpath.errors import CpathError, described
from cpath.units import UNITS, Units

Axes = int | tuple[int, ...]
"""Axis of a site's output for one input, or several whose indices together make a unit."""


class UnitAxes(BaseModel):
    """A kind of unit with axes: what `cpath.Units` is in the library."""

    model_config = ConfigDict(frozen=True)

    kind: str
    everywhere: Axes | None = None
    """Axes at all sites."""
    by_site: tuple[tuple[str, Axes], ...] = ()
    """Axes by pattern of the sites' names; pairs, as the first that matches counts, and so the order does."""

    @property
    def units(self) -> Units:
        """The units, for functions of the library."""
        return Units(self.kind, dict(self.by_site) if self.everywhere is None else self.everywhere)

    def __str__(self) -> str:
        axes = dict(self.by_site) if self.everywhere is None else self.everywhere
        return in_words({"kind": self.kind, "axis": axes})


def in_words(value: Any) -> str:
    """Write a value of the setting as the command line takes it.

    Args:
        value: a kind, or plain containers.

    Returns:
        One line.

    Example:
        >>> from experiments.engine.unit import in_words
        >>> in_words({"kind": "token", "axis": {"stages.*": [0, 1]}})
        '{kind: token, axis: {stages.*: [0, 1]}}'
    """
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name}: {in_words(part)}' for name, part in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(in_words, value))}]"
    return str(value)


def _unit(value: Any) -> str | UnitAxes:
    if isinstance(value, str) and value in UNITS:
        return value
    if not isinstance(value, Mapping) or value.get("kind") not in UNITS or not set(value) <= {"kind", "axis"}:
        raise ValueError(
            f"must be {', '.join(map(repr, UNITS[:-1]))} or '{UNITS[-1]}', or one of them with axes, such as "
            "{kind: channel, axis: -1} or {kind: channel, axis: {features.*: -1}}"
        )
    kind, axis = value["kind"], value.get("axis")
    if axis is None or axis == {}:
        return str(kind)
    if isinstance(axis, Mapping):
        found = UnitAxes(kind=kind, by_site=tuple((str(name), _axes(one)) for name, one in axis.items()))
    else:
        found = UnitAxes(kind=kind, everywhere=_axes(axis))
    try:
        _ = found.units  # refuses axes of neurons
    except CpathError as error:
        raise ValueError(f"is unusable: {error}") from error
    return found


def _axes(value: Any) -> Axes:
    axes = value if isinstance(value, list | tuple) else [value]
    if not axes or not all(isinstance(one, int) and not isinstance(one, bool) for one in axes):
        raise ValueError(
            "must name axes by a whole number, by a list of them, or by a mapping from patterns of sites' names "
            f"to these ('?' in a pattern stands for the colon of a name): axis is {described(value)}"
        )
    return tuple(axes) if isinstance(value, list | tuple) else int(value)


def units_of(unit: str | UnitAxes) -> Units:
    """Make the library's units of the setting.

    Args:
        unit: value of the setting.

    Returns:
        The units.
    """
    return unit.units if isinstance(unit, UnitAxes) else Units(unit)


Unit = Annotated[Any, PlainValidator(_unit)]
"""A kind of unit, as text; or a `UnitAxes`."""
