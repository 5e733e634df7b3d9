"""Figures of the saliency experiment: the pathway gradient over sparsities."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd

from cpath.viz.style import STYLE, Drawing, in_order, new_figure, shared_legend
from experiments.figures.curves import curve
from experiments.metrics import METRICS


def saliency_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw how far the pathway gradient departs from the gradient as the network is pruned.

    Args:
        table: tidy table of the saliency experiment.

    Returns:
        The figure; none for fewer than two sparsities.
    """
    rows = table[table.metric == "similarity_to_gradient"].assign(x=lambda frame: frame.x.astype(float))
    if rows.empty or rows.x.nunique() < 2:
        return []
    with mpl.rc_context(STYLE):
        figure = new_figure(4.6, 3.0)
        panel = figure.subplots()
        for method in in_order(rows.method):
            curve(panel, rows[rows.method == method].sort_values("x"), method)
        panel.set(xlabel="units pruned (%)", ylabel=METRICS["similarity_to_gradient"].axis, ylim=(None, 1.03))
        shared_legend(figure, panel)
        caption = (
            "Similarity of the pathway gradient to the gradient of the whole network, as the network is pruned. "
            "Bands: 95 % intervals over images."
        )
        return [Drawing("similarity_to_gradient", figure, caption)]
