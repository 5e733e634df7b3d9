"""Orders of attributions by several criteria, from tables made so that the right answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from experiments.framework.criteria import agreement
from experiments.framework.results import COLUMNS


def _table(areas: dict[str, dict[str, float]], x: float = 90.0) -> pd.DataFrame:
    return pd.DataFrame(
        [
            ("any", "digits", "resnet8", method, "up_to_percent", x, metric, value, np.nan, np.nan, 9, 3)
            for metric, values in areas.items()
            for method, value in values.items()
        ],
        columns=list(COLUMNS),
    )


AREAS = {
    "lerf_area": {"gradients": 0.1, "gbp": 0.2, "gradcam": 0.3, "input_mct": 0.4},
    "morf_area": {"gradients": 0.9, "gbp": 0.5, "gradcam": 0.6, "input_mct": 0.1},
    "lerf_area_road": {"gradients": 0.4, "gbp": 0.3, "gradcam": 0.2, "input_mct": 0.1},
    "roar_area": {"gradients": 40.0, "gbp": 50.0, "gradcam": 60.0, "input_mct": 70.0, "smoothgrad": 1.0},
}


def test_the_best_come_first_in_every_order():
    found = agreement(_table(AREAS))
    assert found.criteria == ("LeRF", "MoRF", "LeRF, ROAD", "ROAR")
    assert set(found.methods) == {"gradients", "gbp", "gradcam", "input_mct"}  # ROAR alone has SmoothGrad
    assert found.tau[0].tolist() == [1, pytest.approx(4 / 6), -1, 1]
    assert np.array_equal(found.tau, found.tau.T)
    quality = {metric: [values[method] for method in found.methods] for metric, values in AREAS.items()}
    expected = kendalltau(quality["morf_area"], [-value for value in quality["roar_area"]]).statistic
    assert found.tau[1, 3] == pytest.approx(expected)


def test_rows_name_each_pair_once():
    rows = agreement(_table(AREAS)).rows(_table(AREAS).iloc[0])
    assert len(rows) == 6
    row = rows.set_index("metric").loc["rank_agreement/LeRF/MoRF"]
    assert (row.value, row.n, row.dataset, row.seed) == (pytest.approx(4 / 6), 4, "digits", 3)


def test_the_widest_range_counts():
    narrow = {"lerf_area": {method: 1 - value for method, value in AREAS["lerf_area"].items()}}
    found = agreement(pd.concat([_table(narrow, x=10.0), _table(AREAS)]))
    assert found.tau[0, 3] == 1


def test_controls_do_not_count():
    last = {"lerf_area": 9.0, "morf_area": 0.0, "lerf_area_road": 9.0, "roar_area": 0.0}
    control = {metric: {**values, "random": last[metric]} for metric, values in AREAS.items()}
    found = agreement(_table(control))
    assert "random" not in found.methods
    assert found.tau[0, 3] == 1


@pytest.mark.parametrize(
    "areas", [{}, {"lerf_area": AREAS["lerf_area"]}, {"lerf_area": {"gbp": 1}, "roar_area": {"gbp": 1}}]
)
def test_nothing_to_compare(areas):
    assert agreement(_table(areas)) is None
