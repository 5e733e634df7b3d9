"""The experiment that trains a network and reports its accuracy."""

from __future__ import annotations


def test_train_reports_the_accuracy_of_the_kept_weights(job, figures):
    training = job("experiment=train")
    table = training.run()
    row = table[table.metric == "test_accuracy"].iloc[0]
    assert row.n == 360
    assert 20 < row.value <= 100  # two epochs of a narrow network: better than chance
    assert (table.metric == "val_accuracy").sum() == 2
    assert (training.folder / "figures" / "training.png").exists()
