"""Results of figures in a sentence each, made from the rows that the figures are drawn from."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import pandas as pd

from cpath.viz import criterion_label, in_order, label_of
from experiments.engine.metric_entry import base_name
from experiments.engine.table import PseudoMethod
from experiments.metrics import METRICS
from experiments.paper.published import MARK

Findings = dict[str, str]
"""Sentences by the name of a figure, or by a pattern of such names, as ``strip_*``."""

_ANALYSED, _DECODED, _FIRST = 90.0, 98.0, 10.0  # per cent: places that the paper's figures look at
_CHANGED = 0.5  # rank correlation below which a map is called another one, as in the claims
_MOST_NAMES = 3
_CONTROLS = ("random", "sobel", "active")
_RELEASED = "_released"  # end of the name of a method as the released code computes it


def training_findings(table: pd.DataFrame) -> Findings:
    """Say how good the network is.

    Args:
        table: tidy table of a training.

    Returns:
        The sentence by figure.
    """
    test = table[table.metric == "test_accuracy"]
    epochs = table[(table.metric == "val_accuracy") & (table.x_name == "epoch")]
    if test.empty:
        return {}
    row = test.iloc[0]
    sentence = f"Test accuracy {_number(row.value)} %{_interval(row)}, n = {row.n}"
    if len(epochs):
        best = epochs.loc[epochs.value.idxmax()]
        sentence += (
            f"; on the validation images at most {_number(best.value)} %, in epoch {float(best.x):g} of "
            f"{epochs.x.astype(float).max():g}"
        )
    return {"training": sentence + "."}


def path_analysis_findings(table: pd.DataFrame) -> Findings:
    """Say how alike the pathways are, how dead, what they still answer, and where they lie.

    Args:
        table: tidy table of a path analysis.

    Returns:
        Sentences by figure, all at the sparsity nearest to the paper's.
    """
    at = _numeric(table, "sparsity")
    paper = at[at.metric.str.endswith(MARK)]
    rows = _nearest(at[~at.metric.str.endswith(MARK)], _ANALYSED)
    if rows.empty:
        return {}
    sparsity = float(rows.x.iloc[0])
    found = {
        "overlap": _overlaps(rows, sparsity),
        "dead_share": _extremes(rows, "dead_share", "The share of dead neurons is"),
        "responses": " ".join(
            sentence
            for sentence in (
                _extremes(rows, "class_kept", "The share of images whose class survives is"),
                _extremes(rows, "response_change", "The change of its probability is"),
            )
            if sentence
        ),
        **_by_site(rows),
    }
    found = {name: f"At {sparsity:g} % pruned: {sentence}" for name, sentence in found.items() if sentence}
    distances = [_from_published(at, paper, metric) for metric in ("dead_share", "jaccard")]
    return found | _if_any("published", " ".join(filter(None, distances)))


def _overlaps(rows: pd.DataFrame, sparsity: float) -> str:
    pairs: dict[frozenset[str], float] = {}
    overlaps = rows[rows.metric.str.startswith("jaccard/") & rows.value.notna()]
    for row in overlaps.itertuples():
        pair = frozenset((row.method, row.metric.partition("/")[2]))
        if not any(name in _CONTROLS or name.endswith(_RELEASED) for name in pair):
            pairs.setdefault(pair, float(row.value))
    if not pairs:
        return ""
    most, least = (choose(pairs, key=lambda pair: pairs[pair]) for choose in (max, min))
    kept = 1 - sparsity / 100
    sentence = f"{_both(most)} overlap most ({_number(pairs[most])})"
    if len(pairs) > 1:
        sentence += f", {_both(least)} least ({_number(pairs[least])})"
    return f"{sentence}; two random pathways of this size would by {_number(kept / (2 - kept))}."


def _both(pair: Iterable[str]) -> str:
    return " and ".join(map(label_of, in_order(pair)))


def _by_site(rows: pd.DataFrame) -> Findings:
    reference = next((name for name in ("neuron_intgrad", "neuron_mct") if name in set(rows.method)), "")
    kept, dead = _sites(rows, "site_kept/"), _sites(rows, "site_dead_share/")
    shared = _sites(rows, f"site_jaccard/{reference}/").assign(metric="site_jaccard")
    found = {}
    if len(kept):
        method = reference or in_order(kept.method)[0]
        own = kept[kept.method == method].set_index("site").value
        found["sites_kept"] = (
            f"{label_of(method)} keeps the largest share at {own.idxmax()} ({_number(own.max())} %), the smallest "
            f"at {own.idxmin()} ({_number(own.min())} %)."
        )
    if len(shared):
        means = shared.groupby(["method", "metric"], as_index=False).value.mean()
        found["sites_overlap"] = _extremes(
            means, "site_jaccard", f"The overlap with {label_of(reference)}, as mean over the sites, is"
        )
    if len(dead):
        highest = dead.loc[dead.value.idxmax()]
        found["sites_dead_share"] = (
            f"The largest share of dead neurons is that of {label_of(highest.method)} at {highest.site} "
            f"({_number(highest.value)} %)."
        )
    return found


def _sites(rows: pd.DataFrame, prefix: str) -> pd.DataFrame:
    """Rows of a metric of sites, with the site's name in a column."""
    found = rows[rows.metric.str.startswith(prefix) & rows.value.notna()]
    return found.assign(site=found.metric.str.removeprefix(prefix))


