"""Labels of metrics."""

from __future__ import annotations

from dataclasses import replace

from experiments.engine.metric_entry import axis_label, by_name, told_apart
from experiments.metrics import METRICS


def test_labels_have_the_unit_and_a_metric_without_entry_its_name():
    assert axis_label("dead_share", METRICS) == "dead share (%)"
    assert axis_label("jaccard/greedy", METRICS) == "Jaccard index"
    assert axis_label("my_own", METRICS) == "my own"


def test_metrics_of_one_label_are_told_apart_by_their_names():
    kept = METRICS["class_kept"]
    metrics = by_name([kept, replace(kept, name="also_kept"), METRICS["jaccard"]])
    assert told_apart(metrics, metrics) == {
        "class_kept": "class kept: class kept (%)",
        "also_kept": "also kept: class kept (%)",
        "jaccard": "Jaccard index",
    }
    assert told_apart(["class_kept", "jaccard"], metrics)["class_kept"] == "class kept (%)"
