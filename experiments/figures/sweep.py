"""Figures of a sweep: every measure against what was swept, one line a method."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes

from cpath.viz.style import STYLE, Drawing, colour_of, in_order, label_of, marker_of, new_figure, shared_legend
from experiments.engine.metric_entry import Metric, axis_label
from experiments.figures.curves import curves_or_dots, height_of, spread

_PLACES = {
    "sparsity": "units pruned (%)",
    "percent_removed": "pixels removed (%)",
    "percent_kept": "pixels kept (%)",
    "up_to_percent": "up to this share of the pixels (%)",  # removed, or kept
}
_WHOLE_RANGE = ("dead_share", "class_kept")
_LAST = ("realised_sparsity",)
_MOST = 12  # panels in one figure


def sweep_figures(table: pd.DataFrame, metrics: Mapping[str, Metric]) -> list[Drawing]:
    """Draw the results of a sweep.

    Args:
        table: tidy, with the further columns ``variant`` and ``over`` (seeds, images or rounds).
        metrics: entries of the metrics by name.

    Returns:
        A figure for every experiment, dataset, model, variant and x, and one for numbers without a numeric x.
    """
    rows = table[~table.metric.str.contains("/") & table.value.notna()]
    if rows.empty:
        return []
    place = pd.to_numeric(rows.x, errors="coerce")
    numeric, others = rows[place.notna()].assign(x=place[place.notna()]), rows[rows.x == ""]
    drawings: list[Drawing] = []
    with mpl.rc_context(STYLE):
        for key, part in numeric.groupby(["experiment", "dataset", "model", "variant", "x_name"], sort=False):
            drawings.append(_against_x(part, [str(name) for name in key], metrics))
        for key, part in others.groupby(["experiment"], sort=False):
            drawings.append(_without_x(part, str(key[0]), metrics))
    return drawings


def _against_x(rows: pd.DataFrame, key: list[str], entries: Mapping[str, Metric]) -> Drawing:
    (metrics, left_out), methods = _metrics(rows, entries), in_order(rows.method)
    down, across = _grid(len(metrics))
    figure = new_figure(max(4.2, 0.8 + 2.9 * across), 0.7 + height_of(rows, 2.5) * down + 0.25)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    curves = False
    for panel, metric in zip(panels, metrics, strict=False):
        here = rows[rows.metric == metric].sort_values("x")
        limits, places = _limits(here, metric, entries), sorted(here.x.unique())
        if curves_or_dots(panel, here, _place_label(key[-1]), axis_label(metric, entries)):
            curves = True
            panel.set_ylim(*limits)
            if len(places) <= 6:
                panel.set_xticks(places, [f"{place:g}" for place in places])
        else:
            panel.set(xlim=limits, title=f"{_place_label(key[-1])}: {places[0]:g}")
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    if curves:
        _all_methods(panels[0], methods)
        shared_legend(figure, panels[0])
    what = ", ".join(part for part in key[1:4] if part)
    name, against = key[0].replace("_", " ").capitalize(), _place_label(key[-1])
    caption = f"{name} against {against}: {what}. {_band(rows)}{left_out}"
    return Drawing("-".join(_file_name(part) for part in key if part), figure, caption)


def _metrics(rows: pd.DataFrame, entries: Mapping[str, Metric]) -> tuple[list[str], str]:
    """Metrics of a figure, and a sentence on those for which it has no room, if any."""
    metrics = sorted(dict.fromkeys(rows.metric), key=lambda metric: metric in _LAST)
    left_out = ", ".join(axis_label(metric, entries) for metric in metrics[_MOST:])
    return metrics[:_MOST], f" Not drawn: {left_out}." if left_out else ""


def _grid(panels: int) -> tuple[int, int]:
    across = panels if panels <= 3 else 2 if panels == 4 else 3
    return -(-panels // across), across


def _limits(rows: pd.DataFrame, metric: str, entries: Mapping[str, Metric]) -> tuple[float, float]:
    """Range of the lines; bands from two or three seeds can be many times as wide, and may leave the panel."""
    if metric in _WHOLE_RANGE and metric in entries:
        bottom, top = entries[metric].range
        return bottom - 0.03 * (top - bottom), top + 0.03 * (top - bottom)
    low, high = rows.value.min(), rows.value.max()
    room = max(high - low, 0.1 * abs(high), 1e-9)
    bottom, top = rows.ci_low.min(), rows.ci_high.max()
    return (
        low - min(room, max(0.08 * room, low - bottom if bottom == bottom else 0)),
        high + min(room, max(0.08 * room, top - high if top == top else 0)),
    )


def _all_methods(panel: Axes, methods: list[str]) -> None:
    """Add the methods without a line to a panel whose legend stands for all panels."""
    there = {line.get_label() for line in panel.get_lines()}
    for method in methods:
        if label_of(method) not in there:
            panel.plot([], [], color=colour_of(method), marker=marker_of(method), label=label_of(method))


def _without_x(rows: pd.DataFrame, experiment: str, entries: Mapping[str, Metric]) -> Drawing:
    metrics, left_out = _metrics(rows, entries)
    rows = rows.assign(row=[_row_label(row) for row in rows.itertuples()])
    places = list(dict.fromkeys(rows.row))
    down, across = _grid(len(metrics))
    figure = new_figure(1.8 + 2.6 * across, (0.9 + 0.3 * len(places)) * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for panel, metric in zip(panels, metrics, strict=False):
        here = rows[rows.metric == metric].drop_duplicates("row").set_index("row").reindex(places)
        panel.errorbar(here.value, range(len(places)), xerr=spread(here), fmt="o", color="#0072B2", elinewidth=1)
        panel.set_yticks(range(len(places)), places)
        panel.set(xlabel=axis_label(metric, entries))
        panel.set_ylim(len(places) - 0.4, -0.6)
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    caption = f"{experiment.replace('_', ' ').capitalize()}: numbers of each configuration. {_band(rows)}{left_out}"
    return Drawing(f"{_file_name(experiment)}-values", figure, caption)


def _row_label(row: object) -> str:
    parts = [getattr(row, name) for name in ("dataset", "model", "method", "variant")]
    return ", ".join(label_of(part) for part in parts if part)


def _place_label(name: str) -> str:
    return _PLACES.get(name, name.replace("_", " "))


def _band(rows: pd.DataFrame) -> str:
    """Sentence on the bands and bars, as far as there are any."""
    with_band = rows[rows.ci_low.notna()]
    seeds = with_band[with_band.over == "seeds"].n
    spans = {
        "seeds": f"means and 95 % intervals over {_span(seeds)} seeds" if len(seeds) else "",
        "images": "95 % intervals over images, of one seed",
        "rounds": "the least and the largest of the rounds",
    }
    there = [words for over, words in spans.items() if (with_band.over == over).any()]
    return f"Bands: {'; or '.join(there)}." if there else "No intervals: one number each."


def _span(counts: pd.Series) -> str:
    low, high = counts.min(), counts.max()
    return f"{high:g}" if low == high else f"{low:g} to {high:g}"


def _file_name(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._=" else "_" for letter in text)
