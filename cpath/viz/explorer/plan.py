"""Questions that an explorer asks of a model about every input, checked before any of them is answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from cpath.checks import check_count
from cpath.errors import InputError, described
from cpath.layout import SiteLayout
from cpath.methods.base import Method, get
from cpath.probe import Probe
from cpath.response import Target
from cpath.sites import DEFAULT_SITES, check_sites, evaluating
from cpath.threshold import check_sparsity
from cpath.units import NEURONS, Units, check_units
from cpath.viz.explorer.places import SiteGrid
from cpath.viz.style import in_order

SPARSITY = (0.0, 50.0, 70.0, 80.0, 90.0, 95.0, 98.0, 99.0)
"""Stops of the slider, per cent of all units."""
METHODS = ("neuron_mct", "neuron_intgrad", "random")
"""Methods that are explored unless others are named."""

_MOST_STOPS = 16  # a bit each
_SIDES = (32, 20, 14, 10, 7)  # cells in a row of a site's grid
_MOST_NUMBERS = 6_000_000  # of positions: 15 MB for 20 photographs and 5 methods

SomeMethods = str | Method | Sequence[str | Method] | Mapping[str, Method]
"""One extraction method or several, by name or as objects."""


@dataclass(frozen=True)
class UnitPlan:
    """The sites of a model, divided into units of one kind.

    Args:
        units: The kind.
        methods: Names of the methods that can score them.
        grids: Places of each site's units, in call order.
    """

    units: Units
    methods: tuple[str, ...]
    grids: tuple[SiteGrid, ...]

    @property
    def kind(self) -> str:
        """Name of the kind."""
        return self.units.kind

    @property
    def layout(self) -> SiteLayout:
        """Layout of the units in a flat row."""
        return SiteLayout({grid.name: grid.shape for grid in self.grids}, self.kind)


@dataclass(frozen=True)
class Plan:
    """Methods, units and sparsities that are explored.

    Args:
        methods: Extraction methods by name, in the order of all figures.
        units: Kinds of units with the model's sites.
        sparsity: Per cents of all units to prune, ascending.
        sites: Names of what is a site.
        channels: Number of channels of each site that are shown one by one.
        max_batch: Largest number of inputs in one forward pass.

    Example:
        >>> from cpath.viz.explorer import Plan
        >>> plan = Plan.of(model, images, ["random", "neuron_mct"], count=2, sparsity=[50, 90])
        >>> list(plan.methods), [grid.cells for grid in plan.units[0].grids]
        (['neuron_mct', 'random'], [(8, 8), (4, 4)])
    """

    methods: dict[str, Method]
    units: tuple[UnitPlan, ...]
    sparsity: tuple[float, ...]
    sites: tuple[str, ...]
    channels: int
    max_batch: int

    @classmethod
    def of(
        cls,
        model: nn.Module,
        images: Tensor,
        methods: SomeMethods = METHODS,
        target: Target = None,
        *,
        count: int,
        sparsity: float | Iterable[float] = SPARSITY,
        sites: str | Iterable[str] = DEFAULT_SITES,
        unit: str | Units | Sequence[str | Units] = NEURONS,
        channels: int = 6,
        max_batch: int = 64,
    ) -> Plan:
        """Check what is to be explored, by one run of the model.

        Args:
            model: The model.
            images: One or more of the images (B, C, H, W).
            methods: Extraction methods.
            target: The response, as for `cpath.score`.
            count: Number of images in the page, on which the fineness of positions depends.
            sparsity: Per cents of all units to prune.
            sites: Names of what is a site.
            unit: Kinds of units.
            channels: Number of channels of each site that are shown one by one.
            max_batch: Largest number of inputs in one forward pass.

        Returns:
            The plan.

        Raises:
            InputError: If an argument is unusable.
            SiteError: If the model has no site, or a site has no such units.
            UnknownNameError: If a method or unit is unknown.
        """
        given = check_methods(methods)
        chosen = {name: given[name] for name in in_order(given)}
        kinds = _check_kinds(unit, chosen)
        stops = check_stops(sparsity)
        names = check_sites(sites)
        channels, max_batch = check_count("channels", channels), check_count("max_batch", max_batch)
        layouts = _layouts(model, images[:1], target, names, kinds)
        runs = len(chosen) * len(stops) * count
        plans = tuple(
            UnitPlan(units, able_to_score(chosen, units), _fine_enough(layout, runs * len(kinds)))
            for units, layout in zip(kinds, layouts, strict=True)
        )
        return cls(chosen, plans, stops, names, channels, max_batch)


def check_methods(methods: object) -> dict[str, Method]:
    """Check extraction methods.

    Args:
        methods: A name, a `Method`, several of them, or a mapping of names to methods.

    Returns:
        Methods by name.

    Raises:
        InputError: If it is none of these, or a name occurs twice.
        UnknownNameError: If there is no method of a name.
    """
    if isinstance(methods, Mapping):
        named = list(methods.items())
    elif isinstance(methods, str | Method):
        named = [(None, methods)]
    elif isinstance(methods, Iterable):
        named = [(None, method) for method in methods]
    else:
        raise InputError(f"methods must be names of extraction methods, not {described(methods)}.")
    found: dict[str, Method] = {}
    for name, given in named:
        method = get(given) if isinstance(given, str) else given
        if not isinstance(method, Method):
            raise InputError(
                f"methods must be names of extraction methods or cpath.Method, not {described(given)}."
            )
        name = method.name if name is None else name
        if name in found:
            raise InputError(f"methods has '{name}' twice: pass a mapping that gives each a name of its own.")
        found[name] = method
    if not found:
        raise InputError("methods is empty: name at least one extraction method.")
    return found


def check_stops(sparsity: object) -> tuple[float, ...]:
    """Check the stops of the slider.

    Args:
        sparsity: Per cent of the units to prune, one or several.

    Returns:
        The sparsities.

    Raises:
        InputError: If they do not ascend, or are outside 0 ≤ sparsity < 100, or are too many.
    """
    given = [sparsity] if isinstance(sparsity, int | float) else sparsity
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise InputError(f"sparsity must be per cents of the units to prune, not {described(sparsity)}.")
    stops = tuple(check_sparsity(value) for value in given)
    if not stops or list(stops) != sorted(set(stops)):
        raise InputError(f"sparsity must ascend, as in (50, 90, 99), not {stops}.")
    if len(stops) > _MOST_STOPS:
        raise InputError(f"sparsity has {len(stops)} values; the slider takes at most {_MOST_STOPS}.")
    return stops


def _check_kinds(unit: object, methods: Mapping[str, Method]) -> list[Units]:
    given = [unit] if isinstance(unit, str | Units) else unit
    if not isinstance(given, Iterable):
        raise InputError(f"unit must be the name of a kind of units, or several, not {described(unit)}.")
    kinds = [check_units(one) for one in given]
    if not kinds or len({units.kind for units in kinds}) != len(kinds):
        raise InputError(f"unit must be different kinds of units, not {described(unit)}.")
    for units in kinds:
        if not able_to_score(methods, units):
            raise InputError(f"none of the methods ({', '.join(methods)}) can score {units.kind}s: name another.")
    return kinds


def able_to_score(methods: Mapping[str, Method], units: Units) -> tuple[str, ...]:
    """Find the methods that know a kind of units.

    Args:
        methods: Methods by name.
        units: The kind.

    Returns:
        Their names.
    """
    return tuple(name for name, method in methods.items() if units == NEURONS or not method.neurons_only)


def _layouts(
    model: nn.Module, image: Tensor, target: Target, sites: tuple[str, ...], kinds: Sequence[Units]
) -> list[SiteLayout]:
    """Layout of the units of each kind, by one run of the model."""
    asked = target if callable(target) else None
    with evaluating(model):
        probes = [Probe(model, image, asked, sites=sites, unit=units) for units in kinds]
        activations = probes[0].record(gradients=False).activations
    return [probe.layout(activations) for probe in probes]


def _fine_enough(layout: SiteLayout, runs: int) -> tuple[SiteGrid, ...]:
    """Grids with as many cells as the page has room for."""
    grids: tuple[SiteGrid, ...] = ()
    for side in _SIDES:
        grids = tuple(SiteGrid.of(name, shape, side) for name, shape in layout.shapes.items())
        if runs * sum(grid.cells[0] * grid.cells[1] for grid in grids) <= _MOST_NUMBERS:
            break
    return grids
