"""Curves of methods, each with its band, and a word on those that hide each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpath.viz.style import colour_of, in_order, label_of, marker_of, new_figure

_HIDDEN = 0.004  # difference of two curves from 0 to 1 that is thinner than a line


def curve(panel: Axes, rows: pd.DataFrame, method: str, at: str = "x", **changes: Any) -> None:
    """Draws ``value`` over the column ``at`` with its band, in the method's look with ``changes``."""
    look = {"color": colour_of(method), "marker": marker_of(method), "label": label_of(method)} | changes
    panel.plot(rows[at], rows.value, **look)
    panel.fill_between(rows[at], rows.ci_low, rows.ci_high, color=look["color"], alpha=0.13, linewidth=0)


def spread(rows: Any) -> np.ndarray:
    """(2, K) lengths of the error bars below and above ``value``, of one row or several; 0 where there are none."""
    below, above = rows.value - rows.ci_low, rows.ci_high - rows.value
    # A mean can lie outside the interval of its resamples by rounding.
    bars: np.ndarray = np.nan_to_num(np.array([below, above], dtype=float).reshape(2, -1))
    return bars.clip(min=0)


def coinciding(rows: pd.DataFrame) -> str:
    """A sentence on methods whose curves (``value`` over ``x`` and ``metric``) hide each other, or nothing."""
    curves = rows.pivot_table(index=["metric", "x"], columns="method", values="value", sort=False)
    methods = in_order(curves.columns)
    pairs = [
        f"{label_of(one)} and {label_of(other)}"
        for number, one in enumerate(methods)
        for other in methods[number + 1 :]
        if (curves[one] - curves[other]).abs().max() < _HIDDEN
    ]
    return f" The curves of {', and those of '.join(pairs)} coincide." if pairs else ""


def beside_published(
    ours: pd.DataFrame,
    paper: pd.DataFrame,
    x_label: str,
    y_label: str,
    at: str = "x",
    room: float = 0.9,
    **limits: Any,
) -> Figure | None:
    """A panel a method with our curve and the published one, dashed; None where the paper has none.

    Over the column ``at``; ``room`` inches are for what stands above and below the panels. The axes begin at 0
    unless their ``limits`` (xlim, ylim) are given.
    """
    methods = in_order(paper.method)
    if not methods:
        return None
    across = min(4, len(methods))
    down = -(-len(methods) // across)
    figure = new_figure(1.0 + 1.9 * across, room + 1.8 * down)
    panels = figure.subplots(down, across, squeeze=False, sharex=True, sharey=True).ravel()
    for panel, method in zip(panels, methods, strict=False):
        mine = ours[ours.method == method].sort_values(at)
        curve(panel, mine, method, at=at, label="here", color="#0072B2", marker=".")
        line = paper[paper.method == method].sort_values(at)
        panel.plot(line[at], line.value, "--", color="#3C3C3C", label="published")
        panel.set_title(label_of(method), fontsize=9)
        panel.set(**(limits or {"xlim": (0, None), "ylim": (0, None)}))
    for panel in panels[len(methods) :]:
        panel.set_visible(False)
    figure.supylabel(y_label, fontsize=9)
    if x_label:
        figure.supxlabel(x_label, fontsize=9)
    # Above a label: matplotlib puts a legend on top of it.
    place = "outside upper center" if x_label else "outside lower center"
    figure.legend(*panels[0].get_legend_handles_labels(), loc=place, ncols=2)
    return figure