def decoding_findings(table: pd.DataFrame) -> Findings:
    """Say what the decoded pictures get for their class.

    Args:
        table: tidy table of a path decoding.

    Returns:
        Sentences by figure, with a pattern for those of single images.
    """
    at = _numeric(table, "sparsity")
    own = at[~at.method.isin(list(PseudoMethod))]
    found: Findings = {}
    for sparsity in sorted(own.x.unique()):
        rows = own[own.x == sparsity]
        inputs = at[(at.x == sparsity) & (at.method == PseudoMethod.INPUT) & (at.metric == "probability_original")]
        beside = f"; the images themselves get {_number(inputs.value.iloc[0])}" if len(inputs) else ""
        sentence = _extremes(rows, "probability_original", "The probability in the original network is")
        found |= _if_any(f"speaks_for-{sparsity:g}", sentence.removesuffix(".") + f"{beside}." if sentence else "")
        found |= _if_any(f"decoded-{sparsity:g}", _decoded(rows))
    found |= _if_any(
        "decoded-sweep-*", _falls(own, "probability_original", "the probability in the original network")
    )
    return found | _if_any("top_neurons", _same_channels(table))


def _decoded(rows: pd.DataFrame) -> str:
    sentence = _extremes(rows, "probability_own", "The probability in the own network is")
    without = rows[(rows.metric == "dead") & (rows.value > 0)].set_index("method").value
    if len(without):
        listed = ", ".join(f"{label_of(name)} {_number(without[name])} %" for name in in_order(without.index))
        sentence += f" Images without a picture, as no gradient reaches the input: {listed}."
    return sentence.strip()


def _same_channels(table: pd.DataFrame) -> str:
    channels = table[table.metric == "top_channel"].pivot_table(index="x", columns="method", values="value")
    pairs = itertools.combinations(in_order(channels.columns), 2)
    same = {pair: int((channels[pair[0]] == channels[pair[1]]).sum()) for pair in pairs}
    if not same:
        return ""
    most = max(same, key=lambda pair: same[pair])
    alike = int((channels.nunique(axis=1) == 1).sum())
    return (
        f"{_both(most)} name the same channel on {same[most]} of {len(channels)} images, the most of any two "
        f"methods; all methods do on {alike}."
    )


def saliency_findings(table: pd.DataFrame) -> Findings:
    """Say how sure the network is of the images, and how the pathway gradient departs from the gradient.

    Args:
        table: tidy table of a saliency experiment.

    Returns:
        Sentences by figure, with a pattern for those of single images.
    """
    probabilities = table[table.metric == "class_probability"].value
    found: Findings = {}
    if len(probabilities):
        sentence = (
            f"The network gives the predicted classes of these {len(probabilities)} images probabilities from "
            f"{_number(probabilities.min())} to {_number(probabilities.max())}."
        )
        found = {"maps": sentence, "overlays": sentence}
    at = _numeric(table, "sparsity")
    change = _falls(at, "similarity_to_gradient", "the similarity to the gradient")
    return found | _if_any("similarity_to_gradient", change) | _if_any("sparsities_*", change)


