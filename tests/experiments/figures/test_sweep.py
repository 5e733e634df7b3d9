"""Figures of sweeps: a panel a metric, a line a method, and captions that say what the bands are."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from cpath.viz import Drawing
from experiments.figures.sweep import sweep_figures
from tests.experiments.engine.test_aggregate import KEPT, METRICS, aggregated, metric, roar_cells, table_of


def drawn(table: pd.DataFrame) -> list[Drawing]:
    """Figures of a sweep's table, with the metrics of these tests."""
    return sweep_figures(table, METRICS)


def test_cells_of_roar_become_a_curve_a_method():
    drawings = {drawing.name: drawing for drawing in drawn(aggregated(roar_cells()))}
    (panel,) = drawings["roar-digits-resnet8_narrow-percent_removed"].figure.axes
    assert {line.get_label(): line.get_ydata().tolist() for line in panel.get_lines()} == {
        "GBP": [86.0, 66.0, 46.0],
        "Gradients": [76.0, 56.0, 36.0],
    }
    assert "over 3 seeds" in drawings["roar-digits-resnet8_narrow-percent_removed"].caption


@pytest.mark.parametrize(
    ("experiment", "method", "metric", "caption"),
    [
        ("roar_table", "gbp", "roar_area", "95 % intervals over 10 seeds"),
        ("roar_table", "base", "test_accuracy", "over images, of one seed"),
        ("benchmark", "greedy", "ratio_to_floor", "the least and the largest of the rounds"),
        ("path_analysis", "greedy", "class_kept", "over images, of one seed"),
    ],
)
def test_captions_say_what_is_counted(experiment, method, metric, caption):
    table = table_of(0, {("sparsity", "90.0", metric): 0.5}, method).assign(experiment=experiment)
    found = aggregated({("seed=0",): table})
    (drawing,) = drawn(found)
    assert caption in drawing.caption


def test_figures_say_when_there_are_no_intervals():
    (drawing,) = drawn(aggregated({("seed=0",): table_of(0, {KEPT: 0.5}).assign(ci_low=np.nan, n=1)}))
    assert "No intervals" in drawing.caption


def test_figures_say_what_they_have_no_room_for():
    table = table_of(0, {("sparsity", "90.0", f"measure_{number:02d}"): 0.5 for number in range(14)})
    (drawing,) = drawn(aggregated({("seed=0",): table}))
    assert len(drawing.figure.axes) == 12
    assert drawing.caption.endswith("Not drawn: measure 12, measure 13.")


def test_areas_are_up_to_a_share_of_the_pixels_whether_they_are_removed_or_kept():
    values = {("up_to_percent", x, "kar_area"): 50.0 for x in ("50.0", "90.0")}
    (drawing,) = drawn(aggregated({("seed=0",): table_of(0, values)}))
    assert drawing.figure.axes[0].get_xlabel() == "up to this share of the pixels (%)"
    (drawing,) = drawn(aggregated({("seed=0",): table_of(0, {("up_to_percent", "90.0", "kar_area"): 50.0})}))
    assert drawing.figure.axes[0].get_title() == "up to this share of the pixels (%): 90"


def test_figures_have_a_line_a_method_and_a_panel_a_metric():
    tables = {
        (f"method={method}", f"seed={seed}"): pd.concat(
            table_of(seed, {("sparsity", f"{x}.0", metric): seed + x / 100}, method)
            for x in (80, 90, 99)
            for metric in ("class_kept", "response_change")
        )
        for method in ("random", "greedy")
        for seed in (0, 1, 2)
    }
    accuracy = {("seed=0", "method=x"): table_of(0, {("", "", "test_accuracy"): 90.0}, "training")}
    drawings = {drawing.name: drawing for drawing in drawn(aggregated(tables | accuracy))}
    assert set(drawings) == {"path_analysis-digits-resnet8_narrow-sparsity", "path_analysis-values"}
    figure = drawings["path_analysis-digits-resnet8_narrow-sparsity"].figure
    assert len(figure.axes) == 2
    for panel in figure.axes:
        assert [line.get_label() for line in panel.get_lines()] == ["Greedy", "Random"]
        assert panel.get_lines()[0].get_xdata().tolist() == [80, 90, 99]
    assert "over 3 seeds" in drawings["path_analysis-digits-resnet8_narrow-sparsity"].caption


def test_axes_have_the_label_and_unit_of_the_metric():
    entries = {"class_kept": metric("class_kept", label="class kept", unit="%")}
    values = {("sparsity", x, "class_kept"): 50.0 for x in ("80.0", "90.0")}
    (drawing,) = sweep_figures(aggregated({("seed=0",): table_of(0, values)}), entries)
    (panel,) = drawing.figure.axes
    assert panel.get_ylabel() == "class kept (%)"
    assert panel.get_ylim() == (-3, 103), "the whole range"


def test_one_place_is_a_dot_a_method_along_the_axis_of_the_metric():
    entries = {"class_kept": metric("class_kept", label="class kept", unit="%")}
    tables = {
        (f"method={name}",): table_of(0, {KEPT: value}, name) for name, value in (("random", 20.0), ("dgr", 70.0))
    }
    (drawing,) = sweep_figures(aggregated(tables), entries)
    (panel,) = drawing.figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["DGR", "Random"]
    assert [container[0].get_xydata().tolist() for container in panel.containers] == [[[70, 0]], [[20, 1]]]
    assert [text.get_text() for text in panel.texts] == ["70", "20"]
    assert (panel.get_xlabel(), panel.get_xlim()) == ("class kept (%)", (-3, 103))
    assert panel.get_title() == "units pruned (%): 90"
    assert drawing.figure.legends == []


def test_no_finished_job_gives_no_figure():
    assert drawn(aggregated({})) == []


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")
