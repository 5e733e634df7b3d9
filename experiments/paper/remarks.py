"""Remarks on results: what their tables hold but do not show at a glance, in sentences made from the rows."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from cpath.analysis import compare_means
from cpath.viz import in_order, label_of
from experiments.engine.metric_entry import base_name
from experiments.engine.table import PseudoMethod, place
from experiments.paper.evidence import Results, nearest_place, paired_seeds, shown
from experiments.roar.curves import explained_networks

_ANALYSED = 90.0  # per cent of the neurons that the paper's figures prune
_PRUNING = ("greedy", "dgr", "dgr_random_init")
_OURS = ("neuron_mct", "neuron_intgrad")
_RANDOM = "random"
_STAR, _GRADCAM = "neuron_intgrad_star", "gradcam"
_LOW = 0.9  # self-overlap below which more than a tenth of a method's two pathways is not in both
_ROUNDING = (
    0.01  # of the range of all methods: a rounding can move pixels of equal rank, and so a curve, by no more
)


def remarks(results: Results) -> dict[str, list[str]]:
    """Say what is left out of results, or cannot be read from them.

    Args:
        results: numbers of one dataset and model.

    Returns:
        Sentences by experiment; none for experiments without any.
    """
    same = [str(name) for name, table in results.table.groupby("experiment") if equals_gradcam(table)]
    found = {
        str(name): [
            *_empty_pathways(table),
            *_class_survival(table),
            *_self_overlap(table),
            *_constant_maps(table),
            *_single_draw(table),
            *_random_removal(results, table),
            *_single_network(table),
            *_one_map(table, same),
        ]
        for name, table in results.table.groupby("experiment", sort=False)
    }
    return {name: sentences for name, sentences in found.items() if sentences}


def equals_gradcam(table: pd.DataFrame) -> bool:
    """Tell if NeuronIntGrad* and GradCAM have the same numbers but for rounding.

    Args:
        table: tidy table of one experiment.

    Returns:
        True if both were measured, and differ nowhere by more than a hundredth of the range of all methods.
    """
    rows = table[~table.metric.str.contains("/") & ~table.metric.str.endswith("_random_map") & (table.n > 0)]
    values = rows.pivot_table(index=["metric", "x_name", "x"], columns="method", values="value", sort=False)
    if not {_STAR, _GRADCAM} <= set(values.columns):
        return False
    both = values[[_STAR, _GRADCAM]].dropna()
    spans = (values.max(axis=1) - values.min(axis=1)).loc[both.index]
    return len(both) > 0 and bool(((both[_STAR] - both[_GRADCAM]).abs() <= _ROUNDING * spans).all())


def _rows_at(table: pd.DataFrame, metric: str) -> tuple[float | None, pd.DataFrame]:
    """Sparsity nearest to the paper's, and the rows of a metric there by method."""
    sparsity = nearest_place(Results(table), metric, "sparsity", _ANALYSED)
    rows = table[(table.metric == metric) & (table.x_name == "sparsity")]
    rows = rows[rows.x.map(lambda x: place(str(x)) == sparsity).astype(bool)].set_index("method")
    return sparsity, rows.loc[in_order(rows.index)]


def _empty_pathways(table: pd.DataFrame) -> Iterator[str]:
    """Images without a neuron in the pathway have no dead share, and are missing from its count."""
    network = table[(table.method == PseudoMethod.NETWORK) & (table.metric == "base_sparsity")]
    rows = table[(table.metric == "dead_share") & (table.x_name == "sparsity")]
    if network.empty or rows.empty:
        return
    images = int(network.n.iloc[0])
    empty = rows.assign(empty=images - rows.n)[rows.n < images]
    if empty.empty:
        yield "No method left an image with an empty pathway."
        return
    said = [
        f"{label_of(method)} "
        + ", ".join(
            f"{row.empty} at {float(row.x):g} %" for row in empty[empty.method == method].itertuples(index=False)
        )
        for method in in_order(empty.method)
    ]
    yield f"Empty pathways, of {images} images, which are left out of overlaps and dead shares: {'; '.join(said)}."


def _class_survival(table: pd.DataFrame) -> Iterator[str]:
    sparsity, rows = _rows_at(table, "class_kept")
    kept = [f"{label_of(name)} {shown(rows.value[name], '%')}" for name in _PRUNING if name in rows.index]
    if kept:
        gates = " DGR chooses gates that keep the class; the pathway that a threshold makes of them need not."
        yield (
            "Images whose class the restricted network predicts as the whole one does, at a sparsity of "
            f"{sparsity:g} %: {', '.join(kept)}." + (gates if "dgr" in rows.index else "")
        )


