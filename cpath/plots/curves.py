"""Curves of methods, each with its band, and a word on those that hide each other."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from cpath.plots.style import colour_of, in_order, label_of, marker_of

_HIDDEN = 0.004  # difference of two curves from 0 to 1 that is thinner than a line


def curve(panel: Axes, rows: pd.DataFrame, method: str, at: str = "x", **changes: Any) -> None:
    """Draws ``value`` over the column ``at`` with its band, in the method's look with ``changes``."""
    look = {"color": colour_of(method), "marker": marker_of(method), "label": label_of(method)} | changes
    panel.plot(rows[at], rows.value, **look)
    panel.fill_between(rows[at], rows.ci_low, rows.ci_high, color=look["color"], alpha=0.13, linewidth=0)


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
