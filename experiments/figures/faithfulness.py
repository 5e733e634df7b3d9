"""Figures of faithfulness: curves over the share of units, and one number for each method."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cpath.viz.faithfulness import HIGHEST, LOWEST, REFERENCE, mark_distances
from cpath.viz.style import STYLE, Drawing, colour_of, in_order, label_of, marker_of, new_figure, shared_legend
from experiments.figures.curves import curve, spread
from experiments.metrics import METRICS

_CURVES = (
    ("sufficiency", "Sufficiency: the best units alone"),
    ("necessity", "Necessity: lost without the best units"),
)
_CONTROLS = {
    "transfer": ("Transfer", "CMD of the same units on copies", "nothing is lost"),
    "other_answer": ("Another answer", "CMD for the runner-up", "says anything as easily"),
}
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
        return [_curves(at), *_numbers(table), *_controls(table)]


def _curves(at: pd.DataFrame) -> Drawing:
    figure = new_figure(8.6, 4.2)
    panels = figure.subplots(1, 2, sharey=True)
    leaves: set[str] = set()
    for panel, (metric, title) in zip(panels, _CURVES, strict=True):
        rows = at[at.metric == metric]
        for height in (0, 1):
            panel.axhline(height, **REFERENCE)
        for method in in_order(rows.method):
            line = rows[rows.method == method].sort_values("x")
            curve(panel, line, method)
            if not line.value.between(LOWEST, HIGHEST).all():
                leaves.add(method)
        panel.set(title=title, xlabel="best units (% of all)", xscale="log")
        _mark_sizes(panel, sorted(rows.x.unique()))
    inside = at[at.metric.isin([metric for metric, _ in _CURVES])].value.clip(LOWEST, HIGHEST)
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
        panel.axvline(1, **REFERENCE)
        panel.set(title=title, xlabel=METRICS[metric].label)
        mark_distances(panel, "x", float(np.nanmax(here[["value", "ci_high"]].to_numpy(dtype=float))))
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


def _controls(table: pd.DataFrame) -> list[Drawing]:
    """Own CMD against that of each control, a point for each method."""
    present = [control for control in _CONTROLS if f"cmd_rise/{control}" in set(table.metric)]
    rows = table[table.value.notna()].set_index(["method", "metric"])
    if not present or rows.empty:
        return []
    figure = new_figure(1.0 + 3.8 * len(present), 4.3)
    panels = figure.subplots(1, len(present), squeeze=False)[0]
    for panel, control in zip(panels, present, strict=True):
        title, label, on_the_line = _CONTROLS[control]
        methods = [m for m in in_order({m for m, _ in rows.index}) if (m, f"cmd_rise/{control}") in rows.index]
        across = down = 0.0
        for method in methods:
            there = rows.loc[(method, f"cmd/{control}")]
            own = there.value - rows.loc[(method, f"cmd_rise/{control}")].value  # on the same inputs
            look = {"fmt": marker_of(method), "color": colour_of(method), "elinewidth": 1, "markersize": 6}
            panel.errorbar(own, there.value, yerr=spread(there), label=label_of(method), **look)
            across, down = max(across, own), float(np.nanmax([down, there.value, there.ci_high]))
        mark_distances(panel, "x", across)
        mark_distances(panel, "y", down)
        same = np.linspace(0, 1.2 * max(1, across, down), 200)  # a line that bends where an axis is logarithmic
        panel.plot(same, same, scalex=False, scaley=False, **REFERENCE)
        turned = {"rotation": 45, "rotation_mode": "anchor", "transform_rotates_text": True}
        panel.text(0.3, 0.27, on_the_line, va="top", color=REFERENCE["color"], fontsize=8, **turned)
        panel.set(title=title, xlabel="CMD on the input", ylabel=label)
    shared_legend(figure, panels[0])
    caption = (
        "What a set of units proves, one point a method. Across: CMD of the best units on the input that they were "
        "found for (0: they answer as the whole network). Transfer: the same units on copies of it; on the line, "
        "nothing is lost. Another answer: the method asked for the runner-up; a point low in this panel makes the "
        "network say what it does not say, on the line as easily as what it does say. A method that finds the "
        "network's own reasons is on the left, on the line of the first panel and high in the second. Mean over "
        "inputs; bars: 95 % intervals."
    )
    return [Drawing("faithfulness_controls", figure, caption)]
