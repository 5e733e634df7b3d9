"""ROAR and KAR (paper, section 4), one cell: retrain without the pixels that an attribution ranks first."""

from __future__ import annotations

import pandas as pd
from omegaconf import DictConfig

from cpath.errors import InputError
from experiments.figures.roar import roar_cell_figures
from experiments.framework.job import Job, run_job
from experiments.framework.results import Row
from experiments.framework.retraining import (
    UNTOUCHED,
    Cell,
    accuracy_of,
    base_model,
    cell_artifact,
    check_percent,
    check_settings,
    rank_artifact,
)
from experiments.framework.subject import load_data
from experiments.framework.trained import epoch_rows


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, roar_cell_figures)


def _compute(job: Job) -> list[Row]:
    cfg = job.cfg
    percent = check_percent(cfg.percent)
    if not isinstance(cfg.keep, bool):
        raise InputError(
            f"one cell removes pixels or keeps them: keep must be false (ROAR) or true (KAR), not {cfg.keep}. Both "
            "are a sweep (-m keep=false,true), or experiment=roar_table in one job."
        )
    data = load_data(cfg)
    attributions = check_settings(cfg, data)
    if percent > 0 and len(attributions) > 1:
        raise InputError(
            f"one cell has one attribution, not {len(attributions)}: attribution=gradcam, a sweep over several "
            "(-m attribution=gradcam,random), or experiment=roar_table for all of them in one job."
        )
    name, attribution = next(iter(attributions.items()))
    if percent == 0:
        name, ranks = UNTOUCHED, None
    else:
        model = base_model(cfg, data, job.store)
        ranks = rank_artifact(cfg, data, job.store, model, name, attribution)
        del model
    cell = Cell(name, percent, cfg.keep, int(cfg.seed))
    history = cell_artifact(cfg, data, job.store, cell, ranks)
    best = max(history["epochs"], key=lambda epoch: float(epoch["val_accuracy"]))
    job.notes["best_epoch"] = best["epoch"] + 1
    return [*_rows(cell, accuracy_of(history), float(best["val_accuracy"])), *epoch_rows(name, history)]


def _rows(cell: Cell, accuracy: float, val_accuracy: float) -> list[Row]:
    """As in a table: untouched images are no place of KAR's curve, which keeps nothing at 0."""
    if cell.percent == 0:
        return [
            Row(UNTOUCHED, "test_accuracy", accuracy),
            Row(UNTOUCHED, "val_accuracy", val_accuracy),
        ]
    mode, x_name = ("kar", "percent_kept") if cell.keep else ("roar", "percent_removed")
    return [
        Row(cell.attribution, f"{mode}_accuracy", accuracy, x_name, cell.percent),
        Row(cell.attribution, f"{mode}_val_accuracy", val_accuracy, x_name, cell.percent),
    ]
