from __future__ import annotations

import math

import pandas as pd
import pytest

from cpath.viz.style import in_rows, new_figure, shared_legend
from experiments.figures.curves import coinciding, curves_or_dots, height_of
from experiments.figures.linearity import linearity_figures
from tests.rows import made_row


def test_curves_that_hide_each_other_are_named():
    table = pd.DataFrame(
        made_row(method, "lerf_change", percent / 100 + 0.05 * number, "percent_removed", percent)
        for number, method in enumerate(["gradients", "gradcam", "gbp"])
        for percent in (1, 5, 10, 50, 90)
    )
    assert coinciding(table) == ""
    table.loc[table.method == "gbp", "value"] = table[table.method == "gradcam"].value.to_numpy()
    assert coinciding(table) == " The curves of GradCAM and GBP coincide."


def test_dots_have_their_interval_and_number_beside_it():
    rows = pd.DataFrame([made_row("gbp", "change", -0.5, "x", 1), made_row("dgr", "change", 0.125, "x", 1)])
    rows.loc[:, ["ci_low", "ci_high"]] = [[-0.7, -0.1], [float("nan")] * 2]
    panel = new_figure(4, 2).subplots()
    assert curves_or_dots(panel, rows, "x", "change (%)") is False
    assert [text.get_text() for text in panel.texts] == ["0.125", "−0.5"]
    assert [text.xy for text in panel.texts] == [(0.125, 0), (-0.1, 1)]
    assert (panel.get_xlabel(), panel.get_ylim()) == ("change (%)", (1.5, -0.5))
    assert height_of(rows, 3.0) == 1.1
    assert height_of(pd.concat([rows, rows.assign(x=2)]), 3.0) == 3.0


def test_a_panel_without_rows_is_hidden():
    panel = new_figure(4, 2).subplots()
    assert curves_or_dots(panel, pd.DataFrame({"x": [], "method": []}), "x", "y") is False
    assert not panel.get_visible()


def test_a_long_legend_makes_the_figure_taller_and_not_the_panels_smaller():
    heights = []
    for count in (2, 12):
        figure = new_figure(3, 3)
        panel = figure.subplots()
        for number in range(count):
            panel.plot([0, 1], label=f"a method of long name {number}")
        shared_legend(figure, panel)
        figure.draw_without_rendering()
        heights.append(panel.get_window_extent().height / figure.dpi)
    assert abs(heights[0] - heights[1]) < 0.35
    assert heights[1] > 1.7


def test_panels_fill_rows_evenly():
    assert in_rows(5, 2.7) == (2, 3)
    assert in_rows(1, 20) == (1, 1)


def test_one_sparsity_of_the_linearity_is_on_a_log_axis_with_whole_labels():
    rows = pd.DataFrame([made_row("random", "affine_radius", 1.2e-4, "sparsity", 90)])
    (drawing,) = linearity_figures(rows.assign(ci_low=1e-4, ci_high=1.6e-4))
    (panel,) = drawing.figure.axes
    assert panel.get_xscale() == "log"
    drawing.figure.draw_without_rendering()
    shown = [label.get_text() for label in panel.get_xticklabels(which="both") if label.get_text()]
    assert "0.0001" in shown
    assert not any("\\times" in text for text in shown)


@pytest.mark.filterwarnings("error")
def test_a_method_without_a_number_has_a_row_that_says_so():
    rows = pd.DataFrame([made_row("greedy", "m", math.nan, half=math.nan), made_row("random", "m", 0.5)])
    panel = new_figure(4, 2).subplots()
    assert curves_or_dots(panel, rows.assign(x=99.0), "sparsity", "change") is False
    assert [(text.get_text(), text.xy[1]) for text in panel.texts] == [("none", 0), ("0.5", 1)]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["Greedy", "Random"]
