"""Figures of the path analysis, in the paper's form."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from cpath.viz.style import (
    ACTIVE,
    DEAD,
    SHARES,
    STYLE,
    WIDEST,
    Drawing,
    in_order,
    in_rows,
    label_of,
    new_figure,
    shared_legend,
)
from experiments.figures.curves import curves_or_dots, height_of, spread
from experiments.figures.sites import name_sites
from experiments.paper.published import MARK, SWAPPED_LABELS


def path_analysis_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw the overlap, dead share and response preservation of the pathways, and their overlap and place by site.

    Where the paper has numbers for the same network, dataset and sparsity, one more figure shows them beside ours.

    Args:
        table: tidy table of a path analysis.

    Returns:
        The figures; none where nothing was measured.
    """
    at = table[table.x_name == "sparsity"].assign(x=lambda frame: frame.x.astype(float))
    if at.empty:
        return []
    of_paper = at.metric.str.endswith(MARK)
    paper, at = at[of_paper].assign(metric=lambda frame: frame.metric.str.removesuffix(MARK)), at[~of_paper]
    with mpl.rc_context(STYLE):
        base = table[table.metric == "base_sparsity"].value
        return [
            *_overlap_matrix(at),
            _dead_share(at, float(base.iloc[0]) if len(base) else float("nan")),
            _responses(at),
            *_by_site(at),
            *_published(at, paper),
        ]


def _sparsities(at: pd.DataFrame) -> list[float]:
    return sorted(at.x.unique())


