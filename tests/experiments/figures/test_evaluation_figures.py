from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cpath.viz import Maps, colour_of, in_order, map_grid, save_drawings, sparsity_grid
from cpath.viz.maps import magnitude
from experiments.figures.curves import coinciding
from experiments.figures.degradation import degradation_figures
from experiments.figures.saliency import saliency_figures
from experiments.figures.sanity_checks import sanity_check_figures, sanity_strip
from tests.rows import made_row

ATTRIBUTIONS = [
    "neuron_intgrad",
    "neuron_intgrad_star",
    "neuron_mct",
    "gradcam",
    "gbp",
    "input_intgrad",
    "input_mct",
    "gradients",
    "smoothgrad",
    "random",
    "sobel",
]


def _degradation(methods, percents=(1, 5, 10, 50, 90), road=True, published=()):
    rows = []
    for number, method in enumerate(methods):
        for order in ("lerf", "morf"):
            for suffix in ("", "_road") if road else ("",):
                rows += [
                    made_row(method, f"{order}_area{suffix}", 0.1 * number, "up_to_percent", up_to)
                    for up_to in (10.0, 90.0)
                ]
                rows += [
                    made_row(
                        method, f"{order}_change{suffix}", percent / 100 + 0.05 * number, "percent_removed", percent
                    )
                    for percent in percents
                ]
    rows += [made_row("all", "rank_agreement/lerf/morf", 0.6, "up_to_percent", up_to) for up_to in (10.0, 90.0)]
    rows += [
        made_row(method, "lerf_change/published", p / 90, "percent_removed", p, n=0)
        for method in published
        for p in percents
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
    table = _degradation(["gradients"], percents=(10,), road=False)
    table = table[table.metric != "rank_agreement/lerf/morf"]
    assert [drawing.name for drawing in degradation_figures(table)] == ["degradation", "areas"]
    assert degradation_figures(table[table.metric == "none"]) == []


def test_curves_that_hide_each_other_are_named():
    table = _degradation(["gradients", "gradcam", "gbp"], road=False)
    assert coinciding(table[table.metric == "lerf_change"]) == ""
    table.loc[table.method == "gbp", "value"] = table[table.method == "gradcam"].value.to_numpy()
    assert coinciding(table[table.metric == "lerf_change"]) == " The curves of GradCAM and GBP coincide."


def _sanity(methods, blocks=("fc", "layer1", "conv1"), published=()):
    rows = []
    for method in methods:
        for measure in ("spearman", "spearman_abs", "ssim", "hog"):
            rows.append(made_row(method, f"{measure}_random_map", 0.0))
            for depth, block in enumerate(blocks):
                at = {"x_name": "randomized_down_to", "x": block}
                rows.append(made_row(method, measure, 0.5 - 0.1 * depth, **at))
                rows.append(made_row(method, f"{measure}/sd_of_draws", 0.1, **at))
    at = {"x_name": "randomized_down_to", "n": 0}
    rows += [
        made_row(method, "ssim/published", 0.9, x=x, **at) for method in published for x in ("original", *blocks)
    ]
    return pd.DataFrame(rows)


def test_sanity_checks_draw_a_panel_a_measure_from_the_original_to_the_random_map():
    curves, published = sanity_check_figures(_sanity(ATTRIBUTIONS, published=["gbp"]))
    assert (curves.name, published.name) == ("sanity_checks", "published_ssim")
    titles = [panel.get_title() for panel in curves.figure.axes]
    assert titles == ["Spearman", "Spearman of magnitudes", "SSIM", "HOG correlation"]
    ticks = [label.get_text() for label in curves.figure.axes[2].get_xticklabels()]
    assert ticks == ["original", "fc", "layer1", "conv1", "random map"]
    assert curves.figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([1, 0.5, 0.4, 0.3])
    assert "HOG" in published.caption


def test_pictures_are_png_alone_with_a_row_an_image_and_a_column_a_method(tmp_path):
    pixels = np.random.default_rng(0).random((2, 12, 12, 3))
    values = {name: torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(1)) for name in ATTRIBUTIONS}
    maps = Maps(pixels, ["tench\n71 %", "black-and-gold garden spider\n> 99 %"], values)
    strip = sanity_strip("strip_1", pixels[0], "tench\n71 %", values, ["original", "fc"])
    grid = sparsity_grid("sparsities_1", Maps(pixels[:1], maps.titles[:1], {"neuron_mct": values["gbp"]}), [0, 90])
    drawings = [map_grid(maps), map_grid(maps, overlay=True), strip, grid]
    save_drawings(drawings, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "maps.png",
        "overlays.png",
        "strip_1.png",
        "sparsities_1.png",
        "captions.json",
    }
    assert len(drawings[0].figure.axes) == 2 * 12
    assert [panel.get_title() for panel in drawings[0].figure.axes[1:3]] == ["NeuronIntGrad", "NeuronIntGrad*"]
    with Image.open(tmp_path / "maps.png") as picture:
        assert picture.size[0] > 2000
    assert len(json.loads((tmp_path / "captions.json").read_text())) == 4


def test_a_map_is_scaled_to_its_99th_percentile_and_a_zero_map_stays_zero():
    values = torch.arange(-100.0, 100.0).view(10, 20)
    values[0, 0] = 1e6
    shown = magnitude(values)
    assert shown.max() == 1
    assert shown[5, 0] == 0
    assert 0.45 < shown[7, 10] < 0.55  # 50 of about 100
    assert (magnitude(torch.zeros(4, 4)) == 0).all()
    sparse = torch.zeros(20, 20)
    sparse[3, 3] = 2.0
    assert magnitude(sparse)[3, 3] == 1


def test_saliency_draws_similarity_where_there_are_sparsities():
    rows = [made_row("neuron_mct", "similarity_to_gradient", 1 - s / 100, "sparsity", s) for s in (0, 50, 90)]
    (drawing,) = saliency_figures(pd.DataFrame(rows))
    assert drawing.figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([1, 0.5, 0.1])
    assert saliency_figures(pd.DataFrame(rows[:1])) == []


def test_every_attribution_has_its_own_place_and_colour():
    assert in_order(reversed(ATTRIBUTIONS)) == ATTRIBUTIONS
    assert len({colour_of(name) for name in ATTRIBUTIONS}) == len(ATTRIBUTIONS)
