from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cpath.analysis import bootstrap_mean
from experiments.__main__ import _show
from experiments.framework.results import COLUMNS, Row, read_table, rows_of_means, table, write_table


def test_mean_and_count_leave_out_nan():
    interval = bootstrap_mean([[1.0, math.nan, math.nan], [3.0, 5.0, math.nan]])
    assert interval.mean[:2].tolist() == [2.0, 5.0]
    assert interval.n.tolist() == [2, 1, 0]
    assert math.isnan(interval.mean[2])
    assert np.isnan([interval.low[1], interval.low[2], interval.high[2]]).all()


def test_interval_agrees_with_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).gamma(2.0, size=300)
    ours = bootstrap_mean(values[:, None])
    theirs = scipy.stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000).confidence_interval
    spread = theirs.high - theirs.low
    assert ours.low[0] == pytest.approx(theirs.low, abs=0.1 * spread)
    assert ours.high[0] == pytest.approx(theirs.high, abs=0.1 * spread)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_interval_contains_the_mean_and_lies_within_the_values(values):
    interval = bootstrap_mean(np.array(values)[:, None])
    tolerance = 1e-9 * max(1.0, *(abs(value) for value in values))
    assert min(values) - tolerance <= interval.low[0] <= interval.high[0] <= max(values) + tolerance


def test_table_round_trips(tmp_path, configure):
    rows = [
        Row("neuron_mct", "dead_share", 0.125, "sparsity", 90.0, 0.1, 0.2, 7),
        Row("network", "base_sparsity", float("nan"), n=0),
    ]
    frame = table(rows, configure())
    write_table(frame, tmp_path / "results.csv")
    again = read_table(tmp_path / "results.csv")
    assert tuple(again.columns) == COLUMNS
    assert again.value[0] == 0.125
    assert float(again.x[0]) == 90.0
    assert again.x_name[1] == ""
    assert np.isnan(again.value[1])
    assert again.experiment.tolist() == ["path_analysis"] * 2


@pytest.mark.parametrize(
    ("experiment", "heading"), [("benchmark", "least to largest"), ("path_analysis", "95 % interval")]
)
def test_the_terminal_says_what_is_beside_a_number(configure, capsys, experiment, heading):
    cfg = configure(f"experiment={experiment}")
    _show(table([Row("greedy", "seconds", 2.0, "model", "vgg16", 1.5, 2.5, 3)], cfg))
    shown = capsys.readouterr().out
    assert heading in shown
    assert "1.5 to 2.5" in shown
    assert ("95 %" in shown) == (experiment != "benchmark")


def test_rows_of_means_keep_the_key():
    (row,) = rows_of_means({("random", "sparsity", 80.0, "class_kept"): [1.0, 0.0, 1.0, 1.0]})
    assert (row.method, row.x_name, row.x, row.metric) == ("random", "sparsity", 80.0, "class_kept")
    assert row.value == 0.75
    assert row.n == 4
    assert row.ci_low <= 0.75 <= row.ci_high
