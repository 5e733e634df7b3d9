"""Figures of the saliency experiment: the pathway gradient over sparsities."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd

from cpath.viz.style import STYLE, Drawing, new_figure, shared_legend
from experiments.figures.curves import curves_or_dots, height_of
from experiments.metrics import METRICS


def saliency_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw how far the pathway gradient departs from the gradient as the network is pruned.

    Args:
        table: tidy table of the saliency experiment.

    Returns:
        The figure; none where there is no pathway but the whole network.
    """
    rows = table[table.metric == "similarity_to_gradient"].assign(x=lambda frame: frame.x.astype(float))
    if not (rows.x > 0).any():
        return []
    with mpl.rc_context(STYLE):
        figure = new_figure(5.2, height_of(rows, 2.9) + 0.3)
        panel = figure.subplots()
        if curves_or_dots(panel, rows, "units pruned (%)", METRICS["similarity_to_gradient"].axis):
            panel.set_ylim(None, 1.03)
            shared_legend(figure, panel)
        else:
            panel.set(xlim=(None, 1.03), title=f"{rows.x.iloc[0]:g} % pruned")
        caption = (
            "Similarity of the pathway gradient to the gradient of the whole network, as the network is pruned. "
            "With 95 % intervals over images."
        )
        return [Drawing("similarity_to_gradient", figure, caption)]