def degradation_findings(table: pd.DataFrame) -> Findings:
    """Say which attributions do best when pixels are removed.

    Args:
        table: tidy table of an input degradation.

    Returns:
        Sentences by figure.
    """
    removed, areas = _numeric(table, "percent_removed"), _numeric(table, "up_to_percent")
    paper = removed[removed.metric == f"lerf_change{MARK}"]
    curves = _nearest(removed, _FIRST)
    at = f"With {curves.x.iloc[0]:g} % of the pixels removed, " if len(curves) else ""
    found: Findings = {}
    for figure, suffix in (("degradation", "_change"), ("degradation_road", "_change_road")):
        sentences = _orders(curves, suffix, "change")
        found |= _if_any(figure, at + sentences if sentences else "")
    widest = areas[areas.x == areas.x.max()]
    sentences = _orders(widest, "_area", "area")
    found |= _if_any("areas", f"Up to {widest.x.iloc[0]:g} % of the pixels, {sentences}" if sentences else "")
    found |= _if_any("rank_agreement", _agreement(widest))
    return found | _if_any("published", _from_published(removed, paper, "lerf_change"))


def _orders(rows: pd.DataFrame, suffix: str, what: str) -> str:
    """Sentences on both orders of removal, where there are such rows."""
    words = {"lerf": "LeRF (lower is better)", "morf": "MoRF (higher is better)"}
    said = [_extremes(rows, order + suffix, f"{text}: the {what} is") for order, text in words.items()]
    return " ".join(filter(None, said))


def _agreement(rows: pd.DataFrame) -> str:
    pairs = rows[rows.metric.str.startswith("rank_agreement/") & rows.value.notna()].set_index("metric").value
    if pairs.empty:
        return ""
    most, least = (
        f"{' and '.join(map(criterion_label, str(name).split('/')[1:]))} (τ = {_number(round(pairs[name], 2))})"
        for name in (pairs.idxmax(), pairs.idxmin())
    )
    if len(pairs) == 1:
        return f"Agreement of the orders: {most}."
    return f"The orders agree most between {most}, and least between {least}."


def sanity_check_findings(table: pd.DataFrame) -> Findings:
    """Say which maps change as the network is randomised, and how early.

    Args:
        table: tidy table of the sanity checks.

    Returns:
        Sentences by figure, with a pattern for those of single images.
    """
    at = table[table.x_name == "randomized_down_to"]
    blocks = list(dict.fromkeys(at[~at.metric.str.contains("/")].x))
    if not blocks:
        return {}
    rows = at[at.metric == "spearman_abs"]
    last = rows[rows.x == blocks[-1]]
    found = _if_any(
        "sanity_checks",
        _extremes(last, "spearman_abs", "With every block redrawn, the rank correlation of magnitudes is"),
    )
    if len(rows):
        found["strip_*"] = (
            f"Mean over the images, the rank correlation falls below {_CHANGED:g} at: {_falling(rows, blocks)}."
        )
    for measure in ("spearman", "spearman_abs", "ssim", "hog"):
        paper = at[at.metric == measure + MARK]
        found |= _if_any(f"published_{measure}", _from_published(at, paper, measure))
    return found


def _falling(rows: pd.DataFrame, blocks: Sequence[str]) -> str:
    """Methods by the first block, from the logits on, at which their similarity is low."""
    places: dict[str, list[str]] = {}
    for method in in_order(rows.method):
        values = rows[rows.method == method].set_index("x").value.reindex(blocks)
        low = values[values < _CHANGED]
        places.setdefault(str(low.index[0]) if len(low) else "no block", []).append(label_of(method))
    order = [*blocks, "no block"]
    return "; ".join(f"{place} ({', '.join(places[place])})" for place in sorted(places, key=order.index))


def roar_findings(table: pd.DataFrame) -> Findings:
    """Say after the removal of whose pixels retraining does worst and best.

    Args:
        table: tidy table of a ROAR table.

    Returns:
        Sentences by figure.
    """
    modes = {"roar": ("Without", "lower"), "kar": ("On", "higher")}
    curves, areas = [], []
    for mode, (word, better) in modes.items():
        rows = table[table.metric == f"{mode}_accuracy"].assign(x=lambda frame: frame.x.astype(float))
        middle = _nearest(rows, 50.0)
        if len(middle):
            words = f"{word} the {middle.x.iloc[0]:g} % most relevant pixels ({better} is better), accuracy is"
            curves.append(_extremes(middle, f"{mode}_accuracy", words))
        areas.append(_extremes(table, f"{mode}_area", f"{mode.upper()}: the mean accuracy ({better} is better) is"))
    base = table[(table.metric == "test_accuracy") & (table.method == PseudoMethod.BASE)].value
    if curves and len(base):
        curves.append(f"On untouched images the explained network has {_number(base.mean())} %.")
    found = _if_any("roar", " ".join(curves)) | _if_any("areas", " ".join(filter(None, areas)))
    found |= _if_any("paired", _pairs(table))
    tau = table[table.metric == "roar_rank_agreement/roar/kar"]
    if len(tau):
        found["rank_agreement"] = (
            f"Kendall's τ of ROAR and KAR is {_number(tau.value.iloc[0])}{_interval(tau.iloc[0])}."
        )
    at = _numeric(table, "percent_removed")
    published = _from_published(at, at[at.metric == f"roar_accuracy{MARK}"], "roar_accuracy")
    return found | _if_any("published", published)


