"""Orders of attributions by several criteria, from tables made so that the right answer is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from cpath.viz import criterion_label
from experiments.engine.table import COLUMNS
from experiments.rank_agreement import agreement, agreement_rows


def _table(areas: dict[str, dict[str, float]], x: float = 90.0) -> pd.DataFrame:
    return pd.DataFrame(
        [
            ("any", "digits", "resnet8_narrow", method, "up_to_percent", x, metric, value, np.nan, np.nan, 9, 3)
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
    assert found.criteria == ("lerf", "morf", "lerf_road", "roar")
    assert [criterion_label(name) for name in found.criteria] == ["LeRF", "MoRF", "LeRF (ROAD)", "ROAR"]
    taus = [found.between("lerf", other).value for other in found.criteria[1:]]
    assert taus == [pytest.approx(4 / 6), -1, 1]
    assert found.between("roar", "lerf") == found.between("lerf", "roar")
    methods = list(AREAS["morf_area"])  # ROAR alone has SmoothGrad
    expected = kendalltau(
        [AREAS["morf_area"][method] for method in methods], [-AREAS["roar_area"][method] for method in methods]
    ).statistic
    assert found.between("morf", "roar").value == pytest.approx(expected)


def test_rows_name_each_pair_once():
    rows = agreement(_table(AREAS)).rows(_table(AREAS).iloc[0])
    assert len(rows) == 6
    row = rows.set_index("metric").loc["rank_agreement/lerf/morf"]
    assert (row.value, row.n, row.dataset, row.seed) == (pytest.approx(4 / 6), 1, "digits", 3)
    assert np.isnan([row.ci_low, row.ci_high]).all()


def test_what_an_experiment_found_itself_is_not_computed_again():
    own = pd.DataFrame(
        [
            (
                "degradation",
                "digits",
                "resnet8_narrow",
                "all",
                "up_to_percent",
                x,
                "rank_agreement/morf/lerf",
                *found,
                9,
                3,
            )
            for x, found in (("10.0", (0.1, 0.0, 0.2)), ("90.0", (0.5, 0.4, 0.6)))
        ],
        columns=list(COLUMNS),
    )
    found = agreement(pd.concat([_table(AREAS), own], ignore_index=True))
    row = found.between("lerf", "morf")
    assert (row.value, row.ci_low, row.ci_high, row.n) == (0.5, 0.4, 0.6, 9)
    metrics = set(found.rows(own.iloc[0]).metric)
    assert "rank_agreement/lerf/roar" in metrics
    assert not {"rank_agreement/lerf/morf", "rank_agreement/morf/lerf"} & metrics


def test_every_pair_is_compared_by_the_methods_of_both():
    areas = {**AREAS, "kar_area": {"smoothgrad": 9.0, "gradients": 8.0, "random": 7.0}}
    found = agreement(_table(areas))
    assert found.between("roar", "kar").value == 1  # SmoothGrad before Gradients
    assert found.between("lerf", "kar") is None


def test_the_widest_range_counts():
    narrow = {"lerf_area": {method: 1 - value for method, value in AREAS["lerf_area"].items()}}
    found = agreement(pd.concat([_table(narrow, x=10.0), _table(AREAS)]))
    assert found.between("lerf", "roar").value == 1


def test_controls_do_not_count():
    last = {"lerf_area": 9.0, "morf_area": 0.0, "lerf_area_road": 9.0, "roar_area": 0.0}
    control = {metric: {**values, "random": last[metric]} for metric, values in AREAS.items()}
    found = agreement(_table(control))
    assert found.between("lerf", "morf").value == agreement(_table(AREAS)).between("lerf", "morf").value
    values = {"gradients": [1.0], "gbp": [2.0], "random": [3.0], "sobel": [4.0]}
    (row,) = agreement_rows(("morf", "kar"), (values, {**values, "gbp": [0.0]}), 90.0)
    assert (row.method, row.metric, row.value, row.x) == ("all", "rank_agreement/morf/kar", -1, 90.0)
    assert agreement_rows(("morf", "kar"), (values, {"gbp": [0.0], "random": [1.0]})) == []


@pytest.mark.parametrize(
    "areas", [{}, {"lerf_area": AREAS["lerf_area"]}, {"lerf_area": {"gbp": 1}, "roar_area": {"gbp": 1}}]
)
def test_nothing_to_compare(areas):
    assert agreement(_table(areas)) is None
