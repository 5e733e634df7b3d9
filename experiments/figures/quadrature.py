"""Figure of the node rules of `neuron_intgrad`."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd

from cpath.viz.style import STYLE, Drawing, new_figure
from experiments.figures.curves import spread


def quadrature_figures(table: pd.DataFrame) -> list[Drawing]:
    """Completeness residual and overlap with the reference, a row a rule."""
    residual = table[table.metric == "residual"].set_index("method")
    overlap = table[table.metric == "jaccard_with_reference"]
    if residual.empty:
        return []
    rules = residual.index.tolist()
    with mpl.rc_context(STYLE):
        figure = new_figure(7.0, 1.3 + 0.3 * len(rules))
        left, right = figure.subplots(1, 2, sharey=True)
        left.errorbar(residual.value, range(len(rules)), xerr=spread(residual), fmt="o", color="#0072B2")
        left.set(xscale="log", xlabel="relative completeness residual")
        left.set_yticks(range(len(rules)), rules)
        left.invert_yaxis()
        for shade, (sparsity, part) in zip(
            ("#9ECAE1", "#4292C6", "#08306B", "#D55E00"), overlap.groupby("x", sort=False), strict=False
        ):
            part = part.set_index("method").reindex(rules)
            right.plot(part.value, range(len(rules)), "o", color=shade, label=f"{float(sparsity):g} % pruned")
        right.set(xlabel="Jaccard index with the reference", xlim=(None, 1.01))
        right.legend(loc="lower left", fontsize=7.5)
        caption = (
            "Node rules of NeuronIntGrad: mean completeness residual (left, with 95 % intervals over images) and "
            "overlap of the pathway with that of the finest rule (right)."
        )
        return [Drawing("quadrature", figure, caption)]
