"""Figure of the local linearity of restricted networks."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd

from cpath.viz.style import STYLE, Drawing, in_order, new_figure, shared_legend
from experiments.figures.curves import curve
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
        figure = new_figure(5.6, 3.4)
        panel = figure.subplots()
        for method in in_order(rows.method):
            curve(panel, rows[rows.method == method].sort_values("x"), method)
        panel.set(xlabel="units pruned (%)", ylabel=METRICS["affine_radius"].axis, yscale="log")
        panel.set_xticks(sorted(rows.x.unique()))
        shared_legend(figure, panel)
        caption = (
            "How far an image can move in any direction before a kept neuron changes sign, by sparsity: within "
            "this radius the restricted network is an affine function. Mean over the images for which it ends "
            "somewhere; bands: 95 % intervals."
        )
        return [Drawing("linearity", figure, caption)]
