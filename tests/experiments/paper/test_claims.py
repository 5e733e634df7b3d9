"""Verdicts on the paper's claims, from results made so that the right answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from cpath.evaluation import area_under_curve
from experiments.engine.metric_entry import base_name
from experiments.engine.table import Measure, Row, tidy_table
from experiments.metrics import METRICS
from experiments.paper.claims import CLAIMS
from experiments.paper.evidence import Results
from experiments.paper.verdicts import (
    BY_CONSTRUCTION,
    FAILS,
    HOLDS,
    NO_DIFFERENCE,
    NOT_DECIDED,
    NOT_MEASURED,
    NOT_TESTABLE,
    Verdict,
    verdict_on,
    verdicts,
)
from tests.experiments.paper.results import at, of_images, spread

DEAD = "The pathways of NeuronMCT and NeuronIntGrad contain no originally dead neuron"
RANDOM_GATES = "Distillation guided routing from random gates"
OVERLAP = "The pathway of NeuronIntGrad overlaps more"
APART = "The pathways of the pruning methods do not overlap"
OBJECTIVE = "Pruning meets its objective"
DECODED = "What the pathways of NeuronMCT and NeuronIntGrad encode"
LINEAR = "The network restricted to the pathways"
WEIGHTS = "The maps of NeuronMCT and NeuronIntGrad depend on the weights"
LERF = "NeuronMCT and NeuronIntGrad rank pixels better"
ROAR = "Retraining without the pixels"
FAITHFUL = "The neurons that NeuronMCT and NeuronIntGrad put first carry the response"
COPIES = "They carry it for copies of the image too"
REASONS = "They are the network's own reasons"
NEURON_STAR = "NeuronIntGrad* is the best of all"


def _verdict(results: Results, start: str) -> Verdict:
    (found,) = [one for one in verdicts(results) if one.claim.text.startswith(start)]
    return found


def _lerf(ours: float, theirs: float, n: int = 12, *, keep_images: bool = True) -> Results:
    means = {"neuron_mct": ours, "neuron_intgrad": ours, "gradients": theirs, "random": theirs + 0.1}
    curves = {
        measure: values
        for share in (5.0, 10.0, 50.0)
        for measure, values in at("lerf_change", "percent_removed", share, means, n).items()
    }
    areas = {}
    for method in means:
        columns = [curves[Measure(method, "lerf_change", "percent_removed", share)] for share in (5.0, 10.0)]
        areas[Measure(method, "lerf_area", "up_to_percent", 10.0)] = area_under_curve(
            [5.0, 10.0], np.array(columns).T
        ).tolist()
    results = of_images(areas | curves, keep_images=keep_images)
    return Results(results.table, results.per_image[results.per_image.metric != "lerf_area"])


@pytest.mark.parametrize(
    ("ours", "theirs", "word"), [(0.1, 0.3, HOLDS), (0.3, 0.1, FAILS), (0.1, 0.1, NO_DIFFERENCE)]
)
def test_paired_differences_decide(ours, theirs, word):
    assert _verdict(_lerf(ours, theirs), LERF).word == word


def test_without_the_numbers_of_single_images_nothing_is_guessed():
    found = _verdict(_lerf(0.1, 0.9, keep_images=False), LERF)
    assert found.word == NOT_DECIDED
    assert found.summary == "not decided (unpaired data)"
    assert found.comparisons[0].text == "NeuronMCT 0.075, Gradients 0.675: unpaired data: not decided"


def test_differences_that_are_small_against_the_scatter_of_images_are_found():
    # Each image changes by another amount, and every method by nearly the same: unpaired intervals overlap.
    image = np.linspace(0, 1, 20)
    curves = {
        Measure(method, "lerf_change", "percent_removed", share): (image + shift).tolist()
        for share in (5.0, 10.0)
        for method, shift in {"neuron_mct": 0.0, "gradients": 0.02}.items()
    }
    for method in ("neuron_mct", "gradients"):
        curves[Measure(method, "lerf_change", "percent_removed", 5.0)] = spread(0.2, 20, half=1e-6)
    areas = {
        Measure(method, "lerf_area", "up_to_percent", 10.0): area_under_curve(
            [5.0, 10.0],
            np.array([curves[Measure(method, "lerf_change", "percent_removed", x)] for x in (5.0, 10.0)]).T,
        ).tolist()
        for method in ("neuron_mct", "gradients")
    }
    results = of_images(areas | curves)
    rows = results.table[results.table.metric == "lerf_area"].set_index("method")
    assert rows.ci_high["neuron_mct"] > rows.ci_low["gradients"]
    assert _verdict(Results(results.table, results.per_image), LERF).word == HOLDS


def test_the_numbers_stand_beside_the_verdict():
    found = _verdict(_lerf(0.1, 0.3), LERF)
    # Heights 0 at 0 %, then 0.1 or 0.3 at 5 and 10 %: three quarters of them in the mean.
    assert found.comparisons[0].text.startswith("NeuronMCT 0.075, Gradients 0.225: difference -0.15 (-0.1")
    assert found.comparisons[0].text.endswith("), n = 12 images: as claimed")
    assert found.summary == "holds (4 of 4 as claimed, n = 12 images)"


def test_one_opponent_that_is_better_is_enough_to_refute():
    found = _verdict(_lerf(0.2, 0.15), LERF)
    assert (found.word, found.summary) == (FAILS, "does not hold (2 of 4 as claimed, n = 12 images)")


def test_a_random_map_that_is_as_good_is_no_agreement():
    results = _lerf(0.1, 0.3)
    for frame in (results.table, results.per_image):
        frame.loc[frame.method == "random", "value"] = frame.loc[frame.method == "neuron_mct", "value"].to_numpy()
    assert _verdict(results, LERF).word == NO_DIFFERENCE


def test_where_nothing_differs_at_most_one_claim_in_twenty_is_decided():
    generator = np.random.default_rng(3)
    methods = ("neuron_mct", "neuron_intgrad", "gradients", "gbp", "input_mct", "input_intgrad", "random")
    (claim,) = [one for one in CLAIMS if one.text.startswith(LERF)]
    repetitions, decided = 100, 0
    for _ in range(repetitions):
        image = generator.normal(0.5, 0.2, (30, 1))
        values = image + generator.normal(0, 0.1, (30, len(methods)))
        shares = {
            Measure(method, metric, x_name, 10.0): values[:, column].tolist()
            for column, method in enumerate(methods)
            for metric, x_name in (("lerf_change", "percent_removed"), ("lerf_area", "up_to_percent"))
        }
        decided += verdict_on(claim, of_images(shares)).word != NO_DIFFERENCE
    assert decided / repetitions <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)


def test_that_contributions_select_no_dead_neuron_is_true_by_construction():
    clean = at("dead_share", "sparsity", 90.0, {"greedy": 40.0}) | {
        Measure(method, "dead_share", "sparsity", 90.0): [0.0] * 12 for method in ("neuron_mct", "neuron_intgrad")
    }
    found = _verdict(of_images(clean), DEAD)
    assert (found.word, found.summary) == (BY_CONSTRUCTION, BY_CONSTRUCTION)
    assert found.reason.startswith("a dead neuron contributes 0")
    assert found.comparisons[0].text == "NeuronMCT 0 %, limit 0 %, n = 12 images"


def test_a_single_dead_neuron_would_be_a_fault():
    dirty = {Measure("neuron_mct", "dead_share", "sparsity", 90.0): [0.0] * 11 + [1e-4]}
    assert _verdict(of_images(dirty), DEAD).word == FAILS


@pytest.mark.parametrize(("share", "word"), [(40.0, HOLDS), (0.0, FAILS), (1.0, NO_DIFFERENCE)])
@pytest.mark.parametrize("keep_images", [True, False])
def test_greedy_has_to_hold_dead_neurons(share, word, keep_images):
    results = of_images(at("dead_share", "sparsity", 90.0, {"greedy": share}), keep_images=keep_images)
    assert _verdict(results, "Greedy pruning selects").word == word


def test_the_paper_looks_at_a_sparsity_of_90():
    values = at("dead_share", "sparsity", 99.0, {"greedy": 0.0}) | at(
        "dead_share", "sparsity", 90.0, {"greedy": 40.0}
    )
    found = _verdict(of_images(values), "Greedy pruning selects")
    assert (found.word, len(found.comparisons)) == (HOLDS, 1)


def test_images_without_a_pathway_are_counted():
    values = {Measure("greedy", "dead_share", "sparsity", 90.0): [40.0, 41.0, 39.0, math.nan]}
    found = _verdict(of_images(values), "Greedy pruning selects")
    assert "n = 3 of 4 images: as claimed" in found.comparisons[0].text
    assert "(36" in found.comparisons[0].text  # 39 − 2.48 (points)


@pytest.mark.parametrize(
    ("share", "chance", "word"), [(67.0, 55.0, HOLDS), (53.0, 53.0, NO_DIFFERENCE), (45.0, 45.0, FAILS)]
)
def test_random_gates_have_to_select_more_dead_neurons_than_chance(share, chance, word):
    values = at("dead_share", "sparsity", 90.0, {"dgr_random_init": share, "random": chance})
    assert _verdict(of_images(values), RANDOM_GATES).word == word


@pytest.mark.parametrize(("together", "apart", "word"), [(0.6, 0.2, HOLDS), (0.2, 0.6, FAILS)])
def test_overlap_is_compared_on_the_same_images(together, apart, word):
    means = {"neuron_mct": together, "greedy": apart, "dgr": apart}
    found = _verdict(of_images(at("jaccard/neuron_intgrad", "sparsity", 90.0, means)), OVERLAP)
    assert (found.word, len(found.comparisons)) == (word, 2)
    assert found.comparisons[0].text.startswith(f"with NeuronMCT {together:g}, with Greedy {apart:g}: ")


@pytest.mark.parametrize(("index", "word"), [(0.05, HOLDS), (0.3, FAILS)])
def test_pathways_of_pruning_are_apart_below_twice_the_index_of_chance(index, word):
    found = _verdict(of_images(at("jaccard/dgr", "sparsity", 90.0, {"greedy": index})), APART)
    assert found.word == word
    assert found.comparisons[0].text.startswith(f"Greedy and DGR {index:g}, limit 0.105: ")  # 2 · 0.1 / 1.9


@pytest.mark.parametrize(("greedy", "word"), [(0.0, HOLDS), (-0.98, FAILS)])
def test_pruning_has_to_keep_the_response(greedy, word):
    values = at("response_change", "sparsity", 90.0, {"greedy": greedy, "dgr": 0.05})
    assert _verdict(of_images(values), OBJECTIVE).word == word


@pytest.mark.parametrize(("ours", "word"), [(0.9, HOLDS), (0.0, FAILS)])
def test_decoded_pathways_are_compared_at_98(ours, word):
    means = {"neuron_mct": ours, "neuron_intgrad": ours, "greedy": 0.4, "dgr": 0.4, "random": 0.4}
    found = _verdict(of_images(at("probability_original", "sparsity", 98.0, means, n=3)), DECODED)
    assert (found.word, len(found.comparisons)) == (word, 6)


def _radii(ours: float, active: float | None, chance: float) -> Results:
    means = {"neuron_mct": ours, "neuron_intgrad": ours, "random": chance}
    means |= {} if active is None else {"active": active}
    values = {
        Measure(method, "affine_radius", "sparsity", 90.0): (10 ** np.array(spread(mean, 8, seed=k))).tolist()
        for k, (method, mean) in enumerate(means.items())
    }
    return of_images(values)


@pytest.mark.parametrize(
    ("ours", "active", "chance", "word"),
    [
        (-3.0, -6.0, -5.0, HOLDS),
        (-3.0, -6.0, -3.0, NO_DIFFERENCE),  # it comes from sparsity
        (-3.0, -6.0, -2.0, FAILS),
        (-3.0, None, -5.0, NOT_DECIDED),
    ],
)
def test_balls_have_to_be_larger_than_those_of_the_whole_network_and_of_random_pathways(ours, active, chance, word):
    found = _verdict(_radii(ours, active, chance), LINEAR)
    assert (found.word, len(found.comparisons)) == (word, 4)


def _course(**methods: list[float]) -> Results:
    return of_images(
        {
            Measure(method, "spearman_abs", "randomized_down_to", f"block {block}"): spread(mean, 16, seed=block)
            for method, means in methods.items()
            for block, mean in enumerate(means)
        }
    )


def test_maps_have_to_change_over_the_course_and_not_only_in_the_end():
    late = [0.9, 0.85, 0.8, 0.1]
    assert _verdict(_course(neuron_mct=late, gbp=[0.95, 0.9, 0.9, 0.3]), WEIGHTS).word == FAILS
    assert _verdict(_course(neuron_mct=[0.4, 0.1, 0.1, 0.1], gbp=late), WEIGHTS).word == HOLDS


def test_a_rule_that_gbp_passes_too_does_not_speak_for_ours():
    course = [0.4, 0.3, 0.2, 0.1]
    found = _verdict(_course(neuron_mct=course, gbp=course), WEIGHTS)
    assert (found.word, [one.holds for one in found.comparisons]) == (NO_DIFFERENCE, [True, None])
    gone = _verdict(_course(neuron_mct=course, gbp=[0.1, 0.1, 0.1, 0.1]), WEIGHTS)
    assert gone.word == FAILS


def test_blocks_without_a_map_are_left_out_of_both_courses():
    values = {
        Measure(method, "spearman_abs", "randomized_down_to", block): column
        for block, columns in {
            "fc": {"neuron_mct": [0.4, 0.41, 0.39], "gbp": [0.9, 0.91, 0.89]},
            "conv": {"neuron_mct": [math.nan, 0.1, 0.1], "gbp": [0.2, 0.2, 0.2]},
        }.items()
        for method, column in columns.items()
    }
    found = _verdict(of_images(values), WEIGHTS)
    # Differences of −0.5, and of the mean of −0.5 and −0.1 twice.
    assert "difference -0.367" in found.comparisons[1].text


def _drawn(difference: float, of_draws: list[float]) -> Results:
    """Similarities in several draws of the weights, which shift NeuronMCT's by as much for every image."""
    per_image = {
        Measure(method, f"spearman_abs/draw_{number}", "randomized_down_to", "fc"): spread(
            0.4 + (difference + shift if method == "neuron_mct" else 0.0), 40, half=0.02, seed=number
        )
        for number, shift in enumerate(of_draws, 1)
        for method in ("neuron_mct", "gbp")
    }
    means = {
        Measure(method, "spearman_abs", "randomized_down_to", "fc"): np.mean(
            [values for measure, values in per_image.items() if measure.method == method], 0
        ).tolist()
        for method in ("neuron_mct", "gbp")
    }
    table = of_images(means).table
    return Results(table, of_images(per_image | means).per_image)


