"""Claims of the paper, held against a tidy table: every verdict is computed, and comes with its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from cpath.viz import label_of
from experiments.engine.metric_entry import base_name
from experiments.metrics import METRICS

REPRODUCED, NOT_REPRODUCED, UNCLEAR, NOT_MEASURED = "reproduced", "not reproduced", "unclear", "not measured"
_NO_VALUE = "no value"
_A_FEW = 1.0  # per cent; a share of dead neurons below this is none to speak of
_OTHERS = ("gradients", "input_mct", "input_intgrad", "gbp")
_OURS = ("neuron_mct", "neuron_intgrad")


@dataclass(frozen=True)
class Comparison:
    """Two numbers held against a claim."""

    text: str
    """The numbers in words."""
    holds: bool | None
    """True if they are as claimed, False if the other way round; None where intervals overlap or are missing."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper, with the numbers that confirm or refute it."""

    place: str
    """Part of the paper that says it."""
    text: str
    """The sentence."""
    metric: str
    """Name of the numbers that decide."""
    about: str = ""
    """Further words on these numbers."""
    compare: Callable[[pd.DataFrame], list[Comparison]]
    """Makes the comparisons from a tidy table; none where it has no such numbers."""

    @property
    def numbers(self) -> str:
        """Words on the numbers that decide: label, what it is about, and which direction is better."""
        metric = METRICS[self.metric]
        about = f" ({self.about})" if self.about else ""
        better = f", {metric.better} is better" if metric.better else ""
        return f"{metric.label[:1].upper()}{metric.label[1:]}{about}{better}"


@dataclass(frozen=True)
class Verdict:
    """A claim, with the comparisons that decide whether it was reproduced."""

    claim: Claim
    """The sentence of the paper."""
    comparisons: list[Comparison]
    """Comparisons that decide."""

    @property
    def word(self) -> str:
        """Reproduced if every comparison holds, not reproduced if one is the other way round, else unclear."""
        if not self.comparisons:
            return NOT_MEASURED
        if any(comparison.holds is False for comparison in self.comparisons):
            return NOT_REPRODUCED
        return UNCLEAR if any(comparison.holds is None for comparison in self.comparisons) else REPRODUCED


def verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Hold a tidy table against all claims.

    Args:
        table: results of one dataset and model.

    Returns:
        A verdict for each claim, in the order of the paper.
    """
    return [Verdict(claim, claim.compare(table)) for claim in CLAIMS]


def _rows(table: pd.DataFrame, metric: str, methods: Sequence[str], x_name: str) -> pd.DataFrame:
    return table[(table.metric == metric) & table.method.isin(list(methods)) & (table.x_name == x_name)]


def _at(table: pd.DataFrame, metric: str, method: str, x_name: str, x: str) -> pd.Series | None:
    rows = _rows(table, metric, [method], x_name)
    rows = rows[(rows.x.astype(str) == x) & rows.value.notna()]
    return None if rows.empty else rows.iloc[0]


def _value(row: pd.Series) -> str:
    return _NO_VALUE if pd.isna(row.value) else f"{row.value:.3g}{_unit(row)}"


def _shown(row: pd.Series) -> str:
    if pd.isna(row.ci_low):
        return _value(row)
    return f"{_value(row)} ({row.ci_low:.3g} to {row.ci_high:.3g}{_unit(row)})"


def _unit(row: pd.Series) -> str:
    unit = METRICS[base_name(row.metric)].unit
    return f" {unit}" if unit else ""


def _places(table: pd.DataFrame, metric: str, x_name: str) -> list[str]:
    rows = table[(table.metric == metric) & (table.x_name == x_name)]
    return list(dict.fromkeys(rows.x.astype(str)))


def _per_cent(x: str) -> str:
    return f"{float(x):g} %"


def _smaller(less: pd.Series, more: pd.Series) -> bool | None:
    """Compare two numbers by their intervals: True if one is smaller, False if larger, None where they overlap."""
    if pd.isna(less.ci_high) or pd.isna(more.ci_low):
        return None
    return True if less.ci_high < more.ci_low else False if less.ci_low > more.ci_high else None


def _pairs(
    table: pd.DataFrame,
    metric: str,
    small: Iterable[str],
    large: Sequence[str],
    x_name: str,
    places: Iterable[str],
) -> list[Comparison]:
    """Each of ``small`` beside the one of ``large`` that comes nearest to it, at each place."""
    found = []
    for x in places:
        others = [row for row in (_at(table, metric, name, x_name, x) for name in large) if row is not None]
        for name in small:
            mine = _at(table, metric, name, x_name, x)
            if mine is None or not others:
                continue
            outcomes = [_smaller(mine, other) for other in others]
            holds = False if False in outcomes else None if None in outcomes else True
            nearest = min(others, key=lambda row: row.value)
            where = f" at {_per_cent(x)}" if x_name == "sparsity" else ""
            text = (
                f"{label_of(name)} {_shown(mine)}, smallest of the others {label_of(nearest.method)} "
                f"{_shown(nearest)}{where}"
            )
            found.append(Comparison(text, holds))
    return found


def _no_dead(table: pd.DataFrame) -> list[Comparison]:
    return [
        Comparison(
            f"{label_of(row.method)} {_value(row)} at {_per_cent(row.x)}",
            None if pd.isna(row.value) else row.value == 0,  # pathways that are empty for every image have no share
        )
        for _, row in _rows(table, "dead_share", _OURS, "sparsity").iterrows()
    ]


def _some_dead(method: str) -> Callable[[pd.DataFrame], list[Comparison]]:
    def compare(table: pd.DataFrame) -> list[Comparison]:
        return [
            Comparison(
                f"{label_of(method)} {_shown(row)} at {_per_cent(row.x)}",
                True if row.ci_low > _A_FEW else False if row.ci_high < _A_FEW else None,
            )
            for _, row in _rows(table, "dead_share", [method], "sparsity").iterrows()
        ]

    return compare


def _overlap(table: pd.DataFrame) -> list[Comparison]:
    found = []
    for x in _places(table, "jaccard/neuron_intgrad", "sparsity"):
        together = _at(table, "jaccard/neuron_intgrad", "neuron_mct", "sparsity", x)
        for method in ("greedy", "dgr"):
            apart = _at(table, "jaccard/neuron_intgrad", method, "sparsity", x)
            if together is not None and apart is not None:
                text = (
                    f"with NeuronMCT {_shown(together)}, with {label_of(method)} {_shown(apart)} at {_per_cent(x)}"
                )
                found.append(Comparison(text, _smaller(apart, together)))
    return found


def _decoded(table: pd.DataFrame) -> list[Comparison]:
    places = _places(table, "probability_original", "sparsity")[-1:]
    return _pairs(table, "probability_original", ["greedy", "dgr"], _OURS, "sparsity", places)


def _lerf(small: Sequence[str], large: Sequence[str]) -> Callable[[pd.DataFrame], list[Comparison]]:
    def compare(table: pd.DataFrame) -> list[Comparison]:
        places = _places(table, "lerf_area", "up_to_percent")[:1]  # the paper's figure ends at 10 %
        return _pairs(table, "lerf_area", small, large, "up_to_percent", places)

    return compare


def _roar(small: Sequence[str], large: Sequence[str]) -> Callable[[pd.DataFrame], list[Comparison]]:
    def compare(table: pd.DataFrame) -> list[Comparison]:
        places = _places(table, "roar_area", "up_to_percent")[-1:]
        return _pairs(table, "roar_area", small, large, "up_to_percent", places)

    return compare


_CHANGED = 0.5  # a rank correlation below this is another map: our reading, the paper names no number


def _sensitive(methods: Sequence[str]) -> Callable[[pd.DataFrame], list[Comparison]]:
    def compare(table: pd.DataFrame) -> list[Comparison]:
        found = []
        for x in _places(table, "spearman_abs", "randomized_down_to")[-1:]:
            for method in methods:
                row = _at(table, "spearman_abs", method, "randomized_down_to", x)
                if row is not None:
                    holds = True if row.ci_high < _CHANGED else False if row.ci_low > _CHANGED else None
                    found.append(Comparison(f"{label_of(method)} {_shown(row)}", holds))
        return found

    return compare


CLAIMS = (
    Claim(
        place="Path analysis",
        text="The pathways of NeuronMCT and NeuronIntGrad contain no originally dead neuron.",
        metric="dead_share",
        compare=_no_dead,
    ),
    Claim(
        place="Path analysis",
        text="Greedy pruning selects originally dead neurons.",
        metric="dead_share",
        compare=_some_dead("greedy"),
    ),
    Claim(
        place="Path analysis",
        text="Distillation guided routing selects originally dead neurons.",
        metric="dead_share",
        compare=_some_dead("dgr"),
    ),
    Claim(
        place="Path analysis",
        text="The pathway of NeuronIntGrad overlaps more with that of NeuronMCT than with those of pruning and "
        "routing.",
        metric="jaccard",
        about="with the pathway of NeuronIntGrad",
        compare=_overlap,
    ),
    Claim(
        place="Path decoding",
        text="What the pathways of NeuronMCT and NeuronIntGrad encode speaks for the class more than what those of "
        "pruning and routing encode.",
        metric="probability_original",
        compare=_decoded,
    ),
    Claim(
        place="Sanity checks",
        text="The maps of NeuronMCT and NeuronIntGrad depend on the weights: after all are randomised another map "
        "is left.",
        metric="spearman_abs",
        about=f"with the original map; by our reading it is another one below {_CHANGED:g}",
        compare=_sensitive(_OURS),
    ),
    Claim(
        place="Input degradation (LeRF)",
        text="NeuronMCT and NeuronIntGrad rank pixels better than Gradients, GBP, InputMCT and InputIntGrad.",
        metric="lerf_area",
        about="up to 10 % of the pixels",
        compare=_lerf(_OURS, _OTHERS),
    ),
    Claim(
        place="Input degradation (LeRF)",
        text="NeuronIntGrad* is the best of all.",
        metric="lerf_area",
        about="up to 10 % of the pixels",
        compare=_lerf(["neuron_intgrad_star"], ["gradcam", *_OURS, *_OTHERS]),
    ),
    Claim(
        place="ROAR",
        text="Retraining without the pixels that NeuronMCT and NeuronIntGrad find costs more accuracy than without "
        "those of Gradients, GBP, InputMCT and InputIntGrad.",
        metric="roar_area",
        compare=_roar(_OURS, _OTHERS),
    ),
    Claim(
        place="ROAR",
        text="NeuronIntGrad* is the best of all.",
        metric="roar_area",
        compare=_roar(["neuron_intgrad_star"], ["gradcam", *_OURS, *_OTHERS]),
    ),
)
