from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import cpath
from cpath.viz.pixels import captions, pixels_of, site_labels

SCALE = cpath.data.Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def _pixels(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 10, 12, generator=torch.Generator().manual_seed(0))


def _shown(figure: Figure, place: int) -> np.ndarray:
    """Values that a panel shows last."""
    return np.asarray(figure.get_axes()[place].images[-1].get_array())


@pytest.mark.parametrize("normalisation", [SCALE, (SCALE.mean, SCALE.std)])
def test_a_normalised_image_is_shown_with_its_own_colours(normalisation):
    pixels = _pixels()
    figure = cpath.show(torch.ones(2, 3, 10, 12), SCALE.apply(pixels), normalisation=normalisation)
    np.testing.assert_allclose(_shown(figure, 0), pixels[0].permute(1, 2, 0), atol=1e-6)


def test_raw_pixels_are_shown_as_they_are_and_others_stretched():
    raw = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    np.testing.assert_allclose(pixels_of(raw)[0, 0, :, 0], [0, 0.2, 1])
    np.testing.assert_allclose(pixels_of(raw / 510)[0, 0, :, 0], [0, 0.1, 0.5])
    np.testing.assert_allclose(pixels_of(torch.tensor([-2.0, 0, 6]).view(1, 1, 1, 3))[0, 0, :, 0], [0, 0.25, 1])
    assert pixels_of(torch.rand(1, 5, 2, 2)).shape == (1, 2, 2, 1)


def test_one_method_is_shown_alone_and_over_the_input_with_both_classes():
    maps = torch.zeros(2, 3, 10, 12)
    maps[:, 1, 4, 5] = -2
    figure = cpath.show(
        {"neuron_mct": maps}, _pixels(), predicted=torch.tensor([1, 0]), true=[0, 0], classes=["cat", "dog"]
    )
    panels = figure.get_axes()
    assert [panel.get_title() for panel in panels[:3]] == ["input", "NeuronMCT", "over the input"]
    assert [panels[place].get_ylabel() for place in (0, 3)] == [
        "predicted dog\ntrue cat",
        "predicted cat\ntrue cat",
    ]
    assert np.argwhere(_shown(figure, 1) == 1).tolist() == [[4, 5]]  # the channel of the largest magnitude
    assert _shown(figure, 2).shape == (10, 12)
    assert _shown(figure, 2).argmax() == 4 * 12 + 5


@pytest.mark.parametrize(("overlay", "layers"), [(None, 2), (True, 2), (False, 1)])
def test_several_methods_have_a_column_each_in_the_order_of_all_figures(overlay, layers):
    maps = {name: torch.rand(2, 10, 12) for name in ("random", "mine", "neuron_mct")}
    panels = cpath.show(maps, _pixels(), overlay=overlay).get_axes()
    assert [panel.get_title() for panel in panels[:4]] == ["input", "NeuronMCT", "Random", "mine"]
    assert [len(panel.images) for panel in panels[:4]] == [1, layers, layers, layers]


@pytest.mark.parametrize(("methods", "count"), [(1, 1), (1, 16), (3, 1), (3, 5), (8, 5), (17, 1)])
def test_no_figure_is_wider_than_a_notebook_and_every_map_is_in_it(methods, count):
    maps = {f"m{number}": torch.rand(count, 1, 10, 12) for number in range(methods)}
    figure = cpath.show(maps, _pixels(count), predicted=["a name of some length"] * count, overlay=True)
    # At 900 pixels, texts of 8.5 points are 9 pixels high.
    assert 8.5 / 72 * 900 / figure.get_figwidth() >= 8
    assert sum(len(panel.images) == 2 for panel in figure.get_axes()) == methods * count
    assert sum(len(panel.images) == 1 for panel in figure.get_axes()) == count


def test_texts_are_whole_and_do_not_overlap_each_other():
    maps = {name: torch.rand(3, 10, 10) for name in ("neuron_intgrad_released", "neuron_intgrad_star", "active")}
    names = ["black-and-gold garden spider", "cat", "ox"]
    figure = cpath.show(maps, _pixels(3), predicted=names, true=names[::-1])
    figure.draw_without_rendering()
    page = figure.bbox
    texts = [panel.title for panel in figure.get_axes()] + [panel.yaxis.label for panel in figure.get_axes()]
    boxes = [text.get_window_extent() for text in texts if text.get_text()]
    assert len(boxes) == 4 + 3
    assert all(page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1 for box in boxes)
    assert not any(one.overlaps(other) for place, one in enumerate(boxes) for other in boxes[place + 1 :])