def test_draws_of_the_weights_that_disagree_decide_nothing_however_many_images_there_are():
    agreeing = _verdict(_drawn(-0.1, [-0.01, 0.0, 0.01]), WEIGHTS)
    assert [one.holds for one in agreeing.comparisons] == [True, True]
    assert "n = 40 images × 3 draws of the weights: as claimed" in agreeing.comparisons[1].text
    assert agreeing.summary == "holds (2 of 2 as claimed, n = 40 images × 3 draws of the weights)"
    disagreeing = _verdict(_drawn(-0.1, [-0.15, 0.0, 0.15]), WEIGHTS)
    assert [one.holds for one in disagreeing.comparisons] == [None, None]
    assert "difference -0.1 (" in disagreeing.comparisons[1].text


def _roar(
    seeds: int, *differences: tuple[str, str, float], half: float = 1.0, counted: int | None = None
) -> Results:
    methods = {name for one, other, _ in differences for name in (one, other)}
    rows = [
        Row(method, "roar_accuracy", 50.0, "percent_removed", x, n=seeds) for method in methods for x in (0.0, 50.0)
    ]
    rows += [
        Row(one, f"roar_difference/{other}", value, ci_low=value - half, ci_high=value + half, n=counted or seeds)
        for one, other, value in differences
    ]
    return Results(tidy_table(rows, experiment="roar_table", dataset="digits", model="resnet8", seed=0))


