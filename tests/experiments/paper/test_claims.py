"""Verdicts on the paper's claims, from tables made so that the right answer is known."""

from __future__ import annotations

import pandas as pd
import pytest

from experiments.engine.metric_entry import base_name
from experiments.engine.table import COLUMNS
from experiments.metrics import METRICS
from experiments.paper.claims import CLAIMS, NOT_MEASURED, NOT_REPRODUCED, REPRODUCED, UNCLEAR, verdicts

DEAD = "The pathways of NeuronMCT and NeuronIntGrad contain no originally dead neuron"
LERF = "NeuronMCT and NeuronIntGrad rank pixels better"
ROAR = "Retraining without the pixels"


def _table(*rows: tuple[str, str, str, str, float, float]) -> pd.DataFrame:
    """Rows (metric, method, x_name, x, value, half the interval)."""
    return pd.DataFrame(
        [
            ("any", "digits", "resnet8_narrow", method, x_name, x, metric, value, value - half, value + half, 9, 0)
            for metric, method, x_name, x, value, half in rows
        ],
        columns=list(COLUMNS),
    )


def _verdict(table: pd.DataFrame, start: str):
    (found,) = [one for one in verdicts(table) if one.claim.text.startswith(start)]
    return found


def _lerf(ours: float, theirs: float, half: float = 0.01) -> pd.DataFrame:
    values = {"neuron_mct": ours, "neuron_intgrad": ours, "gradients": theirs, "gbp": theirs + 0.1}
    return _table(
        *(("lerf_area", method, "up_to_percent", "10.0", value, half) for method, value in values.items())
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "half", "word"),
    [
        (0.1, 0.3, 0.01, REPRODUCED),
        (0.3, 0.1, 0.01, NOT_REPRODUCED),
        (0.1, 0.11, 0.05, UNCLEAR),
        (0.1, 0.3, float("nan"), UNCLEAR),  # without an interval nothing is decided
    ],
)
def test_intervals_decide(ours, theirs, half, word):
    assert _verdict(_lerf(ours, theirs, half), LERF).word == word


def test_the_numbers_stand_beside_the_verdict():
    found = _verdict(_lerf(0.1, 0.3), LERF)
    assert found.comparisons[0].text == (
        "NeuronMCT 0.1 (0.09 to 0.11), smallest of the others Gradients 0.3 (0.29 to 0.31)"
    )


def test_one_method_that_is_better_is_enough_to_refute_even_if_others_are_not():
    table = pd.concat([_lerf(0.2, 0.1), _table(("lerf_area", "input_mct", "up_to_percent", "10.0", 0.9, 0.01))])
    assert _verdict(table, LERF).word == NOT_REPRODUCED


def test_a_single_dead_neuron_refutes_that_there_are_none():
    clean = [
        ("dead_share", method, "sparsity", x, 0.0, 0.0) for method in ("neuron_mct", "neuron_intgrad") for x in "89"
    ]
    assert _verdict(_table(*clean), DEAD).word == REPRODUCED
    dirty = [*clean[:-1], ("dead_share", "neuron_intgrad", "sparsity", "9", 1e-4, 0.0)]
    assert _verdict(_table(*dirty), DEAD).word == NOT_REPRODUCED


def test_without_any_pathway_nothing_is_said_about_dead_neurons():
    nothing = ("dead_share", "neuron_mct", "sparsity", "99", float("nan"), float("nan"))
    found = _verdict(_table(nothing), DEAD)
    assert (found.word, found.comparisons[0].text) == (UNCLEAR, "NeuronMCT no value at 99 %")
    greedy = _verdict(_table(("dead_share", "greedy", *nothing[2:])), "Greedy pruning selects")
    assert (greedy.word, greedy.comparisons[0].text) == (UNCLEAR, "Greedy no value at 99 %")
    dirty = ("dead_share", "neuron_intgrad", "sparsity", "99", 10.0, 0.0)
    assert _verdict(_table(nothing, dirty), DEAD).word == NOT_REPRODUCED


@pytest.mark.parametrize(("share", "word"), [(40.0, REPRODUCED), (0.0, NOT_REPRODUCED), (1.2, UNCLEAR)])
def test_greedy_has_to_hold_dead_neurons(share, word):
    table = _table(("dead_share", "greedy", "sparsity", "90.0", share, 0.5))
    assert _verdict(table, "Greedy pruning selects").word == word


def test_shares_are_shown_in_per_cent_and_explained():
    table = _table(("dead_share", "greedy", "sparsity", "90.0", 40.0, 0.5))
    found = _verdict(table, "Greedy pruning selects")
    assert found.comparisons[0].text == "Greedy 40 % (39.5 to 40.5 %) at 90 %"
    assert found.claim.numbers == "Dead share"
    assert _verdict(table, "The pathway of NeuronIntGrad").claim.numbers == (
        "Jaccard index (with the pathway of NeuronIntGrad)"
    )


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_numbers_of_claims_are_registered_metrics(claim):
    assert claim.metric == base_name(claim.metric)
    assert claim.metric in METRICS
    assert claim.numbers[0].isupper() or not claim.numbers[0].isalpha()


@pytest.mark.parametrize(("together", "apart", "word"), [(0.6, 0.2, REPRODUCED), (0.2, 0.6, NOT_REPRODUCED)])
def test_overlap_is_compared_at_the_same_sparsity(together, apart, word):
    metric = "jaccard/neuron_intgrad"
    table = _table(
        (metric, "neuron_mct", "sparsity", "90.0", together, 0.01),
        (metric, "greedy", "sparsity", "90.0", apart, 0.01),
        (metric, "greedy", "sparsity", "99.0", 0.99, 0.01),
    )
    found = _verdict(table, "The pathway of NeuronIntGrad overlaps more")
    assert (found.word, len(found.comparisons)) == (word, 1)


@pytest.mark.parametrize(("after", "word"), [(0.1, REPRODUCED), (0.9, NOT_REPRODUCED), (0.5, UNCLEAR)])
def test_maps_have_to_change_after_the_last_block(after, word):
    blocks = {"fc": (0.95, 0.01), "conv": (after, 0.05)}
    rows = [("spearman_abs", "neuron_mct", "randomized_down_to", x, *values) for x, values in blocks.items()]
    table = _table(*rows)
    assert _verdict(table, "The maps of NeuronMCT").word == word


def test_roar_counts_the_accuracy_that_is_left():
    methods = {"neuron_mct": 50.0, "neuron_intgrad": 52.0, "gradients": 80.0}
    table = _table(*(("roar_area", method, "up_to_percent", "90", value, 2.0) for method, value in methods.items()))
    assert _verdict(table, ROAR).word == REPRODUCED


def test_what_no_experiment_measured_is_not_called_anything_else():
    assert {one.word for one in verdicts(_table())} == {NOT_MEASURED}
