"""Figures of faithfulness: curves, bands and numbers are those of the results."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import Tensor

import cpath
from cpath.errors import InputError
from tests import zoo

KEEP = torch.tensor([1.0, 10.0, 50.0])


def _found(method: str, values: Tensor, losses: Tensor | None = None) -> cpath.Faithfulness:
    ones = torch.ones(len(values))
    keep = KEEP if values.shape[1] == 3 else torch.tensor([100.0])
    return cpath.Faithfulness(values, keep, 0.5 * keep.expand_as(values), ones, ones, None, None, method, losses)


def _curves(figure: Figure, panel: int = 0) -> dict[str, tuple[list[float], list[float]]]:
    lines = figure.get_axes()[panel].lines
    named = [line for line in lines if not line.get_label().startswith("_")]
    return {line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in named}


def test_curves_are_means_over_the_inputs_and_one_set_of_units_is_a_point_at_its_size() -> None:
    values = torch.tensor([[0.0, 0.5, 1.0], [0.5, 1.0, 1.0], [torch.nan] * 3])
    mct = _found("neuron_mct", values, losses=1 - values)
    active = _found("active", torch.ones(3, 1), losses=torch.full((3, 1), 0.5))
    random = _found("random", torch.zeros(3, 3), losses=torch.zeros(3, 3))
    figure = mct.show(active, random)
    assert _curves(figure) == {
        "NeuronMCT": ([1.0, 10.0, 50.0], [0.25, 0.75, 1.0]),
        "Random": ([1.0, 10.0, 50.0], [0.0, 0.0, 0.0]),
        "Active subnetwork": ([50.0], [1.0]),
    }
    assert _curves(figure, 1)["NeuronMCT"][1] == [0.75, 0.25, 0.0]
    numbers = figure.get_axes()[2]
    assert [label.get_text() for label in numbers.get_yticklabels()] == ["NeuronMCT", "Random", "Active subnetwork"]
    places = {round(float(bar[0].get_ydata()[0]), 2): float(bar[0].get_xdata()[0]) for bar in numbers.containers}
    # The mean distances from 1, of sufficiency above and of necessity below the line of a method.
    assert places == pytest.approx({-0.12: 1 / 3, 0.88: 1.0, 1.88: 0.0, 0.12: 2 / 3, 1.12: 1.0, 2.12: 0.5})


def test_bands_are_the_bootstrap_intervals() -> None:
    values = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    figure = _found("greedy", values).show()
    panel = figure.get_axes()[0]
    low = panel.collections[0].get_paths()[0].vertices[:, 1]
    expected = cpath.analysis.bootstrap_mean(values.double().numpy())
    assert low.min() == pytest.approx(expected.low.min())
    assert low.max() == pytest.approx(expected.high.max())
    assert len(figure.get_axes()) == 2, "necessity was not measured"


def test_methods_beside_are_drawn_and_two_of_one_method_are_told_apart() -> None:
    model, images = zoo.make("vgg"), zoo.images(2)
    scores = cpath.score(model, images)
    found = cpath.faithfulness(model, images, scores, keep=[10, 50], beside=("random", "active"))
    assert [(one.method, one.keep.tolist()) for one in found.beside] == [("random", [10, 50]), ("active", [100])]
    alone = cpath.faithfulness(model, images, cpath.score(model, images, "random"), keep=[10, 50])
    assert torch.equal(found.beside[0].sufficiency, alone.sufficiency)
    legend = [text.get_text() for text in found.show(found).legends[0].get_texts()]
    assert legend == ["NeuronMCT", "NeuronMCT (2)", "Random", "Active subnetwork"]


def test_far_numbers_and_single_inputs_are_drawn_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    figure = _found("dgr", torch.tensor([[1.0, 20.0, 60.0]])).show()
    figure.draw_without_rendering()
    assert [str(warning.message) for warning in recwarn] == []
    curves, numbers = figure.get_axes()
    assert curves.get_ylim()[1] < 3
    assert numbers.get_xlim()[1] > 26
    sizes = [text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip()]
    assert np.min(sizes) / 72 * 900 / figure.get_figwidth() >= 8


def test_what_cannot_be_shown_is_refused() -> None:
    with pytest.raises(InputError, match="no input has a faithfulness of 'greedy'"):
        _found("greedy", torch.full((2, 3), torch.nan)).show()
    with pytest.raises(InputError, match=r"not Tensor|not a tensor|tensor"):
        cpath.viz.show_faithfulness(_found("greedy", torch.ones(2, 3)), torch.ones(3))  # type: ignore[arg-type]
