from __future__ import annotations

import time

import pytest
import torch

from experiments.benchmark.timing import NAIVE, Case, Rival, measure

CPU = torch.device("cpu")


def _sleep(seconds: float):
    return lambda: time.sleep(seconds)


def test_times_are_medians_less_the_start_and_for_as_much_work():
    case = Case(
        "sleep",
        "here",
        _sleep(0.3),
        {NAIVE: Rival("a nap", _sleep(0.05), times=4)},
        start=_sleep(0.1),
        limits={NAIVE: 2},
    )
    rows = {(row.method, row.metric): row.value for row in measure(case, 3, CPU)}
    # Never less than it slept; how much more is the machine's business.
    ours, theirs = rows["sleep", "seconds"], rows["a nap (beside sleep)", "seconds"]
    assert ours > 0.15
    assert theirs >= 4 * 0.05
    assert rows["sleep", "ratio_to_naive"] == pytest.approx(ours / theirs)
    assert rows["sleep", "processor_ratio_to_naive"] != pytest.approx(ours / theirs)
    assert rows["sleep", "limit_to_naive"] == 2


def test_memory_is_that_of_the_work():
    case = Case("memory", "here", lambda: torch.ones(25_000_000).sum(), {})
    found = {row.metric: row.value for row in measure(case, 1, CPU)}
    assert found["peak_megabytes"] == pytest.approx(100, rel=0.5)
