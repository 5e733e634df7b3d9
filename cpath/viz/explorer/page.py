"""The page: answers packed as text, with the script, the style and the markup that are files of the package."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from cpath.viz.explorer.examine import NETWORK, Answers, grid_facts
from cpath.viz.explorer.packing import Field, json_for_page, packed, png, smallest_type
from cpath.viz.explorer.places import cells_of, pooled
from cpath.viz.explorer.plan import Plan, UnitPlan
from cpath.viz.style import colour_of, label_of

_PICTURE_SIDE = 320
_SCRIPTS = ("data.js", "draw.js", "charts.js", "panels.js", "main.js")


@dataclass(frozen=True, eq=False)
class Shown:
    """Images, names and classes that are shown beside the answers.

    Args:
        pixels: Images (B, H, W, C) in [0, 1].
        names: A name for each input.
        classes: Names of the classes, by number; empty if they have none.
        true: True class of each input, a number or a name; None if it is not known.
        title: Heading of the page.

    Example:
        >>> from cpath.viz.explorer import Shown
        >>> Shown(torch.zeros(2, 8, 8, 3).numpy(), ["first", "second"]).title
        'Critical pathways'
    """

    pixels: np.ndarray
    names: Sequence[str]
    classes: Sequence[str] = ()
    true: Sequence[int | str] | None = None
    title: str = "Critical pathways"


def write_page(plan: Plan, answers: Answers, shown: Shown) -> str:
    """Write the page.

    Args:
        plan: The questions.
        answers: Their answers for all inputs.
        shown: Images, names and classes.

    Returns:
        HTML that needs nothing from elsewhere.

    Example:
        >>> from cpath.viz.explorer import Plan, Shown, examine, write_page
        >>> plan = Plan.of(model, images, "neuron_mct", count=2, sparsity=[50, 90])
        >>> shown = Shown(torch.rand(2, 8, 8, 3).numpy(), ["first", "second"])
        >>> write_page(plan, examine(model, images, plan), shown)[:15]
        '<!doctype html>'
    """
    fields: dict[str, list[Field]] = {}
    data: list[str] = []
    for number in range(len(shown.pixels)):
        for place, unit in enumerate(plan.units):
            for key, arrays in _packs(plan, unit, answers, number):
                text, fields[f"{place}-{key if key == 'shared' else 'run'}"] = packed(arrays)
                data.append(f'<script type="text/plain" id="pack-{number}-{place}-{key}">{text}</script>')
    facts = {
        **_plan_facts(plan, answers),
        "title": shown.title,
        "fields": fields,
        "classes": list(shown.classes),
        "inputs": [_input_facts(answers, shown, number) for number in range(len(shown.pixels))],
    }
    parts = {
        "title": escape(shown.title),
        "style": _file("page.css"),
        "facts": json_for_page(facts),
        "data": "\n".join(data),
        "script": "\n".join(_file(name) for name in _SCRIPTS),
    }
    page = _file("page.html")
    for name, text in parts.items():  # no template language: style and script are full of braces
        page = page.replace(f"<!-- {name} -->", text)
    return page


def _file(name: str) -> str:
    return files("cpath.viz.explorer").joinpath(name).read_text(encoding="utf-8")


def _packs(
    plan: Plan, unit: UnitPlan, answers: Answers, number: int
) -> Iterator[tuple[str, list[tuple[str, str, np.ndarray]]]]:
    """Arrays that the page decodes at once: the answers of a run for one input, and the overlaps of its methods."""
    largest = max(
        grid.per_place * -(-grid.rows // grid.cells[0]) * -(-grid.columns // grid.cells[1]) for grid in unit.grids
    )
    kinds = {
        "kept": "uint32",
        "places": smallest_type(largest),
        "map": "uint8",
        "channels": "int32",
        "channel_kept": "uint32",
        "channel_places": smallest_type((1 << len(plan.sparsity)) - 1),
        "top": "uint32",
    }
    for place, method in enumerate(plan.methods):
        if method not in unit.methods:
            continue
        prefix = f"{unit.kind}/{method}/"
        names = [name.removeprefix(prefix) for name in answers if name.startswith(prefix)]
        yield str(place), [(name, kinds.get(name, "float32"), answers[prefix + name][number]) for name in names]
    pairs = [
        answers[f"{unit.kind}/{first}+{second}/shared"][number]
        for first, second in itertools.combinations(unit.methods, 2)
    ]
    if pairs:
        yield "shared", [("shared", "uint32", np.stack(pairs))]


def _plan_facts(plan: Plan, answers: Answers) -> dict[str, Any]:
    shape = next(values.shape[-2:] for name, values in answers.items() if name.endswith("/map"))
    return {
        "sparsity": list(plan.sparsity),
        "methods": [{"name": name, "label": label_of(name), "colour": colour_of(name)} for name in plan.methods],
        "units": [_unit_facts(plan, unit) for unit in plan.units],
        "channels": plan.channels,
        "map": list(shape),
    }


def _unit_facts(plan: Plan, unit: UnitPlan) -> dict[str, Any]:
    return {
        "kind": unit.kind,
        "total": unit.layout.units,
        "methods": [place for place, method in enumerate(plan.methods) if method in unit.methods],
        "sites": [grid_facts(grid) for grid in unit.grids],
    }


def _input_facts(answers: Answers, shown: Shown, number: int) -> dict[str, Any]:
    known = {
        name.removeprefix(f"{NETWORK}/"): values[number].tolist()
        for name, values in answers.items()
        if name.startswith(f"{NETWORK}/")
    }
    true = None if shown.true is None else shown.true[number]
    pixels = shown.pixels[number]
    return {
        **known,
        "name": str(shown.names[number]),
        "true": true if true is None or isinstance(true, str) else int(true),
        "picture": png(_smaller(pixels)),
        "size": [int(pixels.shape[0]), int(pixels.shape[1])],
    }


def _smaller(pixels: np.ndarray) -> np.ndarray:
    """Reduce a large image to the mean of its pixels under each of those that are shown."""
    cells = cells_of(pixels.shape[0], _PICTURE_SIDE), cells_of(pixels.shape[1], _PICTURE_SIDE)
    if cells == pixels.shape[:2]:
        return pixels
    first = np.moveaxis(pixels, -1, 0)
    counts = pooled(np.ones_like(first), cells, np.add)
    return np.moveaxis(pooled(first, cells, np.add) / counts, 0, -1)
