from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kendalltau, sem, t

import cpath
from cpath.analysis.intervals import resamples
from cpath.evaluation import area_under_curve, mean_height, mean_rank_agreement, rank_agreement
from cpath.evaluation.curves import kendall


def test_the_area_is_the_mean_height_from_zero_on():
    assert area_under_curve([10], [[0.4]]).tolist() == pytest.approx([0.2])
    assert area_under_curve([10, 20], [[0.4, 0.4], [0.0, 1.0]]).tolist() == pytest.approx([0.3, 0.25])
    assert np.isnan(area_under_curve([10, 20], [[0.4, np.nan]])).all()


@pytest.mark.parametrize("percent", [[], [10, 5], [0, 5], [5, 5]])
def test_shares_that_make_no_curve_are_an_error(percent):
    with pytest.raises(cpath.InputError, match="ascending per cents"):
        area_under_curve(percent, np.zeros((2, len(percent))))


def test_the_mean_height_is_over_the_range_of_the_places():
    assert mean_height([10, 20, 40], [[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]]).tolist() == pytest.approx([2.5 / 3, 2.0])
    assert mean_height([30], [[0.7]]).tolist() == [0.7]
    assert mean_height([-1, 1], [[0.0, 1.0]]).tolist() == [0.5]
    for places in ([], [10, 10], [np.nan, 1.0]):
        with pytest.raises(cpath.InputError, match="mean_height needs ascending places"):
            mean_height(places, np.zeros((2, len(places))))


def test_tau_is_scipys_with_ties_too():
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 4, (2, 50, 7)).astype(float)
    expected = [kendalltau(one, other).statistic for one, other in zip(first, second, strict=True)]
    np.testing.assert_allclose(kendall(first, second), expected)
    assert np.isnan(kendall(np.ones((1, 3)), np.arange(3.0)[None])).all()


def test_agreement_is_of_the_means_over_images_that_have_all_values():
    generator = np.random.default_rng(1)
    first, second = generator.random((2, 20, 6)) + np.arange(6) / 3
    first[0, 2] = second[1, 0] = np.nan
    found = rank_agreement(first, second)
    assert found.n == 18
    assert found.mean == pytest.approx(kendalltau(first[2:].mean(0), second[2:].mean(0)).statistic)
    assert found.low <= found.mean <= found.high
    # The resamples of means and of orders are the same ones.
    drawn = resamples(18, 0)
    assert drawn.shape == (2000, 18)
    assert set(drawn.sum(1)) == {18}
    taus = [kendalltau(*(one @ values[2:] for values in (first, second))).statistic for one in drawn]
    assert [found.low, found.high] == pytest.approx(np.quantile(taus, [0.025, 0.975]).tolist())
    assert rank_agreement(first, -first).mean == -1
    nothing = rank_agreement(first[:1], first[:1])
    assert np.isnan(nothing.mean)
    assert nothing.n == 0
    with pytest.raises(cpath.InputError, match="one shape"):
        rank_agreement(first, second[:, :5])


def test_agreement_over_seeds_is_the_mean_of_theirs_with_students_interval():
    generator = np.random.default_rng(2)
    first, second = generator.random((2, 4, 6)) + np.arange(6) / 6
    tau = [kendalltau(one, other).statistic for one, other in zip(first, second, strict=True)]
    found = mean_rank_agreement(first, second)
    low, high = t.interval(0.95, 3, np.mean(tau), sem(tau))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(tau), low, min(high, 1)))
    assert found.n == 4
    first[0, 2] = np.nan
    assert mean_rank_agreement(first, second).mean == pytest.approx(np.mean(tau[1:]))
    assert mean_rank_agreement(first, second).n == 3
    wide = mean_rank_agreement([[1, 2, 3], [1, 2, 3]], [[1, 2, 3], [3, 2, 1]])
    assert (wide.mean, wide.low, wide.high) == (0, -1, 1)


@pytest.mark.parametrize("seeds", [1, 2])
def test_seeds_that_all_give_the_same_agreement_give_no_interval(seeds):
    found = mean_rank_agreement([[1, 2]] * seeds, [[1, 3]] * seeds)
    assert (found.mean, found.n) == (1, seeds)
    assert np.isnan([found.low, found.high]).all()
    with pytest.raises(cpath.InputError, match="one shape"):
        mean_rank_agreement([[1, 2]], [[1, 2, 3]])
