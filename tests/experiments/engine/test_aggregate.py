from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from experiments.figures.sweep import sweep_figures
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


def _cell(attribution: str, percent: int, seed: int, accuracy: float) -> pd.DataFrame:
    """As experiment=roar leaves it: one place of a curve, and the training by epoch."""
    rows = {("percent_removed", f"{percent}.0", "roar_accuracy"): accuracy}
    rows |= {("epoch", f"{epoch}.0", "loss"): percent + accuracy + epoch for epoch in (1, 2)}
    return _table(seed, rows, attribution, n=1).assign(experiment="roar")


def _cells(seeds: tuple[int, ...] = (0, 1, 2)) -> dict[tuple[str, ...], pd.DataFrame]:
    return {
        (f"attribution={attribution}", f"percent={percent}", f"seed={seed}"): _cell(
            attribution, percent, seed, first - percent / 2 + seed
        )
        for attribution, first in (("gradients", 80.0), ("gbp", 90.0))
        for percent in (10, 50, 90)
        for seed in seeds
    }


def test_cells_of_roar_become_a_curve_a_method_whatever_their_epochs_say():
    found = aggregate(_cells())
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
    drawings = {drawing.name: drawing for drawing in sweep_figures(found)}
    (panel,) = drawings["roar-digits-resnet8-percent_removed"].figure.axes
    assert {line.get_label(): line.get_ydata().tolist() for line in panel.get_lines()} == {
        "GBP": [86.0, 66.0, 46.0],
        "Gradients": [76.0, 56.0, 36.0],
    }
    assert "over 3 seeds" in drawings["roar-digits-resnet8-percent_removed"].caption


def test_roar_and_kar_of_one_sweep_are_two_curves():
    cells = {(*key, "keep=false"): table for key, table in _cells((0,)).items()}
    for key, table in _cells((0,)).items():
        kept = table.replace({"roar_accuracy": "kar_accuracy", "percent_removed": "percent_kept"})
        cells[(*key, "keep=true")] = kept.assign(value=kept.value + 1)
    found = aggregate(cells)
    curves = found[found.metric.isin(["roar_accuracy", "kar_accuracy"])]
    assert (len(curves), set(curves.variant)) == (12, {""})
    assert not found.duplicated(["method", "x_name", "x", "metric", "variant"]).any()


@pytest.mark.parametrize(
    ("experiment", "method", "metric", "over", "caption"),
    [
        ("roar_table", "gbp", "roar_area", "seeds", "95 % intervals over 10 seeds"),
        ("roar_table", "base", "test_accuracy", "images", "over images, of one seed"),
        ("benchmark", "greedy", "ratio_to_floor", "rounds", "the least and the largest of the rounds"),
        ("path_analysis", "greedy", "class_kept", "images", "over images, of one seed"),
    ],
)
def test_what_is_counted_is_said(experiment, method, metric, over, caption):
    table = _table(0, {("sparsity", "90.0", metric): 0.5}, method).assign(experiment=experiment)
    found = aggregate({("seed=0",): table})
    assert (found.over[0], found.n[0]) == (over, 10)
    (drawing,) = sweep_figures(found)
    assert caption in drawing.caption


def test_figures_say_when_there_are_no_intervals():
    (drawing,) = sweep_figures(aggregate({("seed=0",): _table(0, {KEPT: 0.5}).assign(ci_low=np.nan, n=1)}))
    assert "No intervals" in drawing.caption


def test_figures_say_what_they_have_no_room_for():
    table = _table(0, {("sparsity", "90.0", f"measure_{number:02d}"): 0.5 for number in range(14)})
    (drawing,) = sweep_figures(aggregate({("seed=0",): table}))
    assert len(drawing.figure.axes) == 12
    assert drawing.caption.endswith("Not drawn: measure 12, measure 13.")


def test_areas_are_up_to_a_share_of_the_pixels_whether_they_are_removed_or_kept():
    (drawing,) = sweep_figures(aggregate({("seed=0",): _table(0, {("up_to_percent", "90.0", "kar_area"): 50.0})}))
    assert drawing.figure.axes[0].get_xlabel() == "up to this share of the pixels (%)"


def test_an_agreement_with_the_published_order_is_a_number_of_ours():
    key = ("up_to_percent", "90.0", "rank_agreement/roar/published")
    found = aggregate({(f"seed={seed}",): _table(seed, {key: 0.2 * seed}, n=3) for seed in (0, 1)})
    assert (found.n[0], found.value[0]) == (2, pytest.approx(0.1))


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
