"""Figures of ROAR and KAR."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpath.viz.style import (
    STYLE,
    Drawing,
    colour_of,
    in_order,
    label_of,
    marker_of,
    new_figure,
    shared_legend,
)
from experiments.engine.table import PseudoMethod
from experiments.figures.curves import beside_published, coinciding, curves_or_dots, height_of, spread
from experiments.figures.train import training_figures
from experiments.roar.curves import explained_networks

_Mode = tuple[str, str, str, str]
_MODES: tuple[_Mode, ...] = (
    ("roar", "ROAR: most relevant removed", "lower is better", "most relevant pixels removed (%)"),
    ("kar", "KAR: only most relevant kept", "higher is better", "most relevant pixels kept (%)"),
)
_ACCURACY = "test accuracy after retraining (%)"


def roar_cell_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw the training of one cell, by epoch.

    Args:
        table: tidy table of a ROAR cell.

    Returns:
        The figure; none where no epoch was measured.
    """
    renamed = dict.fromkeys(("roar_accuracy", "kar_accuracy", "untouched_accuracy"), "test_accuracy")
    return training_figures(table.replace({"metric": renamed}))


def roar_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw curves, areas, every method against every other, the agreement with KAR, and the published curves.

    Args:
        table: tidy table of a ROAR table.

    Returns:
        The figures; none where no cell was trained.
    """
    modes = [mode for mode in _MODES if f"{mode[0]}_accuracy" in set(table.metric)]
    if not modes:
        return []
    with mpl.rc_context(STYLE):
        return [
            _curves(table, modes),
            _areas(table, modes),
            *_comparisons(table, modes),
            *_agreement(table, modes),
            *_published(table),
        ]


def _at(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    return table[table.metric == metric].assign(x=lambda frame: frame.x.astype(float))


def _seeds(table: pd.DataFrame, rows: pd.DataFrame | pd.Series) -> str:
    """Words on what the means of rows are over."""
    networks = explained_networks(table)
    count = int(np.max(rows.n)) // networks
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    return f"{seeds} for each of {networks} explained networks" if networks > 1 else seeds


def _covered(table: pd.DataFrame) -> str:
    """Sentence on the repetitions that the intervals are over."""
    if explained_networks(table) > 1:
        return "95 % intervals over explained networks and seeds of the retraining together."
    return "95 % intervals over seeds of the retraining alone: one network is explained."


def _curves(table: pd.DataFrame, modes: list[_Mode]) -> Drawing:
    every = table[table.metric.isin([f"{mode[0]}_accuracy" for mode in modes])]
    figure = new_figure(1.4 + max(3.4 * len(modes), 4.4), height_of(every, 3.0) + 1.0)
    panels = figure.subplots(1, len(modes), squeeze=False, sharey=True)[0]
    base = table[(table.metric == "test_accuracy") & (table.method == PseudoMethod.BASE)].value
    # The means decide what is shown: intervals over two seeds are wider than 0 to 100 %.
    limits = (max(0, every.value.min() - 10), min(102, every.value.max() + 10))
    for panel, (mode, title, better, x_label) in zip(panels, modes, strict=True):
        rows = _at(table, f"{mode}_accuracy")
        curves = curves_or_dots(panel, rows, x_label, _ACCURACY if panel is panels[0] else "")
        untouched = {"color": "#3C3C3C", "linestyle": ":", "linewidth": 1, "label": "untouched images"}
        if curves:
            panel.set(xlim=(0, rows.x.max() * 1.03), ylim=limits, title=f"{title}\n({better})")
        else:
            panel.set(xlim=limits, title=f"{title}, {rows.x.iloc[0]:g} %\n({better})", xlabel=_ACCURACY)
        if len(base):
            (panel.axhline if curves else panel.axvline)(base.mean(), **untouched)
    shared_legend(figure, panels[0])
    rows = _at(table, f"{modes[0][0]}_accuracy")
    caption = (
        "Retraining on images whose pixels were replaced by the mean colour, in training, validation and test "
        f"images. Mean over {_seeds(table, rows)}" + (f"; bands: {_covered(table)}" if rows.n.max() > 1 else ".")
    )
    metrics = table[table.metric.isin([f"{mode[0]}_accuracy" for mode in modes])]
    return Drawing("roar", figure, caption + coinciding(metrics.assign(value=metrics.value / 100)))


def _areas(table: pd.DataFrame, modes: list[_Mode]) -> Drawing:
    methods = in_order(table[table.metric == f"{modes[0][0]}_area"].method)
    figure = new_figure(1.6 + 2.7 * len(modes), 1.3 + 0.26 * len(methods))
    panels = figure.subplots(1, len(modes), squeeze=False, sharey=True)[0]
    for panel, (mode, title, better, _) in zip(panels, modes, strict=True):
        rows = table[table.metric == f"{mode}_area"].set_index("method")
        for place, method in enumerate(methods):
            if method in rows.index:
                _dot(panel, rows.loc[method], place, colour_of(method), marker_of(method))
        panel.set(title=title, xlabel=f"mean accuracy, %  ({better})")
        panel.set_yticks(range(len(methods)), [label_of(method) for method in methods])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    rows = table[table.metric == f"{modes[0][0]}_area"]
    caption = (
        f"Area under the curves, as mean accuracy over the range up to {float(rows.x.iloc[0]):g} % of the pixels"
        + (
            f", with 95 % intervals over {_seeds(table, rows)}."
            if rows.n.max() > 1
            else " (one seed: no intervals)."
        )
    )
    return Drawing("areas", figure, caption)


def _dot(panel: Axes, row: pd.Series, place: float, colour: str, marker: str) -> None:
    panel.errorbar(row.value, place, xerr=spread(row), fmt=marker, color=colour, elinewidth=1)


def _comparisons(table: pd.DataFrame, modes: list[_Mode]) -> list[Drawing]:
    rows = table[table.metric.str.contains("_difference/")]
    if rows.empty:
        return []
    rows = rows.assign(other=rows.metric.str.split("/").str[1], mode=rows.metric.str.split("_").str[0])
    methods = in_order([*rows.method, *rows.other])
    side = 0.5 * len(methods)
    figure = new_figure(1.9 + (side + 0.5) * len(modes), 1.7 + side)
    panels = figure.subplots(1, len(modes), squeeze=False, sharey=True)[0]
    limit = max(rows.value.abs().max(), 1e-9)
    for panel, mode in zip(panels, modes, strict=True):
        image = _matrix(panel, rows[rows["mode"] == mode[0]], methods, limit, -1 if mode[0] == "roar" else 1)
        panel.set_title(mode[1])
    _colour_bar(figure, image, panels)
    caption = (
        "Every method (row) against every other (column): by how many percentage points of accuracy it is better, "
        "that is lower in ROAR and higher in KAR; mean over the shares, paired by seed "
        f"({_seeds(table, rows)}"
        + (
            "). Positive and blue: the method of the row is better. Bold: the 95 % interval of the difference "
            "excludes zero, not corrected for the number of pairs."
            if rows.n.max() > 1
            else ": no intervals). Positive and blue: the method of the row is better."
        )
    )
    return [Drawing("paired", figure, caption)]


def _matrix(panel: Axes, rows: pd.DataFrame, methods: list[str], limit: float, sign: int) -> object:
    """Draw numbers and colours that say by how much the row is better: ``sign`` is −1 where a lower value is."""
    values = np.full((len(methods), len(methods)), np.nan)
    for row in rows.itertuples():
        i, j = methods.index(row.method), methods.index(row.other)
        certain = row.ci_low > 0 or row.ci_high < 0
        better = sign * row.value + 0.0  # no minus before a zero
        for place, value in (((i, j), better), ((j, i), 0.0 - better)):
            values[place] = value
            dark = abs(value) > 0.6 * limit
            panel.text(
                place[1],
                place[0],
                f"{value:+.1f}",
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "#202020",
                fontweight="bold" if certain else "normal",
            )
    image = panel.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
    names = [label_of(method) for method in methods]
    panel.set_xticks(range(len(methods)), names, rotation=60, ha="right", rotation_mode="anchor")
    panel.set_yticks(range(len(methods)), names)
    panel.grid(False)
    return image


def _colour_bar(figure: Figure, image: object, panels: np.ndarray) -> None:
    bar = figure.colorbar(image, ax=list(panels), shrink=0.6, pad=0.02)
    bar.set_label("row better by (points)")
    bar.outline.set_visible(False)


def _agreement(table: pd.DataFrame, modes: list[_Mode]) -> list[Drawing]:
    tau = table[table.metric == "roar_rank_agreement/roar/kar"]
    if tau.empty or len(modes) < 2:
        return []
    areas = {mode[0]: table[table.metric == f"{mode[0]}_area"].set_index("method") for mode in modes}
    figure = new_figure(5.6, 3.4)
    panel = figure.subplots()
    for method in in_order(areas["roar"].index):
        removed, kept = areas["roar"].loc[method], areas["kar"].loc[method]
        panel.errorbar(
            removed.value,
            kept.value,
            xerr=spread(removed),
            yerr=spread(kept),
            fmt=marker_of(method),
            color=colour_of(method),
            label=label_of(method),
            elinewidth=0.8,
        )
    panel.invert_xaxis()
    panel.set(xlabel="ROAR: mean accuracy, % (better →)", ylabel="KAR: mean accuracy, % (better ↑)")
    figure.legend(loc="outside right upper")
    row = tau.iloc[0]
    caption = (
        "Whether both criteria put the methods into the same order, the best at the upper right: Kendall's τ, "
        f"without the controls, {_tau(row, table)}; 1: the same order, 0: unrelated, −1: the reverse."
    )
    return [Drawing("rank_agreement", figure, caption)]


def _tau(row: pd.Series, table: pd.DataFrame) -> str:
    interval = "" if pd.isna(row.ci_low) else f", 95 % interval {row.ci_low:.2f} to {row.ci_high:.2f}"
    return f"{row.value:.2f} (mean over {_seeds(table, row)}{interval})" if row.n > 1 else f"{row.value:.2f}"


def _published(table: pd.DataFrame) -> list[Drawing]:
    paper = _at(table, "roar_accuracy/published")
    ours = _at(table, "roar_accuracy")
    figure = beside_published(ours, paper, "most relevant pixels removed (%)", "test accuracy (%)")
    if figure is None:
        return []
    caption = "ROAR curves beside the published ones (dashed), method by method."
    tau = table[table.metric == "roar_rank_agreement/roar/published"]
    if len(tau):
        caption += f" Kendall's τ between the orders of the methods, by area: {_tau(tau.iloc[0], table)}."
    return [Drawing("published", figure, caption)]