def _pairs(table: pd.DataFrame) -> str:
    """Sentence on the methods that are ahead of most others in ROAR, by intervals that exclude zero."""
    rows = table[table.metric.str.startswith("roar_difference/")]
    certain = rows[(rows.ci_low > 0) | (rows.ci_high < 0)]
    if rows.empty or rows.n.max() < 2:
        return ""
    ahead: dict[str, int] = {}
    for row in certain.itertuples():
        better = row.method if row.value < 0 else row.metric.partition("/")[2]
        ahead[better] = ahead.get(better, 0) + 1
    sentence = f"In ROAR, {len(certain)} of {len(rows)} pairs differ by an interval that excludes zero"
    if ahead:
        best = max(ahead.values())
        names = _names([name for name in in_order(ahead) if ahead[name] == best])
        sentence += f"; {names} {'are' if ' and ' in names else 'is'} ahead of most others ({best})"
    return sentence + "."


def faithfulness_findings(table: pd.DataFrame) -> Findings:
    """Say whose best units carry the answer.

    Args:
        table: tidy table of a faithfulness.

    Returns:
        Sentences by figure.
    """
    sufficient, necessary = (
        _extremes(table, metric, f"{word}, as mean distance from the whole answer (lower is better), is")
        for metric, word in (("cmd", "Sufficiency"), ("necessity_cmd", "Necessity"))
    )
    both = " ".join(filter(None, (sufficient, necessary)))
    rises = [
        _extremes(table, f"cmd_rise/{control}", f"{text}, the distance rises", high="most", low="least")
        for control, text in (("transfer", "On copies of the input"), ("other_answer", "Asked for the runner-up"))
    ]
    found = _if_any("faithfulness", sufficient) | _if_any("faithfulness_numbers", both)
    return found | _if_any("faithfulness_controls", " ".join(filter(None, rises)))


def linearity_findings(table: pd.DataFrame) -> Findings:
    """Say in whose pathways the network is affine furthest.

    Args:
        table: tidy table of a local linearity.

    Returns:
        The sentence by figure.
    """
    rows = _nearest(_numeric(table, "sparsity"), _ANALYSED)
    sentence = _extremes(rows, "affine_radius", "The radius is", high="largest", low="smallest")
    return _if_any("linearity", f"At {rows.x.iloc[0]:g} % pruned: {sentence}" if sentence else "")


def quadrature_findings(table: pd.DataFrame) -> Findings:
    """Say which rule of nodes is the most accurate.

    Args:
        table: tidy table of a quadrature.

    Returns:
        The sentence by figure.
    """
    return _if_any("quadrature", _extremes(table, "residual", "The completeness residual is"))


def benchmark_findings(table: pd.DataFrame) -> Findings:
    """Say how many times keep the limits that cpath sets itself.

    Args:
        table: tidy table of a benchmark.

    Returns:
        The sentence by figure.
    """
    at = ["method", "x_name", "x"]
    ratios = table[table.metric == "ratio_to_floor"].merge(
        table[table.metric == "limit_to_floor"], on=at, suffixes=("", "_limit")
    )
    found: Findings = {}
    if len(ratios):
        kept = int((ratios.value <= ratios.value_limit).sum())
        found["ratios"] = f"{kept} of {len(ratios)} times keep the limit on the passes that they must contain."
    return found | _if_any("scaling", " ".join(_growth(table)))


def _growth(table: pd.DataFrame) -> Iterator[str]:
    """Sentences on the time of each method for the most of what grows over that for the least."""
    compared = table[table.metric.str.startswith("ratio_to_")].method
    for name in ("images", "sites", "pathways"):
        rows = _numeric(table[(table.metric == "seconds") & table.method.isin(compared)], name)
        parts = []
        for method, line in rows.groupby("method", sort=False):
            few, many = line.loc[line.x.idxmin()], line.loc[line.x.idxmax()]
            words = label_of(str(method).partition(",")[0])
            parts.append(f"{words} {_number(many.value / few.value)} times ({few.x:g} to {many.x:g})")
        if parts:
            yield f"With more {name}, the time grows: {', '.join(parts)}."


