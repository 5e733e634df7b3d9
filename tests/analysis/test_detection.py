from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from cpath.analysis import detection
from cpath.errors import InputError
from tests.oracles import detection as oracle

scores = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=25)


@given(scores, scores)
@settings(max_examples=40, deadline=None)
def test_area_and_rate_are_those_of_all_pairs_and_thresholds(positives, negatives):
    found = detection(np.array(positives)[:, None], np.array(negatives)[:, None])
    assert found.auroc.mean[0] == pytest.approx(oracle.auroc(positives, negatives))
    assert found.fpr95.mean[0] == pytest.approx(oracle.fpr_at(positives, negatives))
    if len(positives) > 1 and len(negatives) > 1:
        assert 0 <= found.auroc.low[0] <= found.auroc.high[0] <= 1
    else:
        assert math.isnan(found.auroc.low[0])


def test_area_is_that_of_scikit_learn_and_its_interval_holds_it_as_often_as_it_says():
    rng, inside = np.random.default_rng(0), 0
    true = 0.7602499  # of two normal distributions whose means are 1 apart: Φ(1 / √2)
    for seed in range(40):
        mine, others = rng.normal(1, 1, (30, 1)), rng.normal(0, 1, (40, 1))
        found = detection(mine, others, seed=seed)
        inside += int(found.auroc.low[0] < true < found.auroc.high[0])
    labels = np.r_[np.ones(30), np.zeros(40)]
    assert found.auroc.mean[0] == pytest.approx(roc_auc_score(labels, np.r_[mine[:, 0], others[:, 0]]))
    assert 34 <= inside <= 40


def test_values_that_are_missing_are_left_out_and_counted():
    mine, others = np.array([[1.0, math.nan], [2.0, 5.0]]), np.array([[0.0, 1.0], [math.nan, 2.0], [3.0, math.nan]])
    found = detection(mine, others)
    assert found.auroc.mean.tolist() == [0.5, 1.0]
    assert (found.auroc.n.tolist(), found.negatives.tolist()) == ([2, 1], [2, 2])
    assert np.isnan(found.auroc.low).tolist() == [False, True]


def test_nothing_to_find_has_no_measure():
    found = detection(np.zeros((0, 2)), np.zeros((3, 2)))
    assert np.isnan(found.auroc.mean).all()
    assert found.negatives.tolist() == [3, 3]


def test_scores_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=r"not \(2, 1\) and \(2, 2\)"):
        detection(np.zeros((2, 1)), np.zeros((2, 2)))