def test_roar_is_decided_by_the_differences_of_seeds():
    assert _verdict(_roar(3, ("neuron_mct", "gradients", -5.0)), ROAR).word == HOLDS
    assert _verdict(_roar(3, ("neuron_mct", "gradients", 5.0)), ROAR).word == FAILS
    found = _verdict(_roar(3, ("gradients", "neuron_mct", 5.0)), ROAR)
    assert found.comparisons[0].text == (
        "NeuronMCT 50 %, Gradients 50 %: difference -5 (-6 to -4 points), n = 3 seeds: as claimed"
    )


def test_the_seeds_of_several_opponents_are_corrected_together():
    opponents = ("gradients", "gbp", "input_mct", "input_intgrad")
    alone = _verdict(_roar(3, ("neuron_mct", "gradients", -1.2)), ROAR)
    together = _verdict(_roar(3, *(("neuron_mct", other, -1.2) for other in opponents)), ROAR)
    assert (alone.word, together.word) == (HOLDS, NO_DIFFERENCE)
    # t at 1 − 0.05 / 8 with two degrees of freedom is 8.860, and 4.303 at 1 − 0.05 / 2.
    assert f"({-1.2 - 8.8602 / 4.3027:.3g} to {-1.2 + 8.8602 / 4.3027:.3g} points)" in together.comparisons[0].text


