"""Figures of detection: AUROC and FPR of each kind of input, over sparsity and over depth."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd

from cpath.viz.style import (
    STYLE,
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

_NETWORK = {
    "probability": ("largest probability", "#3C3C3C", "v"),
    "energy": ("energy", "#3C3C3C", "^"),
    "entropy": ("entropy", "#3C3C3C", "d"),
}
_KINDS = {"fgsm": "FGSM", "pgd": "PGD", "auto_pgd": "Auto-PGD"}
_CHANCE = {"color": "#8A8A8A", "linestyle": "--", "linewidth": 0.9, "zorder": 1}
_SCORES = ("typicality", "jaccard")


def detection_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw AUROC and FPR of each kind of input, over sparsity and over depth.

    Args:
        table: tidy table of a detection.

    Returns:
        Two figures of all scores, one over sparsity if there are several, and one over depth; those of one sparsity
        are of the middle one.
    """
    parts = table.metric.str.split("/", n=2, expand=True).reindex(columns=[0, 1, 2])
    rows = table.assign(name=parts[0], kind=parts[1], score=parts[2])
    rows = rows[rows.name.isin(("auroc", "fpr95", "site_auroc")) & rows.value.notna()]
    if rows.empty:
        return []
    at = rows[rows.x_name == "sparsity"].assign(x=lambda frame: frame.x.astype(float))
    sparsities = sorted(at.x.unique())
    middle = sparsities[len(sparsities) // 2]
    network = rows[rows.method == "network"]
    with mpl.rc_context(STYLE):
        drawings = [
            _dots(network[network.name == name], at[(at.x == middle) & (at.name == name)], name, middle)
            for name in ("auroc", "fpr95")
        ]
        if len(sparsities) > 1:
            drawings.append(_over_sparsity(network[network.name == "auroc"], at[at.name == "auroc"]))
        return [*drawings, *_depth(at[(at.x == middle) & (at.name == "site_auroc")], middle)]


def _title(kind: str) -> str:
    return _KINDS.get(kind, kind)


def _dots(network: pd.DataFrame, at: pd.DataFrame, name: str, sparsity: float) -> Drawing:
    kinds, methods = list(dict.fromkeys(network.kind)), in_order(at.method)
    lines = [("network", score, label) for score, (label, _, _) in _NETWORK.items()]
    lines += [(method, score, f"{label_of(method)}, {score}") for method in methods for score in _SCORES]
    down, across = in_rows(len(kinds), 2.4)
    figure = new_figure(1.6 + 2.1 * across, (0.9 + 0.2 * len(lines)) * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True, sharex=True).ravel()
    both = pd.concat([network, at]).set_index(["kind", "method", "score"])
    for panel, kind in zip(panels, kinds, strict=False):
        for place, (method, score, _) in enumerate(lines):
            if (kind, method, score) not in both.index:
                continue
            row = both.loc[(kind, method, score)]
            colour, marker = _NETWORK[score][1:] if method == "network" else (colour_of(method), marker_of(method))
            look = {"fmt": marker, "color": colour, "elinewidth": 1}
            if score == "jaccard":
                look["markerfacecolor"] = "none"
            panel.errorbar(row.value, place, xerr=spread(row), **look)
        panel.set_title(_title(kind))
        panel.axvline(0.5 if name == "auroc" else 95, **_CHANCE)
        panel.set_xlim(*((-0.02, 1.02) if name == "auroc" else (-2, 102)))
    for panel in panels[len(kinds) :]:
        panel.set_visible(False)
    panels[0].set_yticks(range(len(lines)), [label for _, _, label in lines])
    panels[0].set_ylim(len(lines) - 0.5, -0.5)
    figure.supxlabel(METRICS[name].axis, fontsize=9)
    caption = (
        f"How well inputs of each kind are found at {sparsity:g} % pruned. Grey: from the network's own output. "
        "Coloured: from the pathway's distance to that of the predicted class, by the frequency of its units "
        "(typicality) or, hollow, by overlap (Jaccard). Dashed: chance. Bars: 95 % bootstrap intervals."
    )
    return Drawing(name, figure, caption)


def _over_sparsity(network: pd.DataFrame, at: pd.DataFrame) -> Drawing:
    kinds = list(dict.fromkeys(at.kind))
    down, across = in_rows(len(kinds), 2.4)
    figure = new_figure(0.8 + 2.0 * across, 0.8 + 1.7 * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True, sharex=True).ravel()
    for panel, kind in zip(panels, kinds, strict=False):
        here = at[(at.kind == kind) & (at.score == "typicality")]
        for method in in_order(here.method):
            curve(panel, here[here.method == method].sort_values("x"), method)
        best = network[(network.kind == kind) & (network.score == "probability")]
        panel.axhline(float(best.value.iloc[0]), color="#3C3C3C", linewidth=1, label="largest probability")
        panel.axhline(0.5, **_CHANCE)
        panel.set(title=_title(kind), ylim=(-0.02, 1.02))
        panel.set_xticks(sorted(at.x.unique()))
    for panel in panels[len(kinds) :]:
        panel.set_visible(False)
    for panel in panels[max(0, len(kinds) - across) : len(kinds)]:
        panel.set_xlabel("units pruned (%)")
        panel.tick_params(labelbottom=True)
    figure.supylabel(METRICS["auroc"].axis, fontsize=9)
    shared_legend(figure, panels[0])
    caption = (
        "AUROC of the typicality of the pathway, by the share of units that is pruned; black: of the network's "
        "largest probability; dashed: chance. Bands: 95 % bootstrap intervals."
    )
    return Drawing("over_sparsity", figure, caption)


def _depth(at: pd.DataFrame, sparsity: float) -> list[Drawing]:
    sites = list(dict.fromkeys(at.score))
    if len(sites) < 2:
        return []
    rows = at.assign(place=lambda frame: frame.score.map(sites.index))
    kinds = list(dict.fromkeys(rows.kind))
    down, across = in_rows(len(kinds), 2.7)
    figure = new_figure(0.8 + 2.4 * across, 1.0 + 1.7 * down + 0.055 * max(map(len, sites)))
    panels = figure.subplots(down, across, squeeze=False, sharey=True, sharex=True).ravel()
    for panel, kind in zip(panels, kinds, strict=False):
        here = rows[rows.kind == kind]
        for method in in_order(here.method):
            curve(panel, here[here.method == method].sort_values("place"), method, at="place")
        panel.axhline(0.5, **_CHANCE)
        panel.set(title=_title(kind), ylim=(-0.02, 1.02))
        name_sites(panel, sites, 10)
    for panel in panels[max(0, len(kinds) - across) : len(kinds)]:
        panel.tick_params(labelbottom=True)
    for panel in panels[len(kinds) :]:
        panel.set_visible(False)
    figure.supylabel(METRICS["site_auroc"].axis, fontsize=9)
    shared_legend(figure, panels[0])
    caption = (
        f"AUROC of the typicality of each site's units alone, from input to output, at {sparsity:g} % pruned. "
        "Dashed: chance. Bands: 95 % bootstrap intervals."
    )
    return [Drawing("depth", figure, caption)]
