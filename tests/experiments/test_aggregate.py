from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from cpath.plots import sweep_figures
from experiments.framework.aggregate import AGGREGATED, aggregate
from experiments.framework.results import COLUMNS


def _table(
    seed: int, values: dict[tuple[str, str, str], float], method: str = "random", n: int = 10
) -> pd.DataFrame:
    rows = [
        ("path_analysis", "digits", "resnet8", method, x_name, x, metric, value, value - 1, value + 1, n, seed)
        for (x_name, x, metric), value in values.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


KEPT = ("sparsity", "90.0", "class_kept")


def test_mean_and_interval_over_seeds_are_students():
    values = [0.2, 0.5, 0.9]
    found = aggregate({(f"seed={seed}",): _table(seed, {KEPT: value}) for seed, value in enumerate(values)})
    row = found.iloc[0]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx((np.mean(values), low, high))
    assert (row.n, row.seed, row.over, row.variant) == (3, "0 1 2", "seeds", "")
    assert tuple(found.columns) == AGGREGATED


def test_one_seed_keeps_its_interval_over_images():
    row = aggregate({("seed=0",): _table(0, {KEPT: 0.5})}).iloc[0]
    assert (row.value, row.ci_low, row.ci_high, row.n, row.over) == (0.5, -0.5, 1.5, 10, "images")


def test_a_seed_without_a_value_is_left_out_and_not_counted():
    tables = {(f"seed={seed}",): _table(seed, {KEPT: value}) for seed, value in enumerate([0.2, float("nan"), 0.4])}
    row = aggregate(tables).iloc[0]
    assert row.value == pytest.approx(0.3)
    assert row.n == 2


def test_the_same_number_of_several_jobs_counts_once():
    base = ("", "", "base_sparsity")
    tables = {
        (f"sparsity={sparsity}", f"seed={seed}"): _table(
            seed, {base: 40.0 + seed, ("sparsity", f"{sparsity}.0", "class_kept"): 0.5}
        )
        for sparsity in (80, 90)
        for seed in (0, 1)
    }
    found = aggregate(tables)
    row = found[found.metric == "base_sparsity"].iloc[0]
    assert (len(found), row.n, row.value, row.variant) == (3, 2, 40.5, "")


def test_other_swept_values_become_variants_and_are_not_averaged():
    tables = {
        (f"model.width={width}", f"seed={seed}", "dataset.size=16"): _table(seed, {KEPT: width + seed})
        for width in (4, 8)
        for seed in (0, 1)
    }
    found = aggregate(tables).set_index("variant")
    assert found.value.to_dict() == {"model.width=4": 4.5, "model.width=8": 8.5}
    assert set(found.n) == {2}


def test_methods_under_one_name_with_different_settings_are_told_apart():
    # Both choices bring the method dgr, with other settings: only the choice tells their numbers apart.
    tables = {
        (f"method={choice}", f"seed={seed}"): _table(seed, {KEPT: value + seed}, method="dgr")
        for choice, value in (("all", 1.0), ("quick", 5.0))
        for seed in (0, 1)
    }
    found = aggregate(tables).set_index("variant")
    assert found.value.to_dict() == {"method=all": 1.5, "method=quick": 5.5}


def test_published_numbers_stay_single_numbers():
    key = ("percent_removed", "10", "lerf_change/published")
    found = aggregate({(f"seed={seed}",): _table(seed, {key: 0.3}, n=0) for seed in (0, 1)})
    assert (found.n[0], found.value[0]) == (0, 0.3)


def test_no_finished_job_gives_an_empty_table():
    assert list(aggregate({}).columns) == list(AGGREGATED)
    assert sweep_figures(aggregate({})) == []


def test_figures_have_a_line_a_method_and_a_panel_a_metric():
    tables = {
        (f"method={method}", f"seed={seed}"): pd.concat(
            _table(seed, {("sparsity", f"{x}.0", metric): seed + x / 100}, method)
            for x in (80, 90, 99)
            for metric in ("class_kept", "response_change")
        )
        for method in ("random", "greedy")
        for seed in (0, 1, 2)
    }
    accuracy = {("seed=0", "method=x"): _table(0, {("", "", "test_accuracy"): 90.0}, "training")}
    drawings = {drawing.name: drawing for drawing in sweep_figures(aggregate(tables | accuracy))}
    assert set(drawings) == {"path_analysis-digits-resnet8-sparsity", "path_analysis-values"}
    figure = drawings["path_analysis-digits-resnet8-sparsity"].figure
    assert len(figure.axes) == 2
    for panel in figure.axes:
        assert [line.get_label() for line in panel.get_lines()] == ["Greedy", "Random"]
        assert panel.get_lines()[0].get_xdata().tolist() == [80, 90, 99]
    assert "over 3 seeds" in drawings["path_analysis-digits-resnet8-sparsity"].caption