def test_a_single_seed_or_rows_of_another_count_decide_nothing():
    one = _verdict(_roar(1, ("neuron_mct", "gradients", -9.0), half=math.nan), ROAR)
    assert (one.word, one.summary) == (NOT_DECIDED, "not decided (a single seed)")
    # Accuracies of two seeds, and differences of ten: those are not of seeds alone.
    other = _verdict(_roar(2, ("neuron_mct", "gradients", -9.0), counted=10), ROAR)
    assert other.summary == "not decided (unpaired data)"


def test_neuron_intgrad_star_cannot_be_tested():
    found = _verdict(_lerf(0.1, 0.3), NEURON_STAR)
    assert (found.word, found.comparisons) == (NOT_TESTABLE, [])
    assert "equals GradCAM" in found.reason


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_numbers_of_claims_are_registered_metrics(claim):
    assert claim.metric == base_name(claim.metric)
    assert claim.metric in METRICS
    assert claim.numbers[0].isupper() or not claim.numbers[0].isalpha()


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.text)
def test_every_claim_says_where_the_paper_makes_it(claim):
    assert claim.source.startswith("section ")


def test_what_no_experiment_measured_is_not_called_anything_else():
    empty = Results(pd.DataFrame(columns=list(_lerf(0.1, 0.3).table.columns)))
    assert {one.word for one in verdicts(empty)} == {NOT_MEASURED, NOT_TESTABLE}