def _self_overlap(table: pd.DataFrame) -> Iterator[str]:
    sparsity, rows = _rows_at(table, "self_overlap")
    for method, row in rows.iterrows():
        if row.value < _LOW and method != _RANDOM:
            yield (
                f"The pathway of {label_of(str(method))} overlaps with its own after a change of the image by one "
                f"rounding by {shown(row.value)} (Jaccard index at {sparsity:g} %, n = {row.n} images): none of "
                "its overlaps with other methods means more."
            )


def _constant_maps(table: pd.DataFrame) -> Iterator[str]:
    rows = table[(table.metric == "spearman_abs") & (table.x_name == "randomized_down_to")]
    shares = table[table.metric == "maps_left_out/spearman_abs"]
    if rows.empty:
        return
    images = int(max(rows.n.max(), shares.n.max() if len(shares) else 0))
    fewest = rows.groupby("method", sort=False).n.min()
    said = []
    for method in in_order(rows.method):
        parts = [f"{images - fewest[method]} of {images} images"] if fewest[method] < images else []
        if (shares.method == method).any():
            parts.append(f"{shown(shares[shares.method == method].value.max())} % of the maps of all draws")
        if parts:
            said.append(f"{label_of(method)} {', '.join(parts)}")
    if said:
        yield (
            "Constant maps have no similarity to the original ones and are left out, at the block where they are "
            f"most: {'; '.join(said)}."
        )


def _single_draw(table: pd.DataFrame) -> Iterator[str]:
    if (table.x_name == "randomized_down_to").any() and not table.metric.str.endswith("/sd_of_draws").any():
        yield "One draw of the random weights: the intervals, over images alone, say nothing of another draw."


def _random_removal(results: Results, table: pd.DataFrame) -> Iterator[str]:
    """Random maps that cost as much accuracy as the paper's methods: the difference is not certainly below 0."""
    rows = table[table.metric == "roar_accuracy"]
    rows = rows[rows.x.map(lambda x: place(str(x)) != 0.0).astype(bool)]
    means = rows.groupby("method").value.mean()
    here = Results(table, cells=results.cells)
    for method in (name for name in _OURS if {name, _RANDOM} <= set(means.index)):
        (contrast,) = paired_seeds(here, "roar_difference", [method], [_RANDOM], "lower")
        interval = ""
        if contrast.sample is not None:
            sample = contrast.sample
            (found,) = compare_means([sample.mean], [sample.error], [sample.n], freedom=[sample.degrees])
            if found.decision == "lower":
                continue
            interval = (
                f", difference {shown(found.difference)} ({shown(found.low)} to {shown(found.high, 'points')}), "
                f"n = {found.n} {contrast.over}"
            )
        elif means[method] < means[_RANDOM]:
            continue
        yield (
            f"Removing random pixels hurts retraining as much as removing those of {label_of(method)} (mean "
            f"accuracy {shown(means[_RANDOM])} and {shown(means[method], '%')}{interval}): a low accuracy does not "
            "show here that relevant pixels were found."
        )


def _single_network(table: pd.DataFrame) -> Iterator[str]:
    rows = table[table.metric.isin(["roar_accuracy", "kar_accuracy"]) & (table.n > 0)]
    if len(rows) and explained_networks(table) == 1:
        seeds = int(rows.n.max())
        yield (
            f"All maps explain one network: intervals are over {seeds} seeds of the retraining, and say nothing of "
            "another network (experiment.base_seed=[0,1,2] explains several)."
            if seeds > 1
            else "One explained network and one seed of the retraining: no interval, and no word on others."
        )


def _one_map(table: pd.DataFrame, same: list[str]) -> Iterator[str]:
    """NeuronIntGrad* is one attribution with GradCAM on many networks, however many rows show it."""
    if not {_STAR, _GRADCAM} <= set(table.method):
        return
    if table.experiment.iloc[0] in same:
        yield (
            "NeuronIntGrad* and GradCAM have equal numbers here, but for rounding: on this network our reading of "
            "NeuronIntGrad* is GradCAM, and both rows are one finding."
        )
    elif same and table.metric.map(base_name).isin(["roar_accuracy", "kar_accuracy"]).any():
        yield (
            "NeuronIntGrad* and GradCAM are one attribution on this network, as their equal numbers in "
            f"{' and '.join(name.replace('_', ' ') for name in same)} show: what tells their rows apart here is "
            "what retraining makes of roundings."
        )
