"""Figures of input degradation."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cpath.viz.style import (
    STYLE,
    Drawing,
    colour_of,
    criterion_label,
    in_order,
    label_of,
    new_figure,
    shared_legend,
)
from experiments.figures.curves import beside_published, coinciding, curve, spread
from experiments.metrics import METRICS

_FIRST = 10.0  # per cent: the range of the paper's figure
_ORDERS = (
    ("lerf", "LeRF: least relevant first", "lower is better"),
    ("morf", "MoRF: most relevant first", "higher is better"),
)


def degradation_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw the curves of both orders, the areas under them, and how far the criteria agree.

    Args:
        table: tidy table of the degradation.

    Returns:
        Those figures that the table has numbers for: curves, areas, curves of the other fill, rank agreement, and
        the published curves beside ours.
    """
    at = table[table.x_name == "percent_removed"].assign(x=lambda frame: frame.x.astype(float))
    if at.empty:
        return []
    with mpl.rc_context(STYLE):
        return [*_curves(at), *_areas(table), *_road(at), *_agreement(table), *_published(at)]


def _orders(at: pd.DataFrame, suffix: str) -> list[tuple[str, str, str]]:
    return [order for order in _ORDERS if f"{order[0]}{suffix}" in set(at.metric)]


def _panel(panel: Axes, rows: pd.DataFrame, up_to: float) -> None:
    rows = rows[rows.x <= up_to]
    for method in in_order(rows.method):
        curve(panel, rows[rows.method == method].sort_values("x"), method)
    panel.set(xlim=(0, up_to * 1.03), ylim=(0, None))


def _curves(at: pd.DataFrame) -> list[Drawing]:
    orders = _orders(at, "_change")
    last = at.x.max()
    ranges = [_FIRST, last] if at.x.min() < _FIRST < last else [last]
    figure = new_figure(1.2 + 3.1 * len(ranges), 1.0 + 2.6 * len(orders))
    panels = figure.subplots(len(orders), len(ranges), squeeze=False)
    for line, (order, title, better) in zip(panels, orders, strict=True):
        for panel, up_to in zip(line, ranges, strict=True):
            _panel(panel, at[at.metric == f"{order}_change"], up_to)
            panel.set_title(title if len(ranges) == 1 or up_to == _FIRST else f"… up to {up_to:.10g} %")
        line[0].set_ylabel(f"{METRICS['lerf_change'].axis}  ({better})")
    for panel in panels[-1]:
        panel.set_xlabel("pixels removed (%)")
    shared_legend(figure, panels[0, 0])
    caption = (
        "Input degradation: change of the probability of the predicted class when pixels are set to the mean "
        "colour, the least relevant first (LeRF: a good attribution stays low) or the most relevant first (MoRF: a "
        "good one rises at once). Mean over images; bands: 95 % intervals."
        + coinciding(at[at.metric.str.endswith("_change")])
    )
    return [Drawing("degradation", figure, caption)]


def _areas(table: pd.DataFrame) -> list[Drawing]:
    rows = table[table.x_name == "up_to_percent"].assign(x=lambda frame: frame.x.astype(float))
    orders = _orders(rows, "_area")
    if not orders:
        return []
    methods = in_order(rows[rows.metric == f"{orders[0][0]}_area"].method)
    figure = new_figure(1.6 + 2.7 * len(orders), 1.2 + 0.26 * len(methods))
    panels = figure.subplots(1, len(orders), squeeze=False, sharey=True)[0]
    for panel, (order, title, better) in zip(panels, orders, strict=True):
        part = rows[rows.metric == f"{order}_area"]
        for shift, up_to in zip((-0.15, 0.15), sorted(part.x.unique()), strict=False):
            here = part[part.x == up_to].set_index("method").reindex(methods)
            filled = up_to == part.x.max()
            for place, (method, row) in enumerate(here.iterrows()):
                panel.errorbar(
                    row.value,
                    place + shift,
                    xerr=spread(row),
                    fmt="o" if filled else "D",
                    color=colour_of(str(method)),
                    markerfacecolor=colour_of(str(method)) if filled else "white",
                    elinewidth=1,
                )
            panel.plot(
                [],
                [],
                "o" if filled else "D",
                color="#3C3C3C",
                markerfacecolor="#3C3C3C" if filled else "white",
                label=f"up to {up_to:.10g} % of the pixels",
            )
        panel.set(title=title, xlabel=f"mean change  ({better})", xlim=(0, None))
        panel.set_yticks(range(len(methods)), [label_of(method) for method in methods])
    panels[0].invert_yaxis()
    shared_legend(figure, panels[0])
    caption = "Area under the curves, as mean change over the range, with 95 % intervals over images."
    return [Drawing("areas", figure, caption)]


def _road(at: pd.DataFrame) -> list[Drawing]:
    orders = _orders(at, "_change_road")
    if not orders:
        return []
    figure = new_figure(1.2 + 3.1 * len(orders), 3.6)
    panels = figure.subplots(1, len(orders), squeeze=False)[0]
    for panel, (order, title, better) in zip(panels, orders, strict=True):
        rows = at[at.metric == f"{order}_change_road"]
        _panel(panel, rows, rows.x.max())
        panel.set(title=title, xlabel="pixels removed (%)", ylabel=f"{METRICS['lerf_change'].axis}  ({better})")
    shared_legend(figure, panels[0])
    count = int(at[at.metric == f"{orders[0][0]}_change_road"].n.max())
    caption = (
        f"The same with noisy linear imputation (ROAD) as fill, which hides the shape of what was removed; {count} "
        "images."
    )
    return [Drawing("degradation_road", figure, caption)]


def _agreement(table: pd.DataFrame) -> list[Drawing]:
    rows = table[table.metric.str.startswith("rank_agreement/")].assign(x=lambda frame: frame.x.astype(float))
    if rows.empty:
        return []
    pairs = list(dict.fromkeys(rows.metric))
    figure = new_figure(6.2, 1.2 + 0.34 * len(pairs))
    panel = figure.subplots()
    ranges = sorted(rows.x.unique())
    for shift, up_to, filled in zip((-0.13, 0.13), ranges[-2:], (len(ranges) == 1, True), strict=False):
        here = rows[rows.x == up_to].set_index("metric").reindex(pairs)
        panel.errorbar(
            here.value,
            np.arange(len(pairs)) + shift,
            xerr=spread(here),
            fmt="o" if filled else "D",
            color="#0072B2",
            markerfacecolor="#0072B2" if filled else "white",
            elinewidth=1,
            label=f"up to {up_to:.10g} % of the pixels",
        )
    panel.set_yticks(range(len(pairs)), [" and ".join(map(criterion_label, pair.split("/")[1:])) for pair in pairs])
    panel.invert_yaxis()
    panel.axvline(0, color="#3C3C3C", linewidth=0.8)
    panel.set(xlim=(-1.04, 1.04), xlabel="Kendall's τ between the orders of the methods")
    shared_legend(figure, panel)
    caption = (
        "Whether two criteria put the methods, without the controls, into the same order (1: the same, 0: "
        "unrelated, −1: the reverse), with 95 % intervals over images."
    )
    return [Drawing("rank_agreement", figure, caption)]


def _published(at: pd.DataFrame) -> list[Drawing]:
    paper = at[at.metric == "lerf_change/published"]
    ours = at[at.metric == "lerf_change"]
    figure = beside_published(ours, paper, "least relevant pixels removed (%)", METRICS["lerf_change"].axis)
    if figure is None:
        return []
    caption = "LeRF curves beside the published ones (dashed), method by method. Bands: 95 % intervals over images."
    return [Drawing("published", figure, caption)]
