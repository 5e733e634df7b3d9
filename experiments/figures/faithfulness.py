"""Figures of faithfulness: curves over the share of units, and one number for each method."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from cpath.viz.style import STYLE, Drawing, colour_of, in_order, label_of, marker_of, new_figure, shared_legend
from experiments.figures.curves import curve, spread
from experiments.metrics import METRICS

_REFERENCE = {"color": "#3C3C3C", "linewidth": 0.8, "zorder": 1}
_HIGHEST, _LOWEST = 2.5, -1.0
_LARGE = 2.0  # mean distances from 1 that are larger share the rest of an axis

_CURVES = (
    ("sufficiency", "Sufficiency: the best units alone"),
    ("necessity", "Necessity: lost without the best units"),
)
_NUMBERS = (("cmd", "Sufficiency"), ("necessity_cmd", "Necessity"))


def faithfulness_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw sufficiency and necessity over the share of units, and their mean distances from 1.

    Args:
        table: tidy table of a faithfulness.

    Returns:
        Both figures; none where nothing was measured.
    """
    at = table[(table.x_name == "keep") & table.value.notna()].assign(x=lambda frame: frame.x.astype(float))
    if at.empty:
        return []
    with mpl.rc_context(STYLE):
        return [_curves(at), *_numbers(table)]


def _curves(at: pd.DataFrame) -> Drawing:
    figure = new_figure(8.6, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    leaves: set[str] = set()
    for panel, (metric, title) in zip(panels, _CURVES, strict=True):
        rows = at[at.metric == metric]
        for height in (0, 1):
            panel.axhline(height, **_REFERENCE)
        for method in in_order(rows.method):
            line = rows[rows.method == method].sort_values("x")
            curve(panel, line, method)
            if not line.value.between(_LOWEST, _HIGHEST).all():
                leaves.add(method)
        panel.set(title=title, xlabel="best units (% of all)", xscale="log")
        _mark_sizes(panel, sorted(rows.x.unique()))
    inside = at[at.metric.isin([metric for metric, _ in _CURVES])].value.clip(_LOWEST, _HIGHEST)
    panels[0].set(ylabel="part of the answer", ylim=(min(-0.1, inside.min() - 0.1), max(1.15, inside.max() + 0.1)))
    shared_legend(figure, panels[0])
    caption = (
        "Left: what the units with the highest scores recover of the network's answer when all others are at "
        "their baseline. Right: what is lost of it when they are. 1 is the whole answer, 0 that of the empty "
        "network. Mean over inputs; bands: 95 % intervals."
    )
    if leaves:
        caption += f" Beyond the range that is shown: {', '.join(map(label_of, in_order(leaves)))}."
    return Drawing("faithfulness", figure, caption)


def _mark_sizes(panel: Axes, sizes: list[float]) -> None:
    panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
    panel.minorticks_off()


def _numbers(table: pd.DataFrame) -> list[Drawing]:
    rows = table[table.metric.isin([metric for metric, _ in _NUMBERS]) & table.value.notna()]
    methods = in_order(rows.method)
    if not methods:
        return []
    figure = new_figure(8.6, 1.3 + 0.27 * len(methods))
    panels = figure.subplots(1, 2, sharey=True)
    for panel, (metric, title) in zip(panels, _NUMBERS, strict=True):
        here = rows[rows.metric == metric].set_index("method").reindex(methods)
        for place, (method, row) in enumerate(here.iterrows()):
            look = {"fmt": marker_of(str(method)), "color": colour_of(str(method)), "elinewidth": 1}
            panel.errorbar(row.value, place, xerr=spread(row), **look)
        panel.axvline(1, **_REFERENCE)
        panel.set(title=title, xlabel=METRICS[metric].label)
        largest = float(np.nanmax(here[["value", "ci_high"]].to_numpy(dtype=float)))
        if largest > _LARGE:
            panel.set_xscale("symlog", linthresh=_LARGE)
            ticks = [0, 0.5, 1, 1.5, *(tick for tick in (2, 5, 10, 20, 50, 100, 1000) if tick <= largest)]
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.minorticks_off()
        else:
            panel.xaxis.set_major_locator(MultipleLocator(0.5))
        panel.set_xlim(0, max(1.1, 1.08 * largest))
    panels[0].set_yticks(range(len(methods)), [label_of(method) for method in methods])
    panels[0].invert_yaxis()
    caption = (
        "One number for each method: the mean distance of its curve from 1 over the sizes, with 95 % intervals "
        "over inputs. 0 is an answer that is there, or gone, at every size; 1 (line) is what units without a part "
        "in it give; more than 1 is an answer that overshoots or turns round."
    )
    if "active" in methods:
        caption += " The active subnetwork is one set of units, larger than most sizes, and no rank."
    return [Drawing("faithfulness_numbers", figure, caption)]
