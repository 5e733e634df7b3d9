from __future__ import annotations

import pytest

from experiments.framework.progress import Estimate, Overall, duration


def test_time_left_follows_the_expectation_and_then_what_is_measured():
    estimate = Estimate({"one": 10.0, "two": 30.0})
    assert estimate.left("one", 0.0) == 40.0
    assert estimate.left("one", 4.0) == 36.0
    assert estimate.share("one", 4.0) == pytest.approx(0.1)
    estimate.finish("one", 20.0)  # this machine is half as fast
    assert estimate.share(None, 0.0) == 0.25
    assert estimate.left("two", 0.0) == 60.0
    assert estimate.left("two", 30.0) == pytest.approx(30.0)


def test_a_stage_that_was_finished_before_tells_nothing_of_the_rest():
    estimate = Estimate({"one": 0.1, "two": 30.0})
    estimate.finish("one", 0.03)
    assert estimate.left("two", 0.0) == 30.0


def test_a_stage_that_takes_longer_is_not_called_done():
    estimate = Estimate({"one": 10.0, "two": 10.0})
    assert estimate.share("one", 1000.0) < 0.5
    assert estimate.left("one", 1000.0) >= 10.0


def test_nothing_is_said_of_the_time_before_anything_is_known():
    estimate = Estimate({"one": None, "two": 10.0, "three": 10.0})
    assert estimate.left("one", 5.0) is None
    estimate.finish("one", 8.0)
    assert estimate.left("two", 0.0) == 16.0


def test_all_stages_done_leaves_nothing():
    estimate = Estimate({"one": 1.0})
    estimate.finish("one", 3.0)
    assert (estimate.share(None, 0.0), estimate.left(None, 0.0)) == (1.0, 0.0)


def test_the_display_counts_stages_and_survives_one_that_fails():
    with Overall({"one": 1.0, "two": 1.0}) as overall:
        assert overall.words() == "[1/2] about 2 s left"
        with pytest.raises(ValueError), overall.stage("one"):
            raise ValueError
        assert overall.words().startswith("[2/2]")


def test_nothing_is_left_of_the_display_when_it_is_stopped_by_hand():
    overall = Overall({"one": 1.0, "two": 1.0})
    with pytest.raises(KeyboardInterrupt), overall, overall.stage("one"):
        raise KeyboardInterrupt
    assert overall._bar.leave is False


@pytest.mark.parametrize(("seconds", "words"), [(12.4, "12 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations_read_naturally(seconds, words):
    assert duration(seconds) == words