def finding_of(name: str, findings: Mapping[str, str]) -> str:
    """Look up the sentence of a figure.

    Args:
        name: of the figure.
        findings: by name or pattern.

    Returns:
        The sentence; empty where there is none.
    """
    return next((text for pattern, text in findings.items() if fnmatchcase(name, pattern)), "")


def _if_any(name: str, sentence: str) -> Findings:
    return {name: sentence} if sentence else {}


def _numeric(table: pd.DataFrame, x_name: str) -> pd.DataFrame:
    return table[table.x_name == x_name].assign(x=lambda frame: frame.x.astype(float))


def _nearest(rows: pd.DataFrame, wanted: float) -> pd.DataFrame:
    """Rows at the place nearest to one."""
    if rows.empty:
        return rows
    places = rows.x.unique()
    return rows[rows.x == min(places, key=lambda x: (abs(x - wanted), x))]


def _extremes(rows: pd.DataFrame, metric: str, words: str, *, high: str = "highest", low: str = "lowest") -> str:
    """Sentence on the methods with the highest and the lowest number, with the controls beside them.

    Args:
        rows: of one place.
        metric: name of the numbers.
        words: beginning of the sentence.
        high: word for the highest number.
        low: word for the lowest one.

    Returns:
        The sentence; empty where no method has a number.
    """
    rows = rows[(rows.metric == metric) & rows.value.notna() & ~rows.method.isin(list(PseudoMethod))]
    values = rows.drop_duplicates("method").set_index("method").value
    own = values[~values.index.isin(_CONTROLS)]
    if own.empty:
        return ""
    entry = METRICS.get(base_name(metric))
    unit = f" {entry.unit}" if entry is not None and entry.unit else ""
    said = {str(name): f"{_number(value)}{unit}" for name, value in values.items()}
    top, bottom = said[own.idxmax()], said[own.idxmin()]
    ends = {high: top, low: bottom} if top != bottom else {"": top}
    parts = []
    for word, text in ends.items():
        names = _names([name for name in in_order(own.index) if said[name] == text])
        parts.append(f"{word} for {names} ({text})" if word else f"{text} for {names}")
    controls = [f"{label_of(name)}: {said[name]}" for name in in_order(said) if name in _CONTROLS]
    return f"{words} {', '.join(parts)}{'; ' if controls else ''}{', '.join(controls)}."


def _names(methods: Sequence[str]) -> str:
    if len(methods) > _MOST_NAMES:
        return f"{len(methods)} methods"
    *others, last = map(label_of, methods)
    return f"{', '.join(others)} and {last}" if others else last


def _falls(rows: pd.DataFrame, metric: str, words: str) -> str:
    """Sentence on the change of a number from the smallest to the largest sparsity at which there is one."""
    parts = list(_changes(rows[(rows.metric == metric) & rows.value.notna()]))
    return f"As the network is pruned, {words} goes, in the mean over images, {'; '.join(parts)}." if parts else ""


def _changes(rows: pd.DataFrame) -> Iterator[str]:
    for method in in_order(rows.method)[:_MOST_NAMES]:
        line = rows[rows.method == method].sort_values("x")
        if len(line) > 1:
            first, last = line.iloc[0], line.iloc[-1]
            yield (
                f"from {_number(first.value)} at {first.x:g} % to {_number(last.value)} at {last.x:g} % for "
                f"{label_of(method)} (n = {last.n})"
            )


def _from_published(ours: pd.DataFrame, paper: pd.DataFrame, metric: str) -> str:
    """Sentence on the distance of our numbers from the published ones at the same places."""
    theirs = paper[paper.metric.map(base_name) == metric].assign(
        metric=lambda frame: frame.metric.str.removesuffix(MARK)
    )
    both = ours.merge(theirs, on=["method", "metric", "x"], suffixes=("", "_published"))
    if both.empty:
        return ""
    distances = (both.value - both.value_published).abs()
    furthest = both.loc[distances.idxmax()]
    entry = METRICS[metric]
    unit = f" {entry.unit}" if entry.unit else ""
    points = " points" if entry.unit == "%" else unit
    return (
        f"{entry.label[:1].upper()}{entry.label[1:]}: {_number(distances.mean())}{points} from the published "
        f"numbers in the mean, furthest for {label_of(furthest.method)} (here {_number(furthest.value)}{unit}, "
        f"published {_number(furthest.value_published)}{unit})."
    )


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _interval(row: pd.Series) -> str:
    return "" if pd.isna(row.ci_low) else f" ({_number(row.ci_low)} to {_number(row.ci_high)})"
