"""Intervals over two crossed kinds of repetitions: by hand, against t over each kind alone, by their coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from cpath.analysis import compare_means, crossed_mean, t_mean
from cpath.analysis.intervals import crossed_error

NAN = math.nan


def test_errors_of_images_and_of_repetitions_add_up():
    values = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 8.0]])  # images differ, and the second repetition is higher by 2
    mean, error, freedom, n = crossed_error(values[..., None])
    images, repetitions = np.var([2.0, 3.0, 7.0], ddof=1) / 3, np.var([3.0, 5.0], ddof=1) / 2
    assert mean.tolist() == [4.0]
    assert n.tolist() == [3]
    assert error[0] == pytest.approx(math.sqrt(images + repetitions))
    assert freedom[0] == pytest.approx((images + repetitions) ** 2 / (images**2 / 2 + repetitions**2 / 1))
    found = crossed_mean(values[..., None])
    half = stats.t.ppf(0.975, freedom[0]) * error[0]
    assert (found.low[0], found.high[0]) == pytest.approx((4 - half, 4 + half))


def test_a_single_repetition_or_a_single_image_gives_the_interval_of_the_other_kind():
    values = np.random.default_rng(0).normal(size=(7, 4))
    expected = t_mean(values)
    for table in (values[None], values[:, None]):
        found = crossed_mean(table)
        for name in ("mean", "low", "high"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name))
    assert crossed_mean(values[None]).n.tolist() == [7] * 4
    assert crossed_mean(values[:, None]).n.tolist() == [1] * 4
    assert np.isnan(crossed_mean(values[None, :1]).low).all()


def test_nan_is_left_out_and_an_image_without_any_value_is_not_counted():
    values = np.array([[1.0, 2.0, NAN, NAN], [3.0, NAN, 5.0, NAN]])
    found = crossed_mean(values[..., None])
    assert found.mean.tolist() == [3.0]  # of 2, 2 and 5: each image has its mean over the repetitions
    assert found.n.tolist() == [3]
    assert found.low[0] < 3 < found.high[0]
    empty = crossed_mean(np.full((2, 3, 1), NAN))
    assert np.isnan([empty.mean[0], empty.low[0]]).all()
    assert empty.n.tolist() == [0]


def test_no_scatter_gives_an_interval_without_width():
    found = crossed_mean(np.ones((3, 4, 1)))
    assert (found.low[0], found.mean[0], found.high[0]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("repetitions", "images", "rest"), [(1.0, 0.0, 0.1), (0.0, 1.0, 0.1), (0.0, 0.0, 1.0), (0.5, 1.0, 1.0)]
)
def test_intervals_hold_the_true_mean_whatever_the_scatter_comes_from(repetitions, images, rest):
    generator = np.random.default_rng(1)
    count = 3000
    values = (
        repetitions * generator.normal(size=(5, 1, count))
        + images * generator.normal(size=(1, 40, count))
        + rest * generator.normal(size=(5, 40, count))
    )
    found = crossed_mean(values)
    held = np.mean((found.low < 0) & (found.high > 0))
    assert held > 0.95 - 3 * math.sqrt(0.05 * 0.95 / count) - 0.01
    over_images = t_mean(values.mean(0))  # the interval over images alone, which is wrong where repetitions differ
    narrow = np.mean((over_images.low < 0) & (over_images.high > 0))
    assert (narrow < 0.8) == (repetitions > 0)


def test_comparisons_take_other_degrees_of_freedom():
    (few,) = compare_means([2.0], [0.5], [100], freedom=[3.0])
    assert few.high == pytest.approx(2 + 0.5 * stats.t.ppf(0.975, 3))
    assert few.p == pytest.approx(2 * stats.t.sf(4, 3))
    assert compare_means([2.0], [0.5], [4]) == [compare_means([2.0], [0.5], [4], freedom=[3])[0]]
