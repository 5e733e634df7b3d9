"""Figures of pathways of classes: similarity, depth, stability, and what restricted networks say."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor

from cpath.viz.style import (
    SHARES,
    STYLE,
    WIDEST,
    Drawing,
    colour_of,
    in_order,
    in_rows,
    label_of,
    marker_of,
    new_figure,
    shared_legend,
)
from experiments.figures.curves import curve, spread
from experiments.figures.sites import name_sites
from experiments.metrics import METRICS

_PAIR = "class_jaccard/"
_ON_CLASSES = ("class_accuracy", "says_class", "other_accuracy")
_CHANCE = {"color": "#8A8A8A", "linestyle": "--", "linewidth": 1}


def class_pathway_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw similarity, depth, stability and accuracies.

    Args:
        table: tidy table of pathways of classes.

    Returns:
        The figures; none of what was not measured.
    """
    with mpl.rc_context(STYLE):
        return [*_similarity(table), *_depth(table), *_stability(table), *_restricted(table)]


def decoded_channels(method: str, images: Tensor, titles: Sequence[str]) -> Drawing:
    """Draw the pictures of the channels that speak most for each class.

    Args:
        method: that found the pathways.
        images: pixels (B, C, H, W) in [0, 1]; NaN for a picture that could not be made.
        titles: of the pictures.

    Returns:
        The figure.
    """
    with mpl.rc_context(STYLE):
        down, across = in_rows(len(images), 2.2)
        figure = new_figure(2.2 * across, 2.7 * down)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        for panel in panels:
            panel.set_axis_off()
        for panel, image, title in zip(panels, images, titles, strict=False):
            panel.set_title(title, fontsize=7.5)
            if image.isnan().any():
                panel.text(0.5, 0.5, "no gradient", ha="center", va="center")
            else:
                pixels = image.permute(1, 2, 0).clamp(0, 1).numpy()
                panel.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
        caption = (
            "For each class the image that maximises the channel with the unit that speaks most for it: the one "
            f"whose share of the class's pathways ({label_of(method)}) exceeds that in any other class by most."
        )
        return Drawing(f"decoded-{method}", figure, caption, picture=True)


