"""One table from those of many jobs: what is averaged, what is told apart, and what is counted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.engine.aggregate import AGGREGATED, aggregate
from experiments.engine.metric_entry import Metric, by_name
from experiments.engine.table import COLUMNS


def metric(name: str, over: str = "images", label: str | None = None, unit: str = "") -> Metric:
    """An entry of a metric, as an experiment has them."""
    return Metric(
        name=name, label=label or name, unit=unit, range=(0, 100), better="higher", meaning="A number.", over=over
    )


METRICS = by_name(
    [
        metric("class_kept"),
        metric("roar_area", "seeds"),
        metric("test_accuracy"),
        metric("ratio_to_floor", "rounds"),
    ]
)


def aggregated(tables: dict[tuple[str, ...], pd.DataFrame]) -> pd.DataFrame:
    """As `aggregate`, with the metrics of these tests."""
    return aggregate(tables, METRICS)


def table_of(
    seed: int, values: dict[tuple[str, str, str], float], method: str = "random", n: int = 10
) -> pd.DataFrame:
    rows = [
        (
            "path_analysis",
            "digits",
            "resnet8_narrow",
            method,
            x_name,
            x,
            metric,
            value,
            value - 1,
            value + 1,
            n,
            seed,
        )
        for (x_name, x, metric), value in values.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


KEPT = ("sparsity", "90.0", "class_kept")


def test_mean_and_interval_over_seeds_are_students():
    values = [50.0, 60.0, 62.0]
    found = aggregated({(f"seed={seed}",): table_of(seed, {KEPT: value}) for seed, value in enumerate(values)})
    row = found.iloc[0]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(values), scipy.stats.sem(values))
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx((np.mean(values), low, high))
    assert (row.n, row.seed, row.over, row.variant) == (3, "0 1 2", "seeds", "")
    assert tuple(found.columns) == AGGREGATED


def test_an_interval_over_seeds_ends_where_the_metric_does():
    tables = {(f"seed={seed}",): table_of(seed, {KEPT: value}) for seed, value in enumerate([96.0, 100.0])}
    row = aggregated(tables).iloc[0]
    assert scipy.stats.t.interval(0.95, 1, 98, 2)[1] > 100
    assert (row.value, row.ci_high) == (98, 100)
    assert row.ci_low == pytest.approx(scipy.stats.t.interval(0.95, 1, 98, 2)[0])


def test_one_seed_keeps_its_interval_over_images():
    row = aggregated({("seed=0",): table_of(0, {KEPT: 0.5})}).iloc[0]
    assert (row.value, row.ci_low, row.ci_high, row.n, row.over) == (0.5, -0.5, 1.5, 10, "images")


def test_a_seed_without_a_value_is_left_out_and_not_counted():
    tables = {
        (f"seed={seed}",): table_of(seed, {KEPT: value}) for seed, value in enumerate([0.2, float("nan"), 0.4])
    }
    row = aggregated(tables).iloc[0]
    assert row.value == pytest.approx(0.3)
    assert row.n == 2


def test_the_same_number_of_several_jobs_counts_once():
    base = ("", "", "base_sparsity")
    tables = {
        (f"sparsity={sparsity}", f"seed={seed}"): table_of(
            seed, {base: 40.0 + seed, ("sparsity", f"{sparsity}.0", "class_kept"): 0.5}
        )
        for sparsity in (80, 90)
        for seed in (0, 1)
    }
    found = aggregated(tables)
    row = found[found.metric == "base_sparsity"].iloc[0]
    assert (len(found), row.n, row.value, row.variant) == (3, 2, 40.5, "")


def test_other_swept_values_become_variants_and_are_not_averaged():
    tables = {
        (f"model.width={width}", f"seed={seed}", "dataset.size=16"): table_of(seed, {KEPT: width + seed})
        for width in (4, 8)
        for seed in (0, 1)
    }
    found = aggregated(tables).set_index("variant")
    assert found.value.to_dict() == {"model.width=4": 4.5, "model.width=8": 8.5}
    assert set(found.n) == {2}


def test_methods_under_one_name_with_different_settings_are_told_apart():
    # Both choices bring the method dgr, with other settings: only the choice tells their numbers apart.
    tables = {
        (f"method={choice}", f"seed={seed}"): table_of(seed, {KEPT: value + seed}, method="dgr")
        for choice, value in (("all", 1.0), ("quick", 5.0))
        for seed in (0, 1)
    }
    found = aggregated(tables).set_index("variant")
    assert found.value.to_dict() == {"method=all": 1.5, "method=quick": 5.5}


def _roar_cell(attribution: str, percent: int, seed: int, accuracy: float) -> pd.DataFrame:
    """As experiment=roar leaves it: one place of a curve, and the training by epoch."""
    rows = {("percent_removed", f"{percent}.0", "roar_accuracy"): accuracy}
    rows |= {("epoch", f"{epoch}.0", "loss"): percent + accuracy + epoch for epoch in (1, 2)}
    return table_of(seed, rows, attribution, n=1).assign(experiment="roar")


def roar_cells(seeds: tuple[int, ...] = (0, 1, 2)) -> dict[tuple[str, ...], pd.DataFrame]:
    return {
        (f"attribution={attribution}", f"percent={percent}", f"seed={seed}"): _roar_cell(
            attribution, percent, seed, first - percent / 2 + seed
        )
        for attribution, first in (("gradients", 80.0), ("gbp", 90.0))
        for percent in (10, 50, 90)
        for seed in seeds
    }


def test_cells_of_roar_become_a_curve_a_method_whatever_their_epochs_say():
    found = aggregated(roar_cells())
    accuracy = found[found.metric == "roar_accuracy"]
    assert set(accuracy.variant) == {""}
    assert set(accuracy.n) == {3}
    assert set(accuracy.over) == {"seeds"}
    assert accuracy[accuracy.method == "gbp"].value.tolist() == [86.0, 66.0, 46.0]
    low, high = scipy.stats.t.interval(0.95, 2, 86, scipy.stats.sem([85, 86, 87]))
    assert accuracy[accuracy.method == "gbp"][["ci_low", "ci_high"]].iloc[0].tolist() == pytest.approx([low, high])
    loss = found[(found.metric == "loss") & (found.method == "gbp") & (found.x == "2.0")]
    assert loss.set_index("variant").value.to_dict() == {
        "percent=10": 98.0,
        "percent=50": 118.0,
        "percent=90": 138.0,
    }


def test_roar_and_kar_of_one_sweep_are_two_curves():
    cells = {(*key, "keep=false"): table for key, table in roar_cells((0,)).items()}
    for key, table in roar_cells((0,)).items():
        kept = table.replace({"roar_accuracy": "kar_accuracy", "percent_removed": "percent_kept"})
        cells[(*key, "keep=true")] = kept.assign(value=kept.value + 1)
    found = aggregated(cells)
    curves = found[found.metric.isin(["roar_accuracy", "kar_accuracy"])]
    assert (len(curves), set(curves.variant)) == (12, {""})
    assert not found.duplicated(["method", "x_name", "x", "metric", "variant"]).any()


@pytest.mark.parametrize(
    ("method", "metric", "n", "over"),
    [
        ("gbp", "roar_area", 10, "seeds"),
        ("base", "test_accuracy", 10, "images"),
        ("greedy", "ratio_to_floor", 10, "rounds"),
        ("greedy", "class_kept", 10, "images"),
        ("greedy", "class_kept/conv1", 10, "images"),
        ("greedy", "class_kept", 1, ""),
        ("greedy", "unknown", 10, "images"),
    ],
)
def test_what_is_counted_is_said(method, metric, n, over):
    found = aggregated({("seed=0",): table_of(0, {("sparsity", "90.0", metric): 0.5}, method, n)})
    assert (found.over[0], found.n[0]) == (over, n)


def test_an_agreement_with_the_published_order_is_a_number_of_ours():
    key = ("up_to_percent", "90.0", "rank_agreement/roar/published")
    found = aggregated({(f"seed={seed}",): table_of(seed, {key: 0.2 * seed}, n=3) for seed in (0, 1)})
    assert (found.n[0], found.value[0]) == (2, pytest.approx(0.1))


def test_published_numbers_stay_single_numbers():
    key = ("percent_removed", "10", "lerf_change/published")
    found = aggregated({(f"seed={seed}",): table_of(seed, {key: 0.3}, n=0) for seed in (0, 1)})
    assert (found.n[0], found.value[0]) == (0, 0.3)


def test_a_seed_without_an_image_that_counts_does_not_hide_the_others():
    # All its images were left out: a number that is absent, unlike a published one.
    tables = {("seed=0",): table_of(0, {KEPT: float("nan")}, n=0)}
    tables |= {(f"seed={seed}",): table_of(seed, {KEPT: 0.1 * seed}) for seed in (1, 2)}
    found = aggregated(tables)
    assert (len(found), found.n[0], found.value[0]) == (1, 2, pytest.approx(0.15))
    nothing = aggregated({(f"seed={seed}",): table_of(seed, {KEPT: float("nan")}, n=0) for seed in (0, 1)})
    assert (len(nothing), nothing.n[0]) == (1, 0)
    assert np.isnan(nothing.value[0])


def test_places_keep_all_their_digits():
    tables = {
        (f"sparsity={x}", f"seed={seed}"): table_of(seed, {("sparsity", x, "class_kept"): float(x)})
        for x in ("90.00001", "90.00002", "99.99999")
        for seed in (0, 1)
    }
    found = aggregated(tables)
    assert found.x.tolist() == ["90.00001", "90.00002", "99.99999"]
    assert found.value.tolist() == pytest.approx([90.00001, 90.00002, 99.99999], abs=1e-9)
    assert set(found.n) == {2}


def test_no_finished_job_gives_an_emptytable_of():
    assert list(aggregated({}).columns) == list(AGGREGATED)
