"""Trains the model of the configuration, or finds it trained, and reports its accuracy.

With ``checkpoint`` the training starts from these weights.
"""

from __future__ import annotations

import pandas as pd
from omegaconf import DictConfig

from experiments.figures.train import training_figures
from experiments.framework.job import Job, run_job
from experiments.framework.results import Row, rows_of_means
from experiments.framework.subject import build_model, load_data
from experiments.framework.trained import epoch_rows, read_history, train_artifact


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, training_figures)


def _compute(job: Job) -> list[Row]:
    data = load_data(job.cfg)
    folder = train_artifact(job.cfg, data, job.store, build_model(job.cfg, data))
    job.notes["model"] = str(folder)
    history = read_history(folder)
    hits = [100.0 * hit for hit in history["test_hits"]]
    return [*epoch_rows("training", history), *rows_of_means({("training", "", "", "test_accuracy"): hits})]
