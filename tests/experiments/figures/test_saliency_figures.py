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
