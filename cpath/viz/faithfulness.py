"""Pictures of faithfulness: curves over the share of units, and one number for each method."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from torch import Tensor

from cpath.analysis import Interval, bootstrap_mean
from cpath.errors import InputError, described
from cpath.evaluation.faithfulness import Faithfulness
from cpath.viz.style import STYLE, colour_of, in_order, label_of, marker_of, new_figure, shared_legend

REFERENCE = {"color": "#3C3C3C", "linewidth": 0.8, "zorder": 1}
"""Look of lines that values are compared with."""
LOWEST, HIGHEST = -1.0, 2.5
"""Range of curves: what overshoots further leaves the picture."""
_LARGE = 2.0  # mean distances from 1 that are larger share the rest of an axis


@dataclass(frozen=True, eq=False)
class _Line:
    """Results of a method, as the figure shows them."""

    label: str
    found: Faithfulness

    @property
    def colour(self) -> str:
        return colour_of(self.found.method)

    @property
    def marker(self) -> str:
        return marker_of(self.found.method)


def show_faithfulness(found: Faithfulness, *others: Faithfulness) -> Figure:
    """Draw what the best units recover of the answer, and what is lost without them, and one number a method.

    Curves are means over the inputs with 95 % bootstrap intervals; inputs without faithfulness are left out. At the
    right stands the mean distance from 1 over the sizes: 0 is the whole answer at every size, 1 is what units
    without a part in it give. A method that only tells which units to keep has one size, and a point.

    Args:
        found: Faithfulness of a method, with that of the methods that were measured beside it.
        others: Faithfulness of further methods.

    Returns:
        The figure.

    Raises:
        InputError: If there is no input with a faithfulness, or something else is passed.

    Example:
        >>> scores = cpath.score(model, images)
        >>> found = cpath.faithfulness(model, images, scores, keep=[10, 50, 90], beside=["random"])
        >>> figure = cpath.viz.show_faithfulness(found)
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['NeuronMCT', 'Random']
    """
    lines = _lines([found, *found.beside, *others])
    curves = [("Sufficiency: the best units alone", "sufficiency")]
    if all(line.found.losses is not None for line in lines):
        curves.append(("Necessity: lost without the best units", "necessity"))
    with mpl.rc_context(STYLE):
        figure = new_figure(3.5 * len(curves) + 2.9, 3.6)
        *panels, numbers = figure.subplots(1, len(curves) + 1, width_ratios=[3.4] * len(curves) + [2.6])
        for panel, (title, name) in zip(panels, curves, strict=True):
            _curves(panel, lines, name)
            panel.set(title=title, xlabel="best units (% of all)")
        panels[0].set_ylabel("part of the answer")
        _numbers(numbers, lines, [name for _, name in curves])
        shared_legend(figure, panels[0])
        return figure


def _lines(found: list[Faithfulness]) -> list[_Line]:
    for one in found:
        if not isinstance(one, Faithfulness):
            raise InputError(
                f"beside a faithfulness stand others, as cpath.faithfulness gives them, not {described(one)}."
            )
        if bool(one.undefined.all()):
            raise InputError(
                f"no input has a faithfulness of '{one.method}': the answer does not rise from the empty to the "
                "whole network. Pass other inputs, or another target."
            )
    order = in_order(one.method for one in found)
    seen: Counter[str] = Counter()
    lines = []
    for one in sorted(found, key=lambda one: order.index(one.method)):
        seen[one.method] += 1
        number = f" ({seen[one.method]})" if seen[one.method] > 1 else ""
        lines.append(_Line(label_of(one.method) + number, one))
    return lines


def _means(values: Tensor) -> Interval:
    return bootstrap_mean(values.detach().double().cpu().numpy())


def _curves(panel: Axes, lines: list[_Line], name: str) -> None:
    inside = [0.0, 1.0]
    for height in (0, 1):
        panel.axhline(height, **REFERENCE)
    for line in lines:
        values = _means(getattr(line.found, name))
        sizes = line.found.keep.double().cpu().numpy()
        if len(sizes) == 1:  # what the scores allow of it: all units that a method keeps
            sizes = line.found.kept.double().nanmean(0).cpu().numpy()
        look = {"color": line.colour, "marker": line.marker, "label": line.label}
        panel.plot(sizes, values.mean, linestyle="-" if len(sizes) > 1 else "none", **look)
        if len(sizes) > 1:
            panel.fill_between(sizes, values.low, values.high, color=line.colour, alpha=0.13, linewidth=0)
        else:
            bars = np.nan_to_num(np.stack([values.mean - values.low, values.high - values.mean])).clip(min=0)
            panel.errorbar(sizes, values.mean, yerr=bars, color=line.colour, fmt="none", elinewidth=1)
        inside += [*values.mean.clip(LOWEST, HIGHEST)]
    panel.set_xscale("log")
    asked = sorted({float(size) for line in lines if len(line.found.keep) > 1 for size in line.found.keep})
    if asked:
        panel.set_xticks(asked, [f"{size:.3g}" for size in asked])
        panel.minorticks_off()
    panel.set_ylim(min(inside) - 0.1, max(inside) + 0.15)


def _numbers(panel: Axes, lines: list[_Line], names: list[str]) -> None:
    shifts = (-0.12, 0.12) if len(names) > 1 else (0.0,)
    largest = 1.0
    for name, shift, filled in zip(names, shifts, (True, False), strict=False):
        for place, line in enumerate(lines):
            distance = (1 - getattr(line.found, name)).abs().mean(1, keepdim=True)
            value = _means(distance)
            bars = np.nan_to_num(np.stack([value.mean - value.low, value.high - value.mean])).clip(min=0)
            look = {"color": line.colour, "markerfacecolor": line.colour if filled else "white"}
            panel.errorbar(value.mean, [place + shift], xerr=bars, fmt="o" if filled else "D", elinewidth=1, **look)
            largest = max(largest, float(np.nanmax([value.mean[0], value.high[0]])))
        marker = {"color": "#3C3C3C", "markerfacecolor": "#3C3C3C" if filled else "white", "label": name}
        panel.plot([], [], "o" if filled else "D", **marker)
    panel.axvline(1, **REFERENCE)
    mark_distances(panel, "x", largest)
    panel.set_yticks(range(len(lines)), [line.label for line in lines])
    room = 0.18 * len(lines) if len(names) > 1 else 0.0  # for the legend, above all rows
    panel.set_ylim(len(lines) - 0.4, -0.6 - room)
    panel.set(title="Mean distance from 1", xlabel="0 is the whole answer")
    if len(names) > 1:
        panel.legend(loc="upper center", ncols=len(names), fontsize=8.5, borderaxespad=0.2)


def mark_distances(panel: Axes, axis: Literal["x", "y"], largest: float) -> None:
    """Prepare an axis for mean distances from 1: from 0, and logarithmic for what is large.

    Args:
        panel: axes of matplotlib.
        axis: the axis.
        largest: largest distance.
    """
    if largest > _LARGE:
        getattr(panel, f"set_{axis}scale")("symlog", linthresh=_LARGE)
        ticks = [0, 0.5, 1, 1.5, *(tick for tick in (2, 3, 5, 10, 20, 50, 100, 1000) if tick <= largest)]
        getattr(panel, f"set_{axis}ticks")(ticks, [f"{tick:g}" for tick in ticks])
        panel.minorticks_off()
    else:
        getattr(panel, f"{axis}axis").set_major_locator(MultipleLocator(0.5))
    highest = max(1.1, 1.08 * largest)
    panel.set(**{f"{axis}lim": (-0.02 * highest, highest)})