def _overlap_matrix(at: pd.DataFrame) -> list[Drawing]:
    rows = at[at.metric.str.startswith("jaccard/")].assign(other=lambda frame: frame.metric.str.split("/").str[1])
    methods = in_order(rows.method)
    if len(methods) < 2:
        return []
    sparsities = _sparsities(at)
    side, names = max(1.5, 0.36 * len(methods)), 0.075 * max(len(label_of(method)) for method in methods)
    down, across = in_rows(len(sparsities), side + 0.35 + names / len(sparsities))
    figure = new_figure(0.9 + names + (side + 0.35) * across, 0.4 + (side + 0.35 + 0.7 * names) * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for panel in panels[len(sparsities) :]:
        panel.set_visible(False)
    panels = panels[: len(sparsities)]
    image = None
    for panel, sparsity in zip(panels, sparsities, strict=True):
        values = rows[rows.x == sparsity].pivot(index="method", columns="other", values="value")
        matrix = values.reindex(index=methods, columns=methods).to_numpy(copy=True)
        again = at[(at.metric == "self_overlap") & (at.x == sparsity)].set_index("method").value
        np.fill_diagonal(matrix, again.reindex(methods).fillna(1.0) if len(again) else 1.0)
        image = panel.imshow(matrix, vmin=0, vmax=1, cmap=SHARES)
        for i, j in np.ndindex(matrix.shape):
            text = "–" if np.isnan(matrix[i, j]) else f"{matrix[i, j]:.2f}".replace("0.", ".")
            panel.text(
                j, i, text, ha="center", va="center", fontsize=7.5, color="w" if matrix[i, j] > 0.65 else "k"
            )
        labels = [label_of(method) for method in methods]
        panel.set_xticks(range(len(methods)), labels, rotation=45, ha="right", rotation_mode="anchor")
        panel.set_yticks(range(len(methods)), labels)
        panel.set_title(f"{sparsity:g} % pruned")
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
    figure.colorbar(image, ax=list(panels), label="Jaccard index", shrink=0.75 / down, aspect=15)
    caption = (
        "Overlap of the pathways that the methods find on the same images (mean Jaccard index). 1: the same "
        "neurons, 0: none in common."
    )
    if (at.metric == "self_overlap").any():
        caption += (
            " On the diagonal: overlap of a method with itself after a change of the images by one rounding, the "
            "ceiling for its overlap with any other (methods that draw random numbers draw them anew)."
        )
    return [Drawing("overlap", figure, caption)]


def _dead_share(at: pd.DataFrame, base: float) -> Drawing:
    rows = at[at.metric == "dead_share"]
    methods, sparsities = in_order(rows.method), _sparsities(at)
    names = 0.075 * max(len(label_of(method)) for method in methods)
    down, across = in_rows(len(sparsities), 2.2 + names / len(sparsities))
    width = 2.2 if len(sparsities) > 1 else 4.0
    figure = new_figure(0.2 + names + width * across, 0.4 + (0.6 + 0.28 * len(methods)) * down)
    panels = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for panel in panels[len(sparsities) :]:
        panel.set_visible(False)
    places = np.arange(len(methods))
    for panel, sparsity in zip(panels, sparsities, strict=False):
        found = rows[rows.x == sparsity].set_index("method").reindex(methods)
        dead = found.value.to_numpy(dtype=float)
        look = {"color": DEAD, "label": "dead", "error_kw": {"elinewidth": 0.8}}
        panel.barh(places, dead, xerr=spread(found), **look)
        panel.barh(places, 100 - dead, left=dead, color=ACTIVE, label="active")
        for place, share in zip(places, dead, strict=True):
            text = "empty" if np.isnan(share) else f"{share:.0f}"
            inside = share > 88
            panel.text(
                share - 1.5 if inside else (2 if np.isnan(share) else share + 1.5),
                place,
                text,
                va="center",
                ha="right" if inside else "left",
                fontsize=7.5,
                color="k" if inside or np.isnan(share) else "w",
            )
        panel.set(xlim=(0, 100), xlabel="% of the pathway", title=f"{sparsity:g} % pruned")
        panel.set_yticks(places, [label_of(method) for method in methods])
        panel.grid(visible=False)
    panels[0].invert_yaxis()
    shared_legend(figure, panels[0])
    caption = (
        "Share of originally dead neurons in each pathway. Contribution methods never pick one; what prunes or "
        f"optimises can bring dead neurons to life. On average {base:.0f} % of the network is dead on an image."
    )
    return Drawing("dead_share", figure, caption)


def _responses(at: pd.DataFrame) -> Drawing:
    changed, kept = at[at.metric == "response_change"], at[at.metric == "class_kept"]
    many = changed.x.nunique() > 1
    figure = new_figure(7.6, height_of(changed, 3.6) + (0 if many else 0.5))
    left, right = figure.subplots(1, 2, sharey=not many)
    curves_or_dots(left, changed, "units pruned (%)", "(p′ − p) / p")
    curves_or_dots(right, kept, "units pruned (%)", "class kept (% of images)")
    if many:
        for panel in (left, right):
            panel.set_xticks(_sparsities(at) if len(_sparsities(at)) <= 6 else _sparsities(at)[::2])
        left.axhline(0, color="#3C3C3C", linewidth=0.8)
        right.set_ylim(-3, 103)
        shared_legend(figure, left)
    else:
        left.axvline(0, color="#3C3C3C", linewidth=0.8)
        right.set_xlim(-4, 104)
        figure.suptitle(f"{_sparsities(at)[0]:g} % pruned", fontsize=10)
    caption = (
        "What the restricted network still answers: relative change of the target probability (0: nothing lost, "
        f"−1: all lost) and how often the predicted class survives. {'Bands' if many else 'Bars'}: 95 % intervals "
        "over images."
    )
    return Drawing("responses", figure, caption)


def _by_site(at: pd.DataFrame) -> list[Drawing]:
    sites = at[at.metric.str.startswith("site_kept/")].metric.str.split("/", n=1).str[1].drop_duplicates().tolist()
    if not sites:
        return []
    reference = next((m for m in ("neuron_intgrad", "neuron_mct") if m in set(at.method)), None)
    drawings = [
        _site_panels(
            at,
            sites,
            "site_kept/",
            None,
            "neurons kept (%)",
            "sites_kept",
            "Where the pathways lie: per cent of each site's neurons that they keep, from input to output.",
        ),
    ]
    if reference is not None and at.method.nunique() > 1:
        drawings.append(
            _site_panels(
                at,
                sites,
                f"site_jaccard/{reference}/",
                1.0,
                f"Jaccard index with {label_of(reference)}",
                "sites_overlap",
                f"Overlap with the pathway of {label_of(reference)} site by site, from input to output.",
            )
        )
    drawings.append(
        _site_panels(
            at,
            sites,
            "site_dead_share/",
            100.0,
            "dead share (%)",
            "sites_dead_share",
            "Share of originally dead neurons in each pathway site by site, from input to output.",
        )
    )
    return drawings


def _site_panels(
    at: pd.DataFrame, sites: list[str], prefix: str, top: float | None, label: str, name: str, caption: str
) -> Drawing:
    places = {site: place for place, site in enumerate(sites)}
    rows = at[at.metric.str.startswith(prefix)].assign(
        place=lambda frame: frame.metric.str.removeprefix(prefix).map(places)
    )
    sparsities = _sparsities(at)
    width = max(2.4, 0.16 * len(sites) + 0.9) if len(sparsities) > 1 else max(6.0, 0.2 * len(sites) + 1)
    down, across = in_rows(len(sparsities), width)
    names = 0.055 * max(map(len, sites))
    beside = 0.6 if len(sites) > 1 else 0.075 * max(len(label_of(method)) for method in rows.method)
    figure = new_figure(min(beside + width * across, WIDEST), 0.6 + height_of(rows, 2.3, "place") * down + names)
    # Shares compare across sparsities; what is kept shrinks with them by definition.
    alike = top is not None or len(sites) == 1
    panels = figure.subplots(down, across, squeeze=False, sharey=alike, sharex=True).ravel()
    for panel in panels[len(sparsities) :]:
        panel.set_visible(False)
    for panel, sparsity in zip(panels, sparsities, strict=False):
        panel.set_title(f"{sparsity:g} % pruned")
        if curves_or_dots(panel, rows[rows.x == sparsity], "", "", at="place"):
            name_sites(panel, sites, int((width - 0.6) / 0.14))
            panel.set_ylim(*((0, None) if top is None else (-0.03 * top, 1.03 * top)))
        else:
            panel.set_xlabel(label)
    if len(sites) > 1:
        for panel in panels[::across]:
            panel.set_ylabel(label)
        shared_legend(figure, panels[0])
    return Drawing(name, figure, f"{caption} Bands: 95 % intervals over images.")


def _published(at: pd.DataFrame, paper: pd.DataFrame) -> list[Drawing]:
    if paper.empty:
        return []
    sparsities = ", ".join(f"{sparsity:g} %" for sparsity in _sparsities(paper))
    overlaps = paper[paper.metric.str.startswith("jaccard/")]
    pairs = _once(overlaps.method, overlaps.metric.str.partition("/")[2])
    shares = [(method, "dead_share") for method in in_order(paper[paper.metric == "dead_share"].method)]
    figure = new_figure(9.0, 1.4 + 0.22 * max(len(pairs), len(shares)))
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    labels = [label_of(method) for method, _ in shares]
    _beside(left, at, paper, shares, labels, "dead neurons in the pathway (%)", 100)
    labels = [" and ".join(label_of(name) for name in pair) for pair in pairs]
    numbers = [(one, f"jaccard/{other}") for one, other in pairs]
    _beside(right, at, paper, numbers, labels, "Jaccard index", 1)
    shared_legend(figure, left)
    caption = f"Dead shares and overlaps beside the published ones, {sparsities} pruned. {SWAPPED_LABELS}"
    return [Drawing("published", figure, caption)]


def _once(methods: Iterable[str], others: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of methods in the order of all figures, each one way round."""
    found = {frozenset(pair) for pair in zip(methods, others, strict=True)}
    order = in_order({name for pair in found for name in pair})
    return [pair for pair in itertools.combinations(order, 2) if frozenset(pair) in found]


def _beside(
    panel: Axes,
    at: pd.DataFrame,
    paper: pd.DataFrame,
    numbers: Sequence[tuple[str, str]],
    labels: Sequence[str],
    axis: str,
    top: float,
) -> None:
    """Draw numbers, each a method and its metric, in rows: ours with its interval, and the published one."""
    looks = (
        (at, {"fmt": "o", "color": "#0072B2", "label": "here"}),
        (paper, {"fmt": "D", "color": "#3C3C3C", "label": "published", "markerfacecolor": "none"}),
    )
    shown = set(paper.x)
    for rows, look in looks:
        rows = rows[rows.x.isin(shown)]
        for place, (method, metric) in enumerate(numbers):
            found = rows[(rows.method == method) & (rows.metric == metric)]
            named = look if place == 0 else {**look, "label": "_listed"}
            panel.errorbar(found.value, [place] * len(found), xerr=spread(found), elinewidth=0.8, **named)
    panel.set_yticks(range(len(labels)), labels)
    panel.set(xlabel=axis, xlim=(-0.02 * top, 1.02 * top))
    panel.invert_yaxis()