def test_maps_of_another_size_are_laid_over_the_whole_input():
    maps = torch.zeros(1, 2, 2)
    maps[0, 0, 1] = 1
    assert _shown(cpath.show(maps, torch.rand(1, 3, 8, 8), overlay=False), 1).shape == (8, 8)


def test_pyplot_is_left_alone_and_a_notebook_shows_the_figure_without_it():
    code = (
        "import sys, torch, cpath; late = 'matplotlib' in sys.modules;"
        "figure = cpath.show(torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4));"
        "print(late, 'matplotlib.pyplot' in sys.modules, figure._repr_png_()[1:4])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False False b'PNG'"


def test_without_matplotlib_every_picture_says_what_to_install():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import torch, cpath\n"
        "pathway = cpath.Pathway.from_masks({'relu': torch.ones(1, 4, dtype=torch.bool)})\n"
        "for show in (lambda: cpath.show(1, 2), pathway.show):\n"
        "    try:\n        show()\n"
        "    except cpath.MissingPackageError as error:\n        print(error)\n"
    )
    told = subprocess.check_output([sys.executable, "-c", code], text=True).splitlines()
    assert (
        told
        == ["cpath.viz needs matplotlib, which is not installed: pip install 'critical-pathways[experiments]'."] * 2
    )


@pytest.mark.parametrize(
    ("maps", "inputs", "settings", "message"),
    [
        (torch.rand(3, 4, 4), torch.rand(2, 3, 4, 4), {}, "3 maps 'map' for 2 inputs"),
        (torch.rand(4, 4), torch.rand(2, 3, 4, 4), {}, r"must be a tensor \(B, C, H, W\) or \(B, H, W\)"),
        ({}, torch.rand(2, 3, 4, 4), {}, "no map to show"),
        (torch.rand(1, 4, 4), torch.rand(3, 4, 4), {}, r"one image is image\[None\]"),
        (torch.rand(1, 4, 4), torch.full((1, 3, 4, 4), float("nan")), {}, "hold NaN"),
        (torch.rand(1, 4, 4), torch.rand(1, 1, 4, 4), {"normalisation": SCALE}, "for 3 channels, inputs have 1"),
        (torch.rand(1, 4, 4), torch.ones(1, 3, 4, 4).byte(), {"normalisation": SCALE}, "leave normalisation= out"),
        (torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4), {"true": [1, 2]}, "a class for each of the 1 inputs"),
        (torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4), {"true": 1}, "a class for each of the 1 inputs, not 1"),
        (torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4), {"true": "a"}, "a class for each of the 1 inputs, not 'a'"),
        (torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4), {"true": [0], "classes": {"a": 0}}, "names in the order"),
        (torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4), {"normalisation": 3}, r"a pair \(mean, std\)"),
        (torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4), {"normalisation": (0.5, 0.2)}, r"a pair \(mean, std\)"),
        (torch.rand(1, 4, 4).to(torch.complex64), torch.rand(1, 3, 4, 4), {}, "real numbers, not torch.complex64"),
        (torch.rand(1, 4, 4), torch.rand(1, 3, 4, 4), {"true": [1], "classes": ["a"]}, "classes= names 1 classes"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(maps, inputs, settings, message):
    with pytest.raises(cpath.InputError, match=message):
        cpath.show(maps, inputs, **settings)


def test_maps_of_booleans_under_names_that_are_no_strings():
    maps = torch.zeros(2, 3, 10, 12, dtype=torch.bool)
    maps[:, 0, :5] = True
    figure = cpath.show({1: maps}, _pixels(), overlay=False)
    assert figure.get_axes()[1].get_title() == "1"
    assert np.array_equal(_shown(figure, 1) > 0, maps[0, 0])


def test_a_normalisation_of_tensors_or_in_a_list():
    pixels = _pixels()
    for normalisation in ([SCALE.mean, SCALE.std], (torch.tensor(SCALE.mean), torch.tensor(SCALE.std))):
        np.testing.assert_allclose(
            pixels_of(SCALE.apply(pixels), normalisation), pixels.permute(0, 2, 3, 1), atol=1e-6
        )


def test_captions_hold_what_is_known():
    assert captions(2, None, None, None) == ["", ""]
    assert captions(1, None, ["owl"], None) == ["true owl"]
    assert captions(1, [3], None, None) == ["predicted 3"]


def test_labels_of_sites_keep_what_tells_them_apart():
    assert site_labels(["features.3.relu", "features.12.relu"], 20) == ["…3.relu", "…12.relu"]
    assert site_labels(["layer_1.act", "layer_11.act"], 20) == ["…1.act", "…11.act"]
    assert site_labels(["relu"], 20) == ["relu"]
    (label,) = site_labels(["encoder.block.attention.activation"], 20)
    assert label == "encoder.bloc…ivation"
