"""Tidy results: one row a number. Figures, trackers and reports are made from this table alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cpath.analysis import bootstrap_mean
from experiments.engine.cache import write_text

COLUMNS = (
    *("experiment", "dataset", "model", "method", "x_name", "x"),
    *("metric", "value", "ci_low", "ci_high", "n", "seed"),
)


class Measure(NamedTuple):
    """Identifies one number of a table: ``metric`` of ``method``, at ``x`` of the quantity ``x_name``."""

    method: str
    metric: str
    x_name: str = ""
    x: float | str = ""


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
        """Values by column, without those that are the job's."""
        return {name: value for name, value in vars(self).items() if value is not None}


def rows_of_means(values: Mapping[Measure, Sequence[float]]) -> list[Row]:
    """Mean of each measure over the images, with its 95 % bootstrap interval.

    Args:
        values: one number per image for each measure; NaN is left out, and ``n`` counts what is left.

    Returns:
        One row for each measure, in the same order.
    """
    if not values:
        return []
    columns = np.array([np.asarray(column, dtype=np.float64) for column in values.values()])
    interval = bootstrap_mean(columns.T)
    return [
        Row(measure.method, measure.metric, mean, measure.x_name, measure.x, low, high, int(n))
        for measure, mean, low, high, n in zip(
            values, interval.mean, interval.low, interval.high, interval.n, strict=True
        )
    ]


def tidy_table(rows: Iterable[Row], *, experiment: str, dataset: str, model: str, seed: int) -> pd.DataFrame:
    """Tidy table of a job from its rows.

    Args:
        rows: the numbers.
        experiment: name of the experiment, like the others a column of the table.
        dataset: name of the dataset, for rows that name none.
        model: name of the model, for rows that name none.
        seed: seed of the job.

    Returns:
        A frame with the columns `COLUMNS`.
    """
    same = {"experiment": experiment, "dataset": dataset, "model": model, "seed": seed}
    return pd.DataFrame([{**same, **row.cells} for row in rows], columns=list(COLUMNS))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write ``table`` as CSV; a reader sees the whole file or the previous one."""
    write_text(path, table.to_csv(index=False))


_TEXT = ("experiment", "dataset", "model", "method", "x_name", "x", "metric", "variant", "over")


def read_table(path: Path) -> pd.DataFrame:
    """Read a tidy table that `write_table` wrote; the column ``x`` is text, of a number or of a name."""
    # A method may be called "none", and a dataset "2024": only numbers can be absent, and only text is text.
    absent: dict[str, list[str]] = {name: [""] for name in ("value", "ci_low", "ci_high")}
    dtype = dict.fromkeys(_TEXT, str)
    return pd.read_csv(path, dtype=dtype, keep_default_na=False, na_values=absent)


_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def place(x: str) -> float | str:
    """Value of a table's ``x``: a number where it is one; ``nan`` and ``1_0`` are names."""
    return float(x) if _NUMBER.fullmatch(x) else x
