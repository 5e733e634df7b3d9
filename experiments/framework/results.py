"""Tidy results: one row a number. Figures, trackers and reports are made from this table alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from cpath.analysis import bootstrap_mean
from experiments.framework.store import write_text

COLUMNS = (
    "experiment",
    "dataset",
    "model",
    "method",
    "x_name",
    "x",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "n",
    "seed",
)


@dataclass(frozen=True)
class Row:
    """One number of an experiment: ``metric`` of ``method`` where ``x_name`` is ``x``."""

    method: str
    metric: str
    value: float
    x_name: str = ""
    x: float | str = ""
    ci_low: float = float("nan")
    ci_high: float = float("nan")
    n: int = 1
    dataset: str | None = None
    """None: the job's."""
    model: str | None = None
    """None: the job's."""

    @property
    def cells(self) -> dict[str, Any]:
        """What it says, by column."""
        return {name: value for name, value in vars(self).items() if value is not None}


Key = tuple[str, str, float | str, str]
"""(method, x_name, x, metric)"""


def rows_of_means(values: Mapping[Key, Sequence[float]]) -> list[Row]:
    """A row a key: the mean over images with its 95 % bootstrap interval. Images with NaN are left out."""
    if not values:
        return []
    interval = bootstrap_mean(np.array([np.asarray(column, dtype=np.float64) for column in values.values()]).T)
    return [
        Row(method, metric, mean, x_name, x, low, high, int(n))
        for (method, x_name, x, metric), mean, low, high, n in zip(
            values, interval.mean, interval.low, interval.high, interval.n, strict=True
        )
    ]


def counted(experiment: str, method: str, metric: str) -> str:
    """What ``n`` of a row counts, over which its interval is."""
    if experiment == "benchmark":
        return "rounds"
    # In a table of retrainings only the explained network's accuracy is a mean over images.
    of_seeds = experiment == "roar_table" and (method, metric) != ("base", "test_accuracy")
    return "seeds" if of_seeds else "images"


def interval_name(experiment: str) -> str:
    """What stands between ``ci_low`` and ``ci_high``."""
    return "least to largest" if experiment == "benchmark" else "95 % interval"


def table(rows: Iterable[Row], cfg: DictConfig) -> pd.DataFrame:
    """The tidy table of a job, with its experiment, dataset, model and seed."""
    records = [
        {
            "experiment": cfg.experiment.name,
            "dataset": cfg.dataset.name,
            "model": cfg.model.name,
            "seed": cfg.seed,
            **row.cells,
        }
        for row in rows
    ]
    return pd.DataFrame(records, columns=list(COLUMNS))


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Writes ``frame`` as CSV; a reader sees the whole file or the previous one."""
    write_text(path, frame.to_csv(index=False))


def read_table(path: Path) -> pd.DataFrame:
    """A tidy table that `write_table` wrote; ``x`` is text, a number or the name of something."""
    text = dict.fromkeys(("method", "x_name", "x", "metric"), str)
    return pd.read_csv(path, dtype=text).fillna(dict.fromkeys(text, ""))
