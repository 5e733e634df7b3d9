"""Figures of a training."""

from __future__ import annotations

import matplotlib as mpl
import pandas as pd

from cpath.viz.style import STYLE, Drawing, new_figure


def training_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw loss and accuracy by epoch.

    Args:
        table: tidy table of a training.

    Returns:
        The figure; none where no epoch was measured.
    """
    with mpl.rc_context(STYLE):
        epochs = table[table.x_name == "epoch"].assign(x=lambda frame: frame.x.astype(float))
        if epochs.empty:
            return []
        figure = new_figure(6.4, 2.6)
        left, right = figure.subplots(1, 2)
        for metric, label, colour in (("loss", "training", "#0072B2"), ("val_loss", "validation", "#D55E00")):
            curve = epochs[epochs.metric == metric]
            left.plot(curve.x, curve.value, label=label, color=colour)
        left.set(xlabel="epoch", ylabel="cross entropy", yscale="log")
        left.legend()
        curve = epochs[epochs.metric == "val_accuracy"]
        right.plot(curve.x, curve.value, color="#D55E00", label="validation")
        test = table[table.metric == "test_accuracy"]
        caption = "Loss and validation accuracy of the model by epoch."
        if len(test):
            accuracy = float(test.value.iloc[0])
            right.axhline(accuracy, color="#3C3C3C", linestyle="--", linewidth=1, label=f"test: {accuracy:.1f} %")
            caption += " The dashed line is the test accuracy of the best validation epoch."
        right.set(xlabel="epoch", ylabel="accuracy (%)")
        for panel in (left, right):
            panel.xaxis.get_major_locator().set_params(integer=True)
        right.legend(loc="lower right")
        return [Drawing("training", figure, caption)]
