from __future__ import annotations

import pandas as pd
import pytest

from experiments.figures.saliency import saliency_figures
from tests.rows import made_row


def test_saliency_draws_similarity_where_there_are_sparsities():
    rows = [made_row("neuron_mct", "similarity_to_gradient", 1 - s / 100, "sparsity", s) for s in (0, 50, 90)]
    (drawing,) = saliency_figures(pd.DataFrame(rows))
    assert drawing.figure.axes[0].lines[0].get_ydata().tolist() == pytest.approx([1, 0.5, 0.1])
    assert saliency_figures(pd.DataFrame(rows[:1])) == []


def test_one_sparsity_is_a_row_for_each_method():
    rows = [
        made_row(method, "similarity_to_gradient", value, "sparsity", 90)
        for method, value in (("random", 0.1), ("neuron_mct", 0.4))
    ]
    (drawing,) = saliency_figures(pd.DataFrame(rows))
    (panel,) = drawing.figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["NeuronMCT", "Random"]
    assert [text.get_text() for text in panel.texts] == ["0.4", "0.1"]
    assert panel.get_title() == "90 % pruned"
