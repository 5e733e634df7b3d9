"""Figure of the local linearity of restricted networks."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.ticker import LogLocator, NullFormatter

from cpath.viz.style import STYLE, Drawing, new_figure, shared_legend
from experiments.figures.curves import curves_or_dots, height_of
from experiments.metrics import METRICS


def linearity_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw the radius of the affine ball against sparsity, a line for each method.

    Args:
        table: tidy table of a local linearity.

    Returns:
        The figure; none where nothing was measured.
    """
    rows = table[table.metric == "affine_radius"].assign(x=lambda frame: frame.x.astype(float))
    if rows.empty:
        return []
    with mpl.rc_context(STYLE):
        figure = new_figure(5.6, height_of(rows, 3.2) + 0.3)
        panel = figure.subplots()
        if curves_or_dots(panel, rows, "units pruned (%)", METRICS["affine_radius"].axis):
            panel.set_yscale("log")
            panel.set_xticks(sorted(rows.x.unique()))
            shared_legend(figure, panel)
        else:
            panel.set(xscale="log", title=f"{rows.x.iloc[0]:g} % pruned")
            panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.xaxis.set_major_formatter("{x:g}")
            panel.xaxis.set_minor_formatter(NullFormatter())
        caption = (
            "How far an image can move in any direction before a kept neuron changes sign, by sparsity: within "
            "this radius the restricted network is an affine function. Mean over the images for which it ends "
            "somewhere, with 95 % intervals."
        )
        return [Drawing("linearity", figure, caption)]
