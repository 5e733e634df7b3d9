"""Figures of a benchmark."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd
from matplotlib.axis import Axis
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from cpath.viz.style import STYLE, Drawing, colour_of, label_of, marker_of, new_figure, shared_legend
from experiments.figures.curves import spread
from experiments.metrics import METRICS

_TEXT = 9  # points: legible at the smallest size that a report shows a figure in
_RIVALS = {
    "floor": ("the passes it must contain", "#0072B2", "o"),
    "captum": ("Captum", "#009E73", "D"),
    "naive": ("a naive loop", "#CC79A7", "^"),
}
_SCALES = {"images": "images at a time", "sites": "sites", "pathways": "pathways"}


def benchmark_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw the ratios of a benchmark, and the growth of its times.

    Args:
        table: tidy table of a benchmark.

    Returns:
        The ratios of the times beside the limits that cpath sets itself, and the times over what grows.
    """
    ratios = table[table.metric.str.startswith("ratio_to_")]
    if ratios.empty:
        return []
    with mpl.rc_context(STYLE):
        return [*_ratios(table, ratios[~ratios.x_name.isin(list(_SCALES))]), *_scaling(table, ratios)]


def _ratios(table: pd.DataFrame, ratios: pd.DataFrame) -> list[Drawing]:
    names = [f"{row.method} / {row.x}" for row in ratios.itertuples()]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    if not places:
        return []
    figure = new_figure(7.4, 1.6 + 0.36 * len(places))
    panel = figure.subplots()
    for kind, (label, colour, marker) in _RIVALS.items():
        rows = ratios[ratios.metric == f"ratio_to_{kind}"]
        at = [places[f"{row.method} / {row.x}"] for row in rows.itertuples()]
        if not at:
            continue
        panel.errorbar(rows.value, at, xerr=spread(rows), fmt=marker, color=colour, elinewidth=1, label=label)
        for value, place in zip(rows.value, at, strict=True):
            panel.annotate(
                f"{value:.2f}",
                (value, place),
                (0, 3 if kind != "naive" else -3),
                textcoords="offset points",
                ha="center",
                va="bottom" if kind != "naive" else "top",
                fontsize=_TEXT,
                zorder=4,
                path_effects=[withStroke(linewidth=2.5, foreground="w")],
            )
    panel.set_xscale("log")
    _plain_numbers(panel.xaxis)
    for number, row in enumerate(table[table.metric.str.startswith("limit_to_")].itertuples()):
        place = places[f"{row.method} / {row.x}"]
        label = "_listed" if number else "limit that cpath sets itself"
        panel.plot([row.value] * 2, [place - 0.25, place + 0.25], color="#D55E00", linewidth=2, label=label)
    panel.plot([], [], color="#8A8A8A", linewidth=1, label="least to largest ratio of a round")
    panel.axvline(1, color="#3C3C3C", linewidth=0.8, linestyle=":", label="the same time")
    panel.set_yticks(range(len(places)), list(places))
    panel.set_ylim(len(places) - 0.4, -0.7)
    panel.set(xlabel="time / time of what it is compared with")
    shared_legend(figure, panel)
    caption = (
        "Median times as ratios within one run, with the least and the largest ratio of a round. Left of 1: faster "
        "than what it is compared with."
    )
    return [Drawing("ratios", figure, caption)]


def _plain_numbers(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))


def _scaling(table: pd.DataFrame, ratios: pd.DataFrame) -> list[Drawing]:
    scales = [name for name in _SCALES if (ratios.x_name == name).any()]
    if not scales:
        return []
    figure = new_figure(0.8 + 3.2 * len(scales), 3.8)
    panels = figure.subplots(1, len(scales), squeeze=False)[0]
    for panel, name in zip(panels, scales, strict=True):
        rows = table[(table.x_name == name) & (table.metric == "seconds")].assign(x=lambda t: t.x.astype(float))
        floor = ~rows.method.isin(ratios.method)
        for method, line in rows[~floor].groupby("method", sort=False):
            line = line.sort_values("x")
            of = method.partition(",")[0]
            look = {"color": colour_of(of), "marker": marker_of(of), "label": label_of(of)}
            panel.plot(line.x, line.value, **look)
        passes = rows[floor].drop_duplicates("x").sort_values("x")
        panel.plot(passes.x, passes.value, ".--", color="#3C3C3C", label="bare pass")
        what = dict.fromkeys(method.partition(", ")[2] for method in rows[~floor].method)
        panel.set(xlabel=_SCALES[name], title=", ".join(what), xscale="log", yscale="log")
        panel.set_xticks(passes.x, [f"{x:g}" for x in passes.x])
        panel.xaxis.set_minor_locator(NullLocator())
        _plain_numbers(panel.yaxis)
        panel.legend(fontsize=_TEXT, loc="upper left")
    panels[0].set_ylabel(METRICS["seconds"].axis)
    caption = (
        "How the median time grows, both axes logarithmic; dashed: a forward and input-only backward pass of the "
        "same images alone."
    )
    return [Drawing("scaling", figure, caption)]
