from __future__ import annotations

import pandas as pd
import pytest

from cpath.viz import save_drawings
from experiments.figures.degradation import degradation_figures
from tests.rows import made_row

ATTRIBUTIONS = ["neuron_intgrad", "neuron_intgrad_star", "gbp", "gradients", "random"]


def _degradation(methods, percent=(1, 5, 10, 50, 90), road=True, published=()):
    rows = []
    for number, method in enumerate(methods):
        for order in ("lerf", "morf"):
            for suffix in ("", "_road") if road else ("",):
                rows += [
                    made_row(method, f"{order}_area{suffix}", 0.1 * number, "up_to_percent", up_to)
                    for up_to in (10.0, 90.0)
                ]
                rows += [
                    made_row(method, f"{order}_change{suffix}", p / 100 + 0.05 * number, "percent_removed", p)
                    for p in percent
                ]
    rows += [made_row("all", "rank_agreement/lerf/morf", 0.6, "up_to_percent", up_to) for up_to in (10.0, 90.0)]
    rows += [
        made_row(method, "lerf_change/published", p / 90, "percent_removed", p, n=0)
        for method in published
        for p in percent
    ]
    return pd.DataFrame(rows)


def test_degradation_draws_curves_areas_fills_agreement_and_what_was_published(tmp_path):
    drawings = degradation_figures(_degradation(ATTRIBUTIONS, published=["gradients", "gbp"]))
    assert [drawing.name for drawing in drawings] == [
        "degradation",
        "areas",
        "degradation_road",
        "rank_agreement",
        "published",
    ]
    save_drawings(drawings, tmp_path)
    for drawing in drawings:
        assert drawing.caption.endswith(".")
        assert (tmp_path / f"{drawing.name}.svg").exists()
    curves = drawings[0].figure.axes[1]
    assert [line.get_label() for line in curves.lines][:2] == ["NeuronIntGrad", "NeuronIntGrad*"]
    assert curves.lines[0].get_ydata().tolist() == pytest.approx([0.01, 0.05, 0.1, 0.5, 0.9])
    ours, paper = drawings[-1].figure.axes[0].lines
    assert (ours.get_linestyle(), paper.get_linestyle()) == ("-", "--")


def test_degradation_draws_what_there_is():
    table = _degradation(["gradients"], percent=(10,), road=False)
    table = table[table.metric != "rank_agreement/lerf/morf"]
    assert [drawing.name for drawing in degradation_figures(table)] == ["degradation", "areas"]
    assert degradation_figures(table[table.metric == "none"]) == []


def test_ranges_and_fills_are_named_with_all_their_digits():
    table = _degradation(["gradients"], percent=(33.3333333, 90), road=False)
    table.loc[table.x == "10.0", "x"] = "33.3333333"
    areas = degradation_figures(table)[1].figure.axes[0]
    assert areas.get_legend_handles_labels()[1] == ["up to 33.3333333 % of the pixels", "up to 90 % of the pixels"]
