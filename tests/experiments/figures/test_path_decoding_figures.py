from __future__ import annotations

import numpy as np
import pandas as pd

from experiments.figures.path_decoding import Decoded, Network, Picture, decoding_figures, decoding_pictures


def _decoded(methods, sparsities, dead=()):
    pixels = np.full((8, 8, 1), 0.5)
    networks = {
        Network("original", None): Picture(pixels, 1.0, 1.0),
        Network("active", None): Picture(pixels, 0.9, 0.8),
    }
    for method in methods:
        for sparsity in sparsities:
            networks[Network(method, sparsity)] = Picture(None if method in dead else pixels, 0.7, 0.001)
    neurons = {method: Picture(pixels, label="site\nchannel 3") for method in methods if method not in dead}
    return Decoded("image", "a class with a rather long name", Picture(pixels, 0.9, 0.9), networks, neurons)


def test_figures_name_columns_in_order_and_show_what_could_not_be_made():
    drawings = decoding_pictures([_decoded(["random", "neuron_mct"], [90.0, 98.0], dead=["random"])] * 2)
    assert [drawing.name for drawing in drawings] == [
        "decoded-90",
        "decoded-98",
        "decoded-sweep-1",
        "decoded-sweep-2",
        "top_neurons",
    ]
    panels = drawings[0].figure.axes
    assert [panel.get_title().replace("\n", " ") for panel in panels[:5]] == [
        "Input image",
        "Original network",
        "Active subnetwork",
        "NeuronMCT",
        "Random",
    ]
    assert panels[3].get_xlabel() == "own 0.70\noriginal < .01"
    assert not panels[4].images
    assert panels[4].texts[0].get_text() == "no gradient"
    assert all(drawing.picture and drawing.caption.endswith(".") for drawing in drawings)
    assert decoding_pictures([]) == []


def test_the_matrices_show_the_numbers_of_the_table():
    rows = [
        {"method": made, "x_name": "sparsity", "x": "98.0", "metric": f"{kind}/{network}", "value": value}
        for kind, values in {
            "probability": {"original": 0.25, "neuron_mct": 0.999},
            "response": {"original": -0.01, "neuron_mct": 123.4},
        }.items()
        for made in ("input", "original", "neuron_mct")
        for network, value in values.items()
    ]
    (drawing,) = decoding_figures(pd.DataFrame(rows))
    left, right = drawing.figure.axes
    assert [text.get_text() for text in left.texts] == [".25", "1.0"] * 3
    assert [text.get_text() for text in right.texts] == ["−0.01", "123"] * 3
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "Input image",
        "Original network",
        "NeuronMCT",
    ]
    assert decoding_figures(pd.DataFrame(rows)[:0]) == []


def test_sparsities_are_written_with_all_their_digits():
    drawings = decoding_pictures([_decoded(["random"], [90.00001, 90.00002])])
    assert [drawing.name for drawing in drawings[:2]] == ["decoded-90.00001", "decoded-90.00002"]
