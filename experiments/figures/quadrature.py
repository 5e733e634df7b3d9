"""Figure of the node rules of `neuron_intgrad`."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd

from cpath.viz.style import SHARES, STYLE, Drawing, new_figure, shared_legend
from experiments.figures.curves import spread
from experiments.metrics import METRICS


def quadrature_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw the completeness residual and the overlap with the reference, a row for each rule.

    Args:
        table: tidy table of a comparison of node rules.

    Returns:
        The figure; none where nothing was measured.
    """
    residual = table[table.metric == "residual"].set_index("method")
    overlap = table[table.metric == "jaccard_with_reference"]
    if residual.empty:
        return []
    rules = residual.index.tolist()
    with mpl.rc_context(STYLE):
        figure = new_figure(7.0, 1.6 + 0.3 * len(rules))
        left, right = figure.subplots(1, 2, sharey=True)
        left.errorbar(residual.value, range(len(rules)), xerr=spread(residual), fmt="o", color="#0072B2")
        left.set(xscale="log", xlabel=METRICS["residual"].axis)
        left.set_yticks(range(len(rules)), rules)
        left.invert_yaxis()
        sparsities = overlap.x.unique()
        for number, sparsity in enumerate(sparsities, 1):
            part = overlap[overlap.x == sparsity].set_index("method").reindex(rules)
            shade = SHARES(0.25 + 0.75 * number / len(sparsities))
            right.plot(
                part.value, range(len(rules)), "o", color=shade, label=f"{sparsity.removesuffix('.0')} % pruned"
            )
        right.set(xlabel=METRICS["jaccard_with_reference"].axis, xlim=(None, 1.01))
        shared_legend(figure, right)
        caption = (
            "Node rules of NeuronIntGrad: mean completeness residual (left, with 95 % intervals over images) and "
            "overlap of the pathway with that of the finest rule (right)."
        )
        return [Drawing("quadrature", figure, caption)]
