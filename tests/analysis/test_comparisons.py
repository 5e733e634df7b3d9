"""Comparisons with Holm's correction: against an oracle, and by how often they are wrong in simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cpath.analysis import compare_means, compare_paired
from tests.oracles.comparisons import compared

REPETITIONS = 1000
FAMILIES = [(3, 4), (3, 10), (5, 10), (20, 2), (23, 4), (64, 10), (100, 10), (400, 10)]
"""Images or seeds, and comparisons, as the claims of the paper have them."""


@pytest.mark.parametrize("seed", range(40))
def test_decisions_and_intervals_are_those_of_the_oracle(seed):
    generator = np.random.default_rng(seed)
    n, count = int(generator.integers(2, 30)), int(generator.integers(1, 7))
    data = generator.normal(generator.normal(0, 0.6, count), 1, (n, count))
    found = compare_paired(data)
    for mine, (decision, low, high) in zip(found, compared(data.T.tolist()), strict=True):
        assert mine.decision == decision
        assert mine.low == pytest.approx(low, rel=1e-9, abs=1e-12)
        assert mine.high == pytest.approx(high, rel=1e-9, abs=1e-12)


def test_the_seeds_of_the_oracle_cover_every_kind_of_decision():
    kinds = set()
    for seed in range(40):
        generator = np.random.default_rng(seed)
        n, count = int(generator.integers(2, 30)), int(generator.integers(1, 7))
        data = generator.normal(generator.normal(0, 0.6, count), 1, (n, count))
        kinds |= {decision for decision, _, _ in compared(data.T.tolist())}
    assert kinds == {"higher", "lower", "no difference"}


def test_holm_stops_at_the_first_that_is_too_large():
    # p-values of 0.04 and 0.045: alone each would be decided, together the first fails against 0.025.
    errors = [1 / 2.0537, 1 / 2.0047]
    both = compare_means([1.0, 1.0], errors, [10**6] * 2)
    alone = [compare_means([1.0], [error], [10**6])[0] for error in errors]
    assert [one.decision for one in both] == ["no difference"] * 2
    assert [one.decision for one in alone] == ["higher"] * 2
    assert all(one.low < 0 for one in both)
    assert [one.p for one in both] == pytest.approx([0.08, 0.08], abs=1e-4)


def test_a_decided_comparison_makes_the_next_one_easier():
    means, errors, counts = [1.0, 1.0], [0.1, 1 / 2.0537], [10**6] * 2
    assert [one.decision for one in compare_means(means, errors, counts)] == ["higher", "higher"]


def test_nan_is_left_out_and_a_single_value_decides_nothing():
    nan = math.nan
    first, second, third = compare_paired([[1.0, 5.0, nan], [2.0, nan, nan], [nan, nan, nan], [1.5, nan, nan]])
    assert (first.difference, first.n, first.decision) == (1.5, 3, "higher")
    assert (second.difference, second.n, second.decision) == (5.0, 1, "no difference")
    assert math.isnan(second.low)
    assert math.isnan(second.p)
    assert math.isnan(third.difference)
    assert third.n == 0
    # The first is a family alone: with t² = 27 and two degrees of freedom, p = 1 − √(27 / 29).
    assert first.p == pytest.approx(1 - math.sqrt(27 / 29))


def test_no_difference_at_all_is_no_difference():
    (found,) = compare_paired(np.zeros((50, 1)))
    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)
    assert found.decision == "no difference"


def _opponents(generator: np.random.Generator, n: int, count: int, shift: np.ndarray, *, heavy: bool) -> np.ndarray:
    """Differences (n, count) between a method and its opponents, all of which see the same images."""
    image = generator.normal(0, 2, (n, 1))  # some images are harder, for every method
    noise = generator.standard_t(3, (n, count + 1)) if heavy else generator.normal(0, 1, (n, count + 1))
    values = image + noise
    return values[:, :1] - values[:, 1:] + shift


def _share(count: int) -> float:
    """Largest share of errors in the simulation that an error rate of 5 % makes likely: three standard errors."""
    return 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)


@pytest.mark.parametrize(
    ("n", "count", "heavy"),
    [
        *((n, count, False) for n, count in FAMILIES[::2]),
        *((n, count, True) for n, count in (*FAMILIES[1::2], FAMILIES[0])),
    ],
)
def test_where_nothing_differs_at_most_one_claim_in_twenty_finds_a_difference(n, count, heavy):
    generator = np.random.default_rng(1000 * n + count)
    wrong = 0
    for _ in range(REPETITIONS):
        found = compare_paired(_opponents(generator, n, count, np.zeros(count), heavy=heavy))
        wrong += any(one.decision != "no difference" for one in found)
    assert wrong / REPETITIONS <= _share(REPETITIONS)


@pytest.mark.parametrize(("n", "largest"), [(20, 0.16), (100, 0.1), (400, _share(REPETITIONS))])
def test_skewed_values_need_many_images(n, largest):
    generator = np.random.default_rng(n)
    wrong = 0
    for _ in range(REPETITIONS):
        found = compare_paired(generator.exponential(1, (n, 3)) - 1)
        wrong += any(one.decision != "no difference" for one in found)
    assert wrong / REPETITIONS <= largest


def test_comparisons_that_are_not_corrected_find_far_too_many():
    generator = np.random.default_rng(7)
    wrong = 0
    for _ in range(REPETITIONS):
        data = _opponents(generator, 100, 10, np.zeros(10), heavy=False)
        wrong += any(compare_paired(data[:, [k]])[0].decision != "no difference" for k in range(10))
    assert wrong / REPETITIONS > 0.15


def test_true_differences_do_not_make_the_others_look_different():
    generator = np.random.default_rng(8)
    shift = np.array([2.0, 2.0, -2.0, 0.0, 0.0, 0.0])
    wrong = 0
    for _ in range(REPETITIONS):
        found = compare_paired(_opponents(generator, 64, 6, shift, heavy=False))
        wrong += any(one.decision != "no difference" for one in found[3:])
        wrong += any(one.decision != sign for one, sign in zip(found[:3], ["higher"] * 2 + ["lower"], strict=True))
    assert wrong / REPETITIONS <= _share(REPETITIONS)


def test_differences_of_half_a_standard_deviation_are_found_on_a_hundred_images():
    generator = np.random.default_rng(9)
    all_found = 0
    for _ in range(500):
        found = compare_paired(_opponents(generator, 100, 10, np.full(10, -0.5 * math.sqrt(2)), heavy=False))
        all_found += all(one.decision == "lower" for one in found)
    assert all_found / 500 > 0.95


def test_three_seeds_find_only_what_is_large_against_the_scatter_of_seeds():
    generator = np.random.default_rng(10)
    found = dict.fromkeys((1.0, 40.0), 0)
    for size in found:
        for _ in range(500):
            seen = compare_paired(_opponents(generator, 3, 10, np.full(10, size), heavy=False))
            found[size] += seen[0].decision == "higher"
    assert found[1.0] / 500 < 0.05
    assert found[40.0] / 500 > 0.9
