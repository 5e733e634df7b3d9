from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from cpath.viz import save_drawings
from experiments.figures.sanity_checks import sanity_check_figures, sanity_strip
from tests.rows import made_row

ATTRIBUTIONS = ["neuron_intgrad", "gradcam", "gbp", "random", "sobel"]


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


def test_the_caption_says_what_the_intervals_are_over():
    table = _sanity(["gbp"])
    (one, *_), (five, *_) = sanity_check_figures(table), sanity_check_figures(table, 5)
    assert "one draw of the weights; bands: 95 % intervals over images alone." in one.caption
    assert "5 draws of the weights; bands: 95 % intervals over both together." in five.caption
    table.loc[(table.x == "fc") & (table.metric == "ssim"), "n"] = 3
    few = sanity_check_figures(table, 5)[0].caption
    assert f"Mean over 3 to {table.n.max()} images (constant maps are left out) and 5 draws" in few


def test_a_block_may_be_called_as_the_original_map_is():
    curves, *_ = sanity_check_figures(_sanity(["gbp"], blocks=("0", "original")))
    ticks = [label.get_text() for label in curves.figure.axes[2].get_xticklabels()]
    assert ticks == ["original", "0", "original", "random map"]
    assert curves.figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([1, 0.5, 0.4])


def test_a_strip_shows_a_row_a_method_and_a_column_a_block(tmp_path):
    pixels = np.random.default_rng(0).random((12, 12, 3))
    maps = {name: torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(1)) for name in ("gbp", "gradcam")}
    strip = sanity_strip("strip_1", pixels, "tench\n71 %", maps, ["original", "fc"])
    assert [panel.get_title() for panel in strip.figure.axes[:3]] == ["tench\n71 %", "original", "fc"]
    assert [panel.get_ylabel() for panel in strip.figure.axes[1::3]] == ["GradCAM", "GBP"]
    assert "(tench)" in strip.caption
    save_drawings([strip], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"strip_1.png", "captions.json"}
