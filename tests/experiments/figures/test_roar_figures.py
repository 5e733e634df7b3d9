"""Figures of ROAR show the numbers of the table."""

from __future__ import annotations

from functools import partial

import pandas as pd
import pytest
from matplotlib.figure import Figure

from cpath.viz import colour_of
from experiments.figures.roar import roar_figures
from tests.rows import made_row

# Accuracy after 50 and 90 per cent of the pixels are gone, or kept.
REMOVED = {"gradients": (60.0, 30.0), "gbp": (70.0, 50.0), "random": (75.0, 65.0)}
KEPT = {"gradients": (70.0, 72.0), "gbp": (65.0, 71.0), "random": (60.0, 66.0)}

_row = partial(made_row, half=2.0, n=3)


def _table(kar: bool = True, published: bool = True) -> pd.DataFrame:
    rows = [_row("base", "test_accuracy", 80.0), _row("untouched", "untouched_accuracy", 79.0)]
    for mode, curves in (("roar", REMOVED), ("kar", KEPT))[: 1 + kar]:
        name = {"roar": "percent_removed", "kar": "percent_kept"}[mode]
        for method, values in curves.items():
            rows.append(_row(method, f"{mode}_area", sum(values) / 2, "up_to_percent", 90))
            rows += [_row(method, f"{mode}_accuracy", y, name, x) for x, y in zip((50, 90), values, strict=True)]
        methods = list(curves)
        for place, one in enumerate(methods):
            for other in methods[place + 1 :]:
                difference = sum(curves[one]) / 2 - sum(curves[other]) / 2
                rows.append(_row(one, f"{mode}_difference/{other}", difference, half=6.0))
    if kar:
        rows.append(_row("all", "roar_rank_agreement/roar/kar", 0.5, "up_to_percent", 90, half=0.25))
    if published:
        rows += [
            _row("gbp", "roar_accuracy/published", value, "percent_removed", x, n=0)
            for x, value in ((50, 55.0), (90, 45.0))
        ]
        rows.append(_row("all", "roar_rank_agreement/roar/published", -0.25, "up_to_percent", 90))
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def figures() -> dict[str, Figure]:
    return {drawing.name: drawing.figure for drawing in roar_figures(_table())}


@pytest.fixture(scope="module")
def captions() -> dict[str, str]:
    return {drawing.name: drawing.caption for drawing in roar_figures(_table())}


def test_there_is_a_figure_for_what_the_table_has(figures):
    assert list(figures) == ["roar", "areas", "paired", "rank_agreement", "published"]
    assert [d.name for d in roar_figures(_table(kar=False, published=False))] == ["roar", "areas", "paired"]
    assert roar_figures(_table()[:2]) == []


def test_curves_are_the_accuracies_with_their_bands(figures):
    for panel, values in zip(figures["roar"].axes, (REMOVED, KEPT), strict=True):
        lines = {line.get_color(): line for line in panel.lines}
        for method, accuracies in values.items():
            line = lines[colour_of(method)]
            assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([50, 90], list(accuracies))
        bands = [band.get_paths()[0].get_extents() for band in panel.collections]
        lows = [round(band.y0, 6) for band in bands]
        assert lows == [min(values[method]) - 2 for method in ("gbp", "gradients", "random")]
        (base,) = [line for line in panel.lines if line.get_label() == "untouched images"]
        assert set(base.get_ydata()) == {80.0}


def test_the_means_decide_what_is_shown(figures):
    assert figures["roar"].axes[0].get_ylim() == (20, 85)


def test_areas_stand_in_the_order_of_the_methods(figures, captions):
    removed, kept = figures["areas"].axes
    assert [tick.get_text() for tick in removed.get_yticklabels()] == ["GBP", "Gradients", "Random"]
    assert [line.get_xdata()[0] for line in removed.lines] == [60.0, 45.0, 70.0]
    assert [line.get_xdata()[0] for line in kept.lines] == [68.0, 71.0, 63.0]
    assert "up to 90 %" in captions["areas"]
    assert "over 3 seeds" in captions["areas"]


