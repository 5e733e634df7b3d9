from __future__ import annotations

import pandas as pd
from matplotlib.text import Text

from experiments.benchmark.timing import CAPTUM, FLOOR
from experiments.figures.benchmark import benchmark_figures
from experiments.paper.report import LEAST


def _table(*rows: tuple[str, str, str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": what,
                "x_name": at,
                "x": x,
                "metric": metric,
                "value": value,
                "ci_low": value,
                "ci_high": value,
            }
            for what, at, x, metric, value in rows
        ]
    )


def test_ratios_and_limits_are_drawn_where_they_belong():
    table = _table(
        ("greedy", "model", "vgg16", f"ratio_to_{FLOOR}", 1.1),
        ("greedy", "model", "vgg16", f"limit_to_{FLOOR}", 1.15),
        ("gbp", "model", "vgg16", f"ratio_to_{CAPTUM}", 0.5),
    )
    (drawing,) = benchmark_figures(table)
    (panel,) = drawing.figure.axes
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["greedy / vgg16", "gbp / vgg16"]
    points = {c.get_label(): c[0].get_xydata().tolist() for c in panel.containers}
    assert points == {"the passes it must contain": [[1.1, 0]], "Captum": [[0.5, 1]]}
    (limit,) = [line for line in panel.lines if line.get_color() == "#D55E00"]
    assert list(limit.get_xdata()) == [1.15, 1.15]
    assert benchmark_figures(table[:0].reindex(columns=table.columns)) == []


def test_times_are_drawn_over_what_grows():
    table = _table(
        *(("neuron_mct, net", "images", str(x), "seconds", 2.0 * x) for x in (1, 2)),
        *(("passes", "images", str(x), "seconds", 1.0 * x) for x in (1, 2)),
        *(("neuron_mct, net", "images", str(x), f"ratio_to_{FLOOR}", 2.0) for x in (1, 2)),
    )
    (drawing,) = benchmark_figures(table)
    ours, floor = drawing.figure.axes[0].lines
    assert (ours.get_ydata().tolist(), ours.get_linestyle()) == ([2, 4], "-")
    assert (floor.get_ydata().tolist(), floor.get_linestyle()) == ([1, 2], "--")


def _texts(figure):
    figure.draw_without_rendering()
    return [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]


def _drawn():
    return benchmark_figures(
        _table(
            ("greedy", "model", "vgg16", f"ratio_to_{FLOOR}", 1.1),
            ("greedy", "model", "vgg16", f"limit_to_{FLOOR}", 1.15),
            ("dgr", "model", "vgg16", f"ratio_to_{FLOOR}", 1.1),
            ("dgr", "model", "vgg16", f"limit_to_{FLOOR}", 1.3),
            ("neuron_mct, net", "pathways", "3", f"ratio_to_{FLOOR}", 2.0),
            ("neuron_mct, net", "pathways", "3", "seconds", 2.0),
            ("passes", "pathways", "3", "seconds", 1.0),
        )
    )


def test_everything_in_the_figure_of_ratios_is_in_its_legend_once():
    ratios, _ = _drawn()
    (legend,) = ratios.figure.legends
    assert sorted(text.get_text() for text in legend.get_texts()) == [
        "least to largest ratio of a round",
        "limit that cpath sets itself",
        "the passes it must contain",
        "the same time",
    ]
    (panel,) = ratios.figure.axes
    named = {line.get_color() for line in panel.lines if not line.get_label().startswith("_")}
    assert {line.get_color() for line in panel.lines if len(line.get_xdata())} <= named | {"#0072B2"}


def test_no_text_is_smaller_than_eight_pixels_where_a_report_shows_the_figure_smallest():
    for drawing in _drawn():
        smallest = min(text.get_fontsize() for text in _texts(drawing.figure))
        assert LEAST * smallest * 96 / 72 >= 8, drawing.name
