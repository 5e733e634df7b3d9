"""Figures of the sanity checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from torch import Tensor

from cpath.viz.maps import map_strip
from cpath.viz.style import (
    STYLE,
    Drawing,
    colour_of,
    in_order,
    marker_of,
    new_figure,
    shared_legend,
)
from experiments.figures.curves import beside_published, coinciding, curve
from experiments.metrics import METRICS

_MEASURES = ("spearman", "spearman_abs", "ssim", "hog")


def sanity_check_figures(table: pd.DataFrame, draws: int = 1) -> list[Drawing]:
    """Draw the similarity to the original map over the blocks, and the published curves beside ours.

    Args:
        table: tidy table of the sanity checks.
        draws: number of draws of the weights behind it, for the caption.

    Returns:
        A figure with a panel for each measure, and one for each measure that was published.
    """
    at = table[table.x_name == "randomized_down_to"]
    blocks = list(dict.fromkeys(at[~at.metric.str.contains("/")].x))
    if not blocks:
        return []
    places = {"original": 0} | {block: place for place, block in enumerate(blocks, 1)}
    at = at.assign(place=at.x.map(places))
    with mpl.rc_context(STYLE):
        return [*_curves(at, table, blocks, draws), *_published(at, blocks)]


def _measures(at: pd.DataFrame, suffix: str = "") -> list[str]:
    return [measure for measure in _MEASURES if f"{measure}{suffix}" in set(at.metric)]


def _from_original(rows: pd.DataFrame) -> pd.DataFrame:
    """The curve from the original map on, whose similarity to itself is 1."""
    rows = rows.sort_values("place")
    first = rows.iloc[:1].assign(place=0, value=1.0, ci_low=1.0, ci_high=1.0)
    return pd.concat([first, rows])


def _ticks(panel: Axes, blocks: Sequence[str], last: str | None = None) -> None:
    every = max(1, len(blocks) // 14)
    shown = list(range(0, len(blocks), every))
    places = [0, *(place + 1 for place in shown)]
    labels = ["original", *(blocks[place] for place in shown)]
    if last is not None:
        places.append(len(blocks) + 2)
        labels.append(last)
    panel.set_xticks(places, labels, rotation=60, ha="right", rotation_mode="anchor", fontsize=7)


def _curves(at: pd.DataFrame, table: pd.DataFrame, blocks: list[str], draws: int) -> list[Drawing]:
    measures = _measures(at)
    across = min(2, len(measures))
    down = -(-len(measures) // across)
    figure = new_figure(0.6 + max(3.3, 0.2 * len(blocks) + 1.4) * across, 1.0 + 2.7 * down)
    panels = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
    for panel, measure in zip(panels, measures, strict=False):
        rows = at[at.metric == measure]
        random = table[table.metric == f"{measure}_random_map"].set_index("method").value
        methods = in_order(rows.method)
        for number, method in enumerate(methods):
            curve(panel, _from_original(rows[rows.method == method]), method, at="place")
            if method in random.index:
                # Side by side, so that equal ones are seen.
                place = len(blocks) + 2 + 0.7 * (number / max(1, len(methods) - 1) - 0.5)
                look = {"color": colour_of(method), "marker": marker_of(method), "clip_on": False}
                panel.plot(place, random[method], linestyle="none", **look)
        panel.axvline(len(blocks) + 1, color="#BBBBBB", linewidth=0.8, linestyle=":")
        panel.set_title(METRICS[measure].label)
        low = np.nanmin([rows.value.min(), rows.ci_low.min(), random.min() if len(random) else 0])
        panel.set_ylim(min(-0.05, 1.05 * low), 1.04)
        _ticks(panel, blocks, "random map" if len(random) else None)
    for panel in panels[len(measures) :]:
        panel.set_visible(False)
    for panel in panels[::across]:
        panel.set_ylabel("similarity to the original map")
    shared_legend(figure, panels[0])
    caption = (
        "Cascading randomisation from the logits to the input: similarity of each attribution to that of the "
        "trained network. What depends on the weights falls to the level of a random map, whose similarity stands "
        f"at the right. {_repetitions(at[at.metric.isin(measures)], draws)}"
        + coinciding(at[at.metric.isin(measures)])
    )
    return [Drawing("sanity_checks", figure, caption)]


def _repetitions(rows: pd.DataFrame, draws: int) -> str:
    """Sentence on what means and bands are over."""
    low, high = int(rows.n.min()), int(rows.n.max())
    images = f"{high} images" if low == high else f"{low} to {high} images (constant maps are left out)"
    if draws == 1:
        return f"Mean over {images} and one draw of the weights; bands: 95 % intervals over images alone."
    return f"Mean over {images} and {draws} draws of the weights; bands: 95 % intervals over both together."


def _published(at: pd.DataFrame, blocks: list[str]) -> list[Drawing]:
    drawings = []
    for measure in _measures(at, "/published"):
        paper = at[at.metric == f"{measure}/published"]
        ours = pd.concat([_from_original(rows) for _, rows in at[at.metric == measure].groupby("method")])
        label = METRICS[measure].label
        figure = beside_published(ours, paper, "", label, at="place", room=1.3, ylim=(None, 1.04))
        assert figure is not None
        for panel in figure.axes:
            places = [0, *range(1, len(blocks) + 1, max(1, len(blocks) // 5))]
            panel.set_xticks(places, ["original", *(blocks[place - 1] for place in places[1:])])
            panel.tick_params("x", labelrotation=60, labelsize=7)
        caption = f"{label} beside the published curves (dashed), method by method."
        if measure == "ssim":
            caption += (
                " The released code swaps the labels of HOG and SSIM: what is published as SSIM may be either."
            )
        drawings.append(Drawing(f"published_{measure}", figure, caption))
    return drawings


def sanity_strip(
    name: str, pixels: np.ndarray, title: str, maps: Mapping[str, Tensor], columns: Sequence[str]
) -> Drawing:
    """Draw the maps of one image as the network is randomised: a row for each method, a column for each block.

    Args:
        name: of the drawing.
        pixels: (H, W, C) image in [0, 1].
        title: caption of the image; its first line is the predicted class.
        maps: (columns, H, W) single-channel maps by method.
        columns: ``original``, and the blocks towards the input.

    Returns:
        The drawing.
    """
    caption = (
        f"Magnitudes of the maps of one image ({title.splitlines()[0]}) as the network is randomised from the "
        "logits (left) towards the input (right), each scaled by itself."
    )
    return map_strip(name, pixels, title, maps, columns, caption)