def _similarity(table: pd.DataFrame) -> list[Drawing]:
    rows = table[table.metric.str.startswith(_PAIR)].assign(
        other=lambda frame: frame.metric.str.removeprefix(_PAIR)
    )
    methods = in_order(rows[rows.value.notna()].method)  # without those whose pathways of classes are empty
    if not methods:
        return []
    classes = list(dict.fromkeys([*rows.x, *rows.other]))
    size = float(np.clip(0.28 * len(classes) + 1.2, 3.2, 8.0))
    down, across = in_rows(len(methods), size)
    figure = new_figure(size * across + 0.6, (size + 0.9) * down)
    panels = figure.subplots(
        2 * down, across, squeeze=False, height_ratios=[0.22, 1] * down, gridspec_kw={"hspace": 0.02}
    )
    shown, images = [], None
    highest = float(rows.value.max())
    for place in range(down * across):
        tree, panel = (
            panels[2 * (place // across), place % across],
            panels[2 * (place // across) + 1, place % across],
        )
        tree.set_axis_off()
        if place >= len(methods):
            panel.set_visible(False)
            continue
        matrix = _matrix(rows[rows.method == methods[place]], classes)
        order = _dendrogram(tree, matrix)
        images = panel.imshow(matrix[np.ix_(order, order)], cmap=SHARES, vmin=0, vmax=highest)
        names = [classes[number] for number in order]
        panel.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=7.5)
        panel.set_yticks(range(len(names)), names, fontsize=7.5)
        panel.grid(visible=False)
        tree.set_title(label_of(methods[place]))
        shown.append(panel)
    figure.colorbar(images, ax=shown, label=METRICS["class_jaccard"].label, shrink=0.6)
    caption = (
        "How many units the pathways of two classes share (Jaccard index), classes in the order of a hierarchical "
        "clustering by average linkage: what is joined low in the tree is similar."
    )
    return [Drawing("similarity", figure, caption)]


def _matrix(rows: pd.DataFrame, classes: Sequence[str]) -> NDArray[np.float64]:
    places = {name: place for place, name in enumerate(classes)}
    matrix = np.full((len(classes), len(classes)), np.nan)
    for row in rows.itertuples():
        one, other = places[row.x], places[row.other]
        matrix[one, other] = matrix[other, one] = row.value
    return matrix


def _dendrogram(tree: Axes, matrix: NDArray[np.float64]) -> list[int]:
    """Draw the tree of the classes, and return their order in it."""
    from scipy.cluster.hierarchy import dendrogram, linkage
    from scipy.spatial.distance import squareform

    if len(matrix) < 3:
        return list(range(len(matrix)))
    distances = 1 - np.nan_to_num(matrix)
    np.fill_diagonal(distances, 0)
    found = dendrogram(linkage(squareform(distances, checks=False), "average"), no_plot=True)
    for across, up in zip(found["icoord"], found["dcoord"], strict=True):
        tree.plot(np.array(across) / 10 - 0.5, up, color="#3C3C3C", linewidth=0.9)
    lowest = min(min(height for height in up if height > 0) for up in found["dcoord"])
    tree.set(xlim=(-0.5, len(matrix) - 0.5), ylim=(0.97 * lowest, None))
    return [int(leaf) for leaf in found["leaves"]]


def _depth(table: pd.DataFrame) -> list[Drawing]:
    prefix = "site_class_jaccard/"
    rows = table[table.metric.str.startswith(prefix)].assign(
        site=lambda frame: frame.metric.str.removeprefix(prefix)
    )
    sites = list(dict.fromkeys(rows.site))  # in the order of the network, also where one has no units
    rows = rows[rows.value.notna()]
    methods = in_order(rows.method)
    if len(sites) < 2 or not methods:
        return []
    chance = table.set_index(["method", "metric"]).value
    alone = [f"site_specific_units/{site}" for site in sites]
    figure = new_figure(min(WIDEST, 2.4 + 0.36 * len(sites)), 3.9 + 0.055 * max(map(len, sites)))
    left, right = figure.subplots(1, 2)
    for method in methods:
        mine = rows[rows.method == method].assign(place=lambda frame: frame.site.map(sites.index))
        curve(left, mine.sort_values("place"), method, at="place")
        expected = [chance.get((method, f"site_class_jaccard_chance/{site}"), np.nan) for site in sites]
        left.plot(range(len(sites)), expected, **{**_CHANCE, "color": colour_of(method)})
        speaking = [chance.get((method, metric), np.nan) for metric in alone]
        right.plot(range(len(sites)), speaking, color=colour_of(method), marker=marker_of(method))
    left.set(title="What two classes share", ylabel=METRICS["class_jaccard"].axis, ylim=(0, None))
    right.set(title="Units of one class alone", ylabel=METRICS["site_specific_units"].axis, ylim=(0, None))
    for panel in (left, right):
        name_sites(panel, sites, max(4, int(2.6 * figure.get_figwidth() / 2)))
    shared_legend(figure, left)
    caption = (
        "From input to output. Left: mean Jaccard index of the pathways of two classes at each site; dashed, that "
        "of random sets of the same sizes. Right: per cent of the site's units that are frequent in one class and "
        "rare in all others."
    )
    return [Drawing("depth", figure, caption)]


def _stability(table: pd.DataFrame) -> list[Drawing]:
    rows = table[(table.metric == "class_stability") & table.value.notna()]
    rows = rows.assign(x=lambda frame: frame.x.astype(float))
    if rows.x.nunique() < 2:
        return []
    figure = new_figure(5.4, 3.5)
    panel = figure.subplots()
    for method in in_order(rows.method):
        curve(panel, rows[rows.method == method].sort_values("x"), method)
    panel.set(
        xscale="log", xlabel="images on either side", ylabel=METRICS["class_stability"].axis, ylim=(None, 1.02)
    )
    panel.set_xticks(sorted(rows.x.unique()), [f"{size:g}" for size in sorted(rows.x.unique())])
    panel.minorticks_off()
    shared_legend(figure, panel)
    caption = (
        "How far the pathway of a class depends on the images that are counted: its Jaccard index with the pathway "
        "from as many other images, mean over classes. Bands: 95 % intervals over draws of the images."
    )
    return [Drawing("stability", figure, caption)]


def _restricted(table: pd.DataFrame) -> list[Drawing]:
    rows = table[(table.x_name == "") & table.value.notna()].set_index(["method", "metric"])
    methods = in_order({method for method, metric in rows.index if metric == "says_class"})
    if not methods:
        return []
    figure = new_figure(9.6, 1.4 + 0.32 * len(methods))
    panels = figure.subplots(1, 3, sharey=True)
    for panel, metric in zip(panels, _ON_CLASSES, strict=True):
        for place, method in enumerate(methods):
            for name, control in ((metric, False), (f"{metric}/random", True)):
                if (method, name) not in rows.index:
                    continue
                row = rows.loc[(method, name)]
                look = {"color": colour_of(method), "fmt": marker_of(method), "elinewidth": 1}
                if control:
                    look |= {"color": "#8A8A8A", "fmt": "o", "markerfacecolor": "none"}
                panel.errorbar(row.value, place, xerr=spread(row), **look)
        panel.set(xlabel=METRICS[metric].axis, xlim=(-3, 103))
    if ("network", "class_accuracy") in rows.index:
        for panel in (panels[0], panels[2]):
            panel.axvline(rows.loc[("network", "class_accuracy")].value, **_CHANCE)
    panels[0].set_yticks(range(len(methods)), [label_of(method) for method in methods])
    panels[0].set_ylim(len(methods) - 0.5, -0.5)
    caption = (
        "The network restricted to the pathway of one class, on images that were not counted: accuracy on that "
        "class, images of other classes that it takes for the class, and accuracy on other classes. Hollow: as "
        "many random units at each site. Dashed: the whole network. Mean over images, with 95 % intervals. Where "
        "others are taken for the class as often as its own images, accuracy on the class says nothing."
    )
    return [Drawing("restricted", figure, caption)]
