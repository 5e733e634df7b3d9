"""Results of the figures on pathways of classes and on detection in a sentence each, from the figures' rows."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from cpath.viz import in_order, label_of

_NETWORK = "network"
_CONTROLS = ("random", "active")
_SPARSITY = 90.0  # per cent pruned, as in the figures


def class_pathway_findings(table: pd.DataFrame) -> dict[str, str]:
    """Say which classes are alike, where, how stable that is, and what a class's pathway answers.

    Args:
        table: tidy table of pathways of classes.

    Returns:
        Sentences by figure, of the first method that is no control.
    """
    method = next((name for name in in_order(table.method.unique()) if name not in (*_CONTROLS, _NETWORK)), None)
    rows = table[(table.method == method) & table.value.notna()]
    if method is None or rows.empty:
        return {}
    found = {
        "similarity": _ends(
            rows, "class_jaccard/", "{x} and {name}", "Jaccard index of the pathways of two classes"
        ),
        "depth": _ends(rows, "site_class_jaccard/", "{name}", "mean Jaccard index of two classes at one site"),
        "stability": "".join(_stability(rows)),
        "restricted": "".join(_restricted(rows)),
    }
    return {name: f"{label_of(method)}: {sentence}" for name, sentence in found.items() if sentence}


def _ends(rows: pd.DataFrame, prefix: str, place: str, what: str) -> str:
    rows = rows[rows.metric.str.startswith(prefix)]
    if rows.empty:
        return ""
    told = []
    for word, index in (("highest", rows.value.idxmax()), ("lowest", rows.value.idxmin())):
        row = rows.loc[index]
        where = place.format(x=row.x, name=row.metric.removeprefix(prefix))
        told.append(f"{word} for {where} ({row.value:.2f})")
    return f"the {what} is {', '.join(told)}."


def _stability(rows: pd.DataFrame) -> Iterator[str]:
    rows = rows[rows.metric == "class_stability"]
    if len(rows):
        most = rows.loc[rows.x.astype(float).idxmax()]
        yield (
            f"with {float(most.x):g} images the pathway of a class has a Jaccard index of {most.value:.2f} with "
            "the one from as many other images."
        )


def _restricted(rows: pd.DataFrame) -> Iterator[str]:
    means = rows.groupby("metric").value.mean()
    if {"class_accuracy", "class_accuracy/random", "says_class"} <= set(means.index):
        yield (
            f"restricted to a class's pathway, the network is right on {means['class_accuracy']:.0f} % of that "
            f"class (as many random units: {means['class_accuracy/random']:.0f} %), and takes "
            f"{means['says_class']:.0f} % of the other images for it, in the mean over classes."
        )


def detection_findings(table: pd.DataFrame) -> dict[str, str]:
    """Say how well each kind of input is found, beside the network's own output.

    Args:
        table: tidy table of a detection.

    Returns:
        Sentences by figure.
    """
    places = pd.to_numeric(table.x, errors="coerce")
    rows = table.assign(place=places)[table.value.notna() & ~table.method.isin(_CONTROLS)]
    pathways = rows[(rows.method != _NETWORK) & rows.place.notna()]
    if pathways.empty:
        return {}
    nearest = min(pathways.place.unique(), key=lambda place: abs(place - _SPARSITY))
    at = pd.concat([rows[rows.method == _NETWORK], pathways[pathways.place == nearest]])
    found = {
        "auroc": "; ".join(_by_kind(at, "auroc", form="{:.2f}")),
        "fpr95": "; ".join(_by_kind(at, "fpr95", form="{:.0f} %")),
        "over_sparsity": "; ".join(_over_sparsity(pathways)),
        "depth": "; ".join(_best_sites(pathways[pathways.place == nearest])),
    }
    said = {"auroc": "AUROC", "fpr95": "False positives at 95 % found", "over_sparsity": "AUROC", "depth": "AUROC"}
    return {name: f"{said[name]}, {sentence}." for name, sentence in found.items() if sentence}


def _by_kind(rows: pd.DataFrame, metric: str, *, form: str) -> Iterator[str]:
    """The best pathway and the best of the network's output for each kind of input."""
    rows = rows[rows.metric.str.startswith(f"{metric}/")]
    kinds = rows.metric.str.split("/").str[1]
    for kind in kinds.drop_duplicates():
        here = rows[kinds == kind]
        both = []
        for name, part in (("pathways", here[here.method != _NETWORK]), ("output", here[here.method == _NETWORK])):
            if len(part):
                both.append(f"{name} {form.format(part.value.min() if metric == 'fpr95' else part.value.max())}")
        yield f"{kind}: {' against '.join(both)} at best"


def _over_sparsity(rows: pd.DataFrame) -> Iterator[str]:
    rows = rows[rows.metric.str.startswith("auroc/") & rows.metric.str.endswith("/typicality")]
    for metric, part in rows.groupby("metric", sort=False):
        row = part.loc[part.value.idxmax()]
        yield f"{str(metric).split('/')[1]}: {row.value:.2f} at {row.place:g} % pruned ({label_of(row.method)})"


def _best_sites(rows: pd.DataFrame) -> Iterator[str]:
    rows = rows[rows.metric.str.startswith("site_auroc/")]
    kinds = rows.metric.str.split("/").str[1]
    for kind in kinds.drop_duplicates():
        row = rows.loc[rows[kinds == kind].value.idxmax()]
        yield f"{kind}: {row.value:.2f} at {row.metric.split('/', 2)[2]}"