# Faithfulness


def _faithfulness(**means: float) -> Results:
    """The three numbers of each method: its own CMD, that on copies, and the gap to the other answer."""
    values: dict[Measure, list[float]] = {}
    for metric in ("cmd", "cmd/transfer", "cmd_rise/other_answer"):
        values |= at(metric, "", "", {"neuron_mct": 0.5, "neuron_intgrad": 0.5, **means})
    return of_images(values)


@pytest.mark.parametrize("start", [FAITHFUL, COPIES])
def test_faithfulness_is_compared_with_fitted_pathways_and_random_ones(start):
    found = _verdict(_faithfulness(greedy=0.9, dgr=3.0, random=1.0, active=0.0), start)
    assert (found.word, len(found.comparisons)) == (HOLDS, 6)
    assert found.summary == "holds (6 of 6 as claimed, n = 12 images)"
    beaten = _verdict(_faithfulness(greedy=0.9, dgr=3.0, learned_ranking=0.1, random=1.0), start)
    assert (beaten.word, sum(one.holds is True for one in beaten.comparisons)) == (FAILS, 6)


def test_random_units_veto_faithfulness():
    assert _verdict(_faithfulness(greedy=0.9, random=0.5), FAITHFUL).word == NO_DIFFERENCE
    assert _verdict(_faithfulness(greedy=0.9, random=0.4), FAITHFUL).word == FAILS


def test_the_gap_to_another_answer_is_to_be_larger_than_that_of_fitted_pathways():
    assert _verdict(_faithfulness(greedy=0.1, learned_ranking=0.0, random=0.02), REASONS).word == HOLDS
    assert _verdict(_faithfulness(greedy=0.1, learned_ranking=0.6, random=0.02), REASONS).word == FAILS
