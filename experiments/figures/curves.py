"""Curves of methods, each with its band, and a word on those that hide each other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from cpath.viz.style import colour_of, in_order, label_of, marker_of, new_figure

_HIDDEN = 0.004  # difference of two curves from 0 to 1 that is thinner than a line


def curve(panel: Axes, rows: pd.DataFrame, method: str, at: str = "x", **changes: Any) -> None:
    """Draw the curve of a method with its band.

    Args:
        panel: axes of matplotlib.
        rows: tidy rows of the method, sorted, with ``value``, ``ci_low`` and ``ci_high``.
        method: name of the method, which decides colour, marker and label.
        at: column of the horizontal axis.
        changes: settings of `Axes.plot` that differ from the method's own.
    """
    look = {"color": colour_of(method), "marker": marker_of(method), "label": label_of(method)} | changes
    panel.plot(rows[at], rows.value, **look)
    panel.fill_between(rows[at], rows.ci_low, rows.ci_high, color=look["color"], alpha=0.13, linewidth=0)


def curves_or_dots(panel: Axes, rows: pd.DataFrame, x_label: str, y_label: str, at: str = "x") -> bool:
    """Draw the methods' curves; where there is a single place on them, a row with a dot for each method.

    Args:
        panel: axes of matplotlib.
        rows: tidy rows of one metric, with ``method``, ``value``, ``ci_low`` and ``ci_high``.
        x_label: label of the places.
        y_label: label of the values, which are horizontal for dots.
        at: column of the places.

    Returns:
        True for curves, which need a legend; False for dots, whose rows have names. A panel without rows is hidden.
    """
    if rows.empty:
        panel.set_visible(False)
        return False
    methods = in_order(rows.method)
    if rows[at].nunique() > 1:
        for method in methods:
            curve(panel, rows[rows.method == method].sort_values(at), method, at=at)
        panel.set(xlabel=x_label, ylabel=y_label)
        return True
    for place, method in enumerate(methods):
        row = rows[rows.method == method].iloc[0]
        if np.isnan(row.value):  # no image has the number: a row without a dot
            panel.annotate("none", (0.5, place), xycoords=("axes fraction", "data"), va="center", fontsize=8)
            continue
        look = {"color": colour_of(method), "fmt": marker_of(method), "elinewidth": 1}
        panel.errorbar(row.value, place, xerr=spread(row), **look)
        panel.annotate(
            f"{row.value:.3g}".replace("-", "−"),
            (row.value if np.isnan(row.ci_high) else max(row.value, row.ci_high), place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            path_effects=[withStroke(linewidth=2, foreground="w")],
        )
    panel.set_yticks(range(len(methods)), [label_of(method) for method in methods])
    panel.set(ylim=(len(methods) - 0.5, -0.5), xlabel=y_label)
    panel.margins(x=0.12)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    return False


def height_of(rows: pd.DataFrame, curves: float, at: str = "x") -> float:
    """Height of a panel of `curves_or_dots`, in inches.

    Args:
        rows: tidy rows, as there.
        curves: height for curves.
        at: column of the places, as there.

    Returns:
        That height, or what the rows of dots need.
    """
    return curves if rows[at].nunique() > 1 else 0.5 + 0.3 * rows.method.nunique()


def spread(rows: Any) -> np.ndarray:
    """Lengths of the error bars below and above the values of rows.

    Args:
        rows: one tidy row or several, with ``value``, ``ci_low`` and ``ci_high``.

    Returns:
        (2, K), 0 where there is no interval.
    """
    below, above = rows.value - rows.ci_low, rows.ci_high - rows.value
    # A mean can lie outside the interval of its resamples by rounding.
    bars: np.ndarray = np.nan_to_num(np.array([below, above], dtype=float).reshape(2, -1))
    return bars.clip(min=0)


def coinciding(rows: pd.DataFrame) -> str:
    """Tell in a sentence which methods have curves that hide each other.

    Args:
        rows: tidy rows of the curves, ``value`` (from 0 to 1) over ``x`` and ``metric``.

    Returns:
        The sentence, with a space before it; empty where no curves coincide.
    """
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
    """Draw our curves beside the published ones, dashed, in a panel for each method.

    Args:
        ours: tidy rows, with numbers in the column of the horizontal axis.
        paper: tidy rows of the published curves, likewise.
        x_label: label of the horizontal axes; may be empty.
        y_label: label of the vertical axes.
        at: column of the horizontal axis.
        room: inches for what stands above and below the panels.
        limits: ``xlim`` and ``ylim`` of the panels; without them the axes begin at 0.

    Returns:
        The figure; None where the paper has no curve.
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