def test_every_pair_is_shown_from_both_sides_and_bold_where_it_is_certain(figures, captions):
    texts = {
        tuple(map(int, text.get_position()[::-1])): (text.get_text(), text.get_fontweight())
        for text in figures["paired"].axes[0].texts
    }
    # Rows and columns: GBP, Gradients, Random, with 60, 45 and 70 % left. The interval is 6 points to each side.
    assert texts == {
        (0, 1): ("-15.0", "bold"),
        (1, 0): ("+15.0", "bold"),
        (0, 2): ("+10.0", "bold"),
        (2, 0): ("-10.0", "bold"),
        (1, 2): ("+25.0", "bold"),
        (2, 1): ("-25.0", "bold"),
    }
    assert "mean over the shares, paired by seed (3 seeds)" in captions["paired"]
    kar = {text.get_text(): text.get_fontweight() for text in figures["paired"].axes[1].texts}
    assert kar["+3.0"] == "normal"
    assert kar["+8.0"] == "bold"


def test_blue_is_better_in_both_criteria(figures):
    removed, kept = (panel.images[0].get_array() for panel in figures["paired"].axes[:2])
    assert removed[1, 0] == 15  # Gradients leaves less accuracy than GBP: better when pixels are removed
    assert kept[1, 0] == 3  # and more when only they are kept


def test_numbers_and_colours_say_the_same(figures, captions):
    *panels, bar = figures["paired"].axes
    for panel in panels:
        (image,) = panel.images
        assert len(panel.texts) == 6
        for text in panel.texts:
            column, row = map(int, text.get_position())
            better = image.get_array()[row, column]
            assert text.get_text() == f"{better:+.1f}"
            red, _, blue, _ = image.to_rgba(image.get_array())[row, column]
            assert (blue > red) == (better > 0)
    assert bar.get_ylabel() == "row better by (points)"
    assert "lower in ROAR and higher in KAR" in captions["paired"]
    assert "Positive and blue: the method of the row is better." in captions["paired"]


def test_methods_that_are_alike_have_no_sign():
    table = _table()
    table.loc[table.metric.str.contains("_difference/"), "value"] = 0.0
    (paired,) = [drawing.figure for drawing in roar_figures(table) if drawing.name == "paired"]
    assert {text.get_text() for panel in paired.axes[:2] for text in panel.texts} == {"+0.0"}


def test_agreement_puts_the_best_at_the_upper_right(figures, captions):
    (panel,) = figures["rank_agreement"].axes
    points = {container.get_label(): container[0].get_xydata()[0].tolist() for container in panel.containers}
    assert points == {"Gradients": [45.0, 71.0], "GBP": [60.0, 68.0], "Random": [70.0, 63.0]}
    assert panel.xaxis_inverted()
    assert "0.50 (mean over 3 seeds, 95 % interval 0.25 to 0.75)" in captions["rank_agreement"]
    assert "without the controls" in captions["rank_agreement"]


def test_one_seed_makes_nothing_certain():
    table = _table().assign(ci_low=float("nan"), ci_high=float("nan"), n=1)
    drawings = {drawing.name: drawing for drawing in roar_figures(table)}
    texts = [text for panel in drawings["paired"].figure.axes[:2] for text in panel.texts]
    assert {text.get_fontweight() for text in texts} == {"normal"}
    assert "paired by seed (1 seed: no intervals)" in drawings["paired"].caption
    assert "Bold" not in drawings["paired"].caption
    assert "0.50; 1: the same order" in drawings["rank_agreement"].caption


def test_published_curves_are_dashed_beside_ours(figures, captions):
    (panel,) = [panel for panel in figures["published"].axes if panel.get_visible()]
    assert panel.get_title() == "GBP"
    ours, theirs = panel.lines
    assert ours.get_ydata().tolist() == [70.0, 50.0]
    assert theirs.get_ydata().tolist() == [55.0, 45.0]
    assert theirs.get_linestyle() == "--"
    assert "by area: -0.25 (mean over 3 seeds" in captions["published"]


def test_captions_say_whether_one_network_is_explained_or_several(captions):
    assert captions["roar"].startswith("Retraining on images")
    assert (
        "Mean over 3 seeds; bands: 95 % intervals over seeds of the retraining alone: one network is explained."
        in (captions["roar"])
    )
    table = _table()
    bases = [_row("base", "test_accuracy", value, "base_seed", seed) for seed, value in ((0, 80.0), (1, 82.0))]
    table = pd.concat([table[table.method != "base"].assign(n=6), pd.DataFrame(bases)], ignore_index=True)
    drawings = {drawing.name: drawing for drawing in roar_figures(table)}
    assert "Mean over 3 seeds for each of 2 explained networks; bands: 95 % intervals over explained networks" in (
        drawings["roar"].caption
    )
    line = next(line for line in drawings["roar"].figure.axes[0].lines if line.get_label() == "untouched images")
    assert set(line.get_ydata()) == {81.0}
