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
from experiments.figures.curves import beside_published, coinciding, curves_or_dots, height_of, spread
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


def _panel(panel: Axes, rows: pd.DataFrame, up_to: float, y_label: str) -> bool:
    """Draw the change up to a share of the pixels; True if curves are drawn."""
    rows = rows[rows.x <= up_to]
    if curves_or_dots(panel, rows, "pixels removed (%)", y_label):
        panel.set(xlim=(0, up_to * 1.03), ylim=(0, None))
        return True
    panel.set_xlim(0, None)
    panel.set_xlabel(f"{y_label}, {up_to:.10g} % removed")
    return False


def _curves(at: pd.DataFrame) -> list[Drawing]:
    orders = _orders(at, "_change")
    last = at.x.max()
    ranges = [_FIRST, last] if at.x.min() < _FIRST < last else [last]
    figure = new_figure(1.2 + max(3.1 * len(ranges), 4.2), 1.0 + height_of(at, 2.6) * len(orders))
    panels = figure.subplots(len(orders), len(ranges), squeeze=False)
    legend = False
    for row, (order, title, better) in enumerate(orders):
        for column, up_to in enumerate(ranges):
            panel, rows = panels[row, column], at[at.metric == f"{order}_change"]
            legend |= _panel(panel, rows, up_to, f"{METRICS['lerf_change'].axis}  ({better})")
            if column > 0:
                panel.set_ylabel("")
            if row < len(orders) - 1 and legend:
                panel.set_xlabel("")
            panel.set_title(title if len(ranges) == 1 or up_to == _FIRST else f"… up to {up_to:.10g} %")
    if legend:
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
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    shared_legend(figure, panels[0])
    caption = "Area under the curves, as mean change over the range, with 95 % intervals over images."
    return [Drawing("areas", figure, caption)]


def _road(at: pd.DataFrame) -> list[Drawing]:
    orders = _orders(at, "_change_road")
    if not orders:
        return []
    road = at[at.metric.str.endswith("_change_road")]
    single = road.x.nunique() == 1
    figure = new_figure(1.4 + max(3.5 * len(orders), 4.2), height_of(road, 2.8) + 0.8)
    panels = figure.subplots(1, len(orders), squeeze=False, sharey=single)[0]
    legend = False
    for panel, (order, title, better) in zip(panels, orders, strict=True):
        rows = at[at.metric == f"{order}_change_road"]
        legend |= _panel(panel, rows, rows.x.max(), f"{METRICS['lerf_change'].axis}  ({better})")
        panel.set_title(title)
    if legend:
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
    panel.set_ylim(len(pairs) - 0.5, -0.5)
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
