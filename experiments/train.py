"""Training: the model of the configuration is trained, or found trained, and its accuracy reported.

With ``checkpoint`` the training starts from these weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import pandas as pd

from cpath.viz import Drawing
from experiments.engine.experiment import Experiment
from experiments.engine.job import Job
from experiments.engine.metric_entry import Metric
from experiments.engine.network import build_model, check_classes
from experiments.engine.table import Measure, PseudoMethod, Row, rows_of_means
from experiments.engine.training import epoch_rows, read_history, trained_entry
from experiments.figures.findings import training_findings
from experiments.figures.train import training_figures
from experiments.metrics import pick


class Train(Experiment):
    """Trains a classifier on the dataset."""

    title: ClassVar[str] = "The model"
    metrics: ClassVar[tuple[Metric, ...]] = pick("test_accuracy", "val_accuracy", "loss", "val_loss")
    explains_with = ()

    def run(self, job: Job) -> Iterable[Row]:
        """Train the model unless that was done before."""
        model = build_model(job.config, job.data)
        check_classes(model, job.data, job.config)
        folder = trained_entry(job.config, job.data, job.cache, model)
        job.notes["model"] = str(folder)
        history = read_history(folder)
        hits = [100.0 * hit for hit in history["test_hits"]]
        return [
            *epoch_rows(PseudoMethod.TRAINING, history),
            *rows_of_means({Measure(PseudoMethod.TRAINING, "test_accuracy"): hits}),
        ]

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw loss and accuracy by epoch."""
        return training_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return training_findings(table)
