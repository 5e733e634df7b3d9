from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from cpath.analysis import bootstrap_mean
from experiments.engine.table import (
    COLUMNS,
    Measure,
    Row,
    inside_ranges,
    place,
    read_table,
    rows_of_means,
    tidy_table,
    write_table,
)
from experiments.engine.terminal import show_results
from experiments.metrics import METRICS

JOB = {"experiment": "path_analysis", "dataset": "digits", "model": "resnet8_narrow", "seed": 3}


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


def test_intervals_end_where_their_metrics_do():
    rows = [
        Row("gbp", "roar_accuracy", 93.5, ci_low=-7.0, ci_high=100.4, n=3),
        Row("gbp", "roar_difference/random", -2.0, ci_low=-5.0, ci_high=1.0, n=3),
        Row("gbp", "a_users_own", 2.0, ci_low=-5.0, ci_high=500.0, n=3),
        Row("gbp", "roar_accuracy", 93.5),
    ]
    found = inside_ranges(tidy_table(rows, **JOB), METRICS)
    assert found.ci_low.tolist()[:3] == [0, -5, -5]
    assert found.ci_high.tolist()[:3] == [100, 1, 500]
    assert found.ci_low.isna().tolist() == found.ci_high.isna().tolist() == [False, False, False, True]
    assert found.value.tolist() == [93.5, -2, 2, 93.5]


def test_table_round_trips(tmp_path):
    rows = [
        Row("neuron_mct", "dead_share", 12.5, "sparsity", 90.00001, 0.1, 0.2, 7),
        Row("network", "base_sparsity", float("nan"), n=0),
        Row("roar", "area", 1.0, dataset="cifar10", model="another"),
    ]
    write_table(tidy_table(rows, **JOB), tmp_path / "results.csv")
    again = read_table(tmp_path / "results.csv")
    assert tuple(again.columns) == COLUMNS
    assert again.value[0] == 12.5
    assert again.x[0] == "90.00001"
    assert again.x_name[1] == ""
    assert np.isnan(again.value[1])
    assert again.experiment.tolist() == ["path_analysis"] * 3
    assert again.dataset.tolist() == ["digits", "digits", "cifar10"]
    assert again.model.tolist() == ["resnet8_narrow", "resnet8_narrow", "another"]
    assert (again.n.tolist(), again.seed.tolist()) == ([7, 0, 1], [3, 3, 3])
    assert (again.ci_low[0], again.ci_high[0]) == (0.1, 0.2)
    assert again.ci_low[1:].isna().all()


@pytest.mark.parametrize(
    "name", ["none", "null", "NA", "nan", "inf", "007", "1.50", "a,b", 'a"b', "a|b", "a/b", "a\nb", " a "]
)
def test_names_stay_text_whatever_they_look_like(tmp_path, name):
    row = Row(name, f"jaccard/{name}", 1.0, name, name, dataset=name, model=name)
    write_table(tidy_table([row], **{**JOB, "experiment": name}), tmp_path / "results.csv")
    (again,) = read_table(tmp_path / "results.csv").to_dict("records")
    for column in ("experiment", "dataset", "model", "method", "x_name", "x"):
        assert again[column] == name
    assert again["metric"] == f"jaccard/{name}"


def test_an_empty_table_round_trips(tmp_path):
    write_table(tidy_table([], **JOB), tmp_path / "results.csv")
    again = read_table(tmp_path / "results.csv")
    assert again.empty
    assert tuple(again.columns) == COLUMNS


def test_a_place_is_a_number_where_it_is_one():
    numbers = {"90.0": 90.0, "90.00001": 90.00001, "33.3333333": 33.3333333, "-1": -1.0, "1e-05": 1e-5, "7": 7.0}
    assert {text: place(text) for text in numbers} == numbers
    for name in ("", "conv1", "nan", "inf", "1_0", "layer1.0.relu#2", "1.", "0x10", " 1"):
        assert place(name) == name


@pytest.mark.parametrize("interval", [(1.5, 2.5), (float("nan"), float("nan"))])
def test_the_terminal_shows_numbers_of_whole_networks_with_their_interval(capsys, monkeypatch, interval):
    monkeypatch.setenv("COLUMNS", "200")
    rows = [
        Row("greedy [red]", "seconds", 2.0, "model", "vgg16", *interval, 3),
        Row("greedy", "jaccard/random", 1.0),
        Row("training", "val_loss", 1.0, "epoch", 1),
        Row("greedy", "class_kept", 75.0, "sparsity", 90.0),
    ]
    show_results(tidy_table(rows, **JOB).astype({"x": str}))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["method", "x", "metric", "value", "interval", "n"]
    shown = ["1.5", "to", "2.5"] if interval[0] == 1.5 else []
    assert lines[1] == ["greedy", "[red]", "vgg16", "seconds", "2", *shown, "3"]
    assert lines[2] == ["greedy", "90", "class_kept", "75", "1"]
    assert len(lines) == 3


def test_the_terminal_names_what_places_are_and_says_each_finding_once(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    rows = [Row("network", "base_sparsity", 45.0), Row("greedy", "class_kept", 75.0, "sparsity", 90.0)]
    show_results(tidy_table(rows, **JOB).astype({"x": str}), ["Greedy keeps 75 [%].", "Greedy keeps 75 [%]."])
    said = capsys.readouterr().out
    assert said.split()[:2] == ["method", "sparsity"]
    assert said.endswith("\n\nGreedy keeps 75 [%].\n")
    assert said.count("Greedy keeps") == 1


@pytest.mark.parametrize("count", [24, 25])
def test_the_terminal_shows_the_beginning_of_a_long_table(capsys, count):
    rows = [Row("greedy", "class_kept", 1.0, "sparsity", float(x)) for x in range(count)]
    show_results(tidy_table(rows, **JOB).astype({"x": str}))
    shown = capsys.readouterr().out
    assert shown.count("class_kept") == 24
    assert ("… and 1 more in results.csv" in shown) == (count == 25)


def test_rows_of_means_keep_the_measure():
    measures = {
        Measure("random", "class_kept", "sparsity", 90.00001): [1.0, 0.0, 1.0, 1.0],
        Measure("random", "class_kept", "sparsity", 90.00002): [0.0, math.nan, 0.0, 1.0],
        Measure("a|b", "kept/x|y", "site", "a|b"): [math.nan] * 4,
    }
    rows = rows_of_means(measures)
    assert [Measure(row.method, row.metric, row.x_name, row.x) for row in rows] == list(measures)
    assert rows[0].value == 0.75
    assert [row.n for row in rows] == [4, 3, 0]
    assert rows[0].ci_low <= 0.75 <= rows[0].ci_high
    assert math.isnan(rows[2].value)
    assert rows_of_means({}) == []
