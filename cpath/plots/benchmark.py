"""Figure of a benchmark."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd

from cpath.plots.style import STYLE, Drawing, new_figure


def benchmark_figures(table: pd.DataFrame) -> list[Drawing]:
    """Ratios to what each part is compared with, beside the ratio that it is meant to keep to."""
    ratios = table[table.metric == "ratio"]
    if ratios.empty:
        return []
    limits = table[table.metric == "limit"].set_index(["method", "x"]).value
    with mpl.rc_context(STYLE):
        figure = new_figure(7.0, 0.9 + 0.36 * len(ratios))
        panel = figure.subplots()
        names = [f"{row.method} / {row.x}" for row in ratios.itertuples()]
        panel.barh(names, ratios.value, color="#0072B2", height=0.6)
        for place, row in enumerate(ratios.itertuples()):
            panel.text(row.value, place, f" {row.value:.2f}", va="center", fontsize=8)
            limit = limits.get((row.method, row.x))
            if limit is not None:
                panel.plot([limit, limit], [place - 0.4, place + 0.4], color="#D55E00", linewidth=2)
        panel.invert_yaxis()
        panel.margins(x=0.12)
        panel.set(xlabel="time / time of what it is compared with")
        caption = "Median times, as ratios within one run; the orange marks are the limits that cpath sets itself."
        return [Drawing("ratios", figure, caption)]
