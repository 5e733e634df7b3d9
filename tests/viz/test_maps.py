from __future__ import annotations

import json

import numpy as np
import torch
from PIL import Image

from cpath.viz import map_grid, map_strip, save_drawings, sparsity_grid
from cpath.viz.maps import magnitude

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


def test_pictures_are_png_alone_with_a_row_an_image_and_a_column_a_method(tmp_path):
    pixels = np.random.default_rng(0).random((2, 12, 12, 3))
    values = {name: torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(1)) for name in ATTRIBUTIONS}
    titles = ["tench\n71 %", "black-and-gold garden spider\n> 99 %"]
    strip = map_strip("strip_1", pixels[0], titles[0], values, ["original", "fc"], "A strip.")
    grid = sparsity_grid("sparsities_1", pixels[0], titles[0], {"neuron_mct": values["gbp"]}, [0, 90])
    grids = [map_grid(pixels, titles, values), map_grid(pixels, titles, values, overlay=True)]
    drawings = [*grids, strip, grid]
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
    # The long name of a class is wrapped beside its image.
    assert drawings[0].figure.axes[12].get_ylabel() == "black-and-gold\ngarden spider\n> 99 %"
    assert len(strip.figure.axes) == 3 * len(ATTRIBUTIONS)
    assert [panel.get_title() for panel in grid.figure.axes[:3]] == ["tench\n71 %", "0 %", "90 %"]
    assert len(grid.figure.axes) == 2 * 3
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
