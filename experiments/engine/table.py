"""Tidy results: one row a number. Figures, trackers and reports are made from this table alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cpath.analysis import bootstrap_mean
from experiments.engine.cache import write_text
from experiments.engine.metric_entry import Metric, base_name

COLUMNS = (
    *("experiment", "dataset", "model", "method", "x_name", "x"),
    *("metric", "value", "ci_low", "ci_high", "n", "seed"),
)


class PseudoMethod(StrEnum):
    """Names in the column ``method`` that stand for no method: nothing in a configuration may be called so."""

    ALL = "all"
    """All methods together."""
    BASE = "base"
    """The network that retrainings are compared with."""
    INPUT = "input"
    """The input image, among pictures that were made for networks."""
    NETWORK = "network"
    """The unrestricted network, beside its pathways."""
    ORIGINAL = "original"
    """The unrestricted network, among networks that pictures are made for."""
    TRAINING = "training"
    """The training of a network."""
    UNTOUCHED = "untouched"
    """Retraining on images that keep all of their pixels."""


class Measure(NamedTuple):
    """Identifies one number of a table: ``metric`` of ``method``, at ``x`` of the quantity ``x_name``.

    Example:
        >>> from experiments.engine.table import Measure
        >>> Measure("greedy", "dead_share", "sparsity", 90.0).metric
        'dead_share'
    """

    method: str
    metric: str
    x_name: str = ""
    x: float | str = ""


@dataclass(frozen=True)
class Row:
    """One number of an experiment: ``metric`` of ``method`` where ``x_name`` is ``x``.

    Example:
        >>> from experiments.engine.table import Row
        >>> Row("greedy", "dead_share", 12.5, "sparsity", 90.0).cells["value"]
        12.5
    """

    method: str
    """Method or attribution that the number belongs to, or a name such as ``network`` that stands for none."""
    metric: str
    """Name of the metric, with its qualifier after a ``/``."""
    value: float
    """The number, in the metric's unit; a mean where there are several observations."""
    x_name: str = ""
    """Name of the quantity that was varied, such as ``sparsity``; empty where there is none."""
    x: float | str = ""
    """Value of that quantity, a number or a name."""
    ci_low: float = float("nan")
    """Lower end of the interval; NaN where there is none."""
    ci_high: float = float("nan")
    """Upper end of the interval; NaN where there is none."""
    n: int = 1
    """Number of observations behind the value: images, seeds or rounds; 0 for a published number."""
    dataset: str | None = None
    """Name of the dataset; None for the job's."""
    model: str | None = None
    """Name of the model; None for the job's."""

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


def inside_ranges(table: pd.DataFrame, metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Cut intervals off at the ends of their metrics' ranges; those of Student's t know nothing of them.

    Args:
        table: tidy table.
        metrics: entries of the metrics by name; numbers without an entry stay as they are.

    Returns:
        The table with these intervals.
    """
    entries = [metrics.get(base_name(name)) for name in table.metric]
    ends = {}
    for end in ("ci_low", "ci_high"):
        pairs = zip(table[end], entries, strict=True)
        ends[end] = [value if entry is None else entry.within(value) for value, entry in pairs]
    return table.assign(**ends)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV; a reader sees the whole file or the previous one.

    Args:
        table: tidy table.
        path: the file.
    """
    write_text(path, table.to_csv(index=False))


_TEXT = ("experiment", "dataset", "model", "method", "x_name", "x", "metric", "variant", "over")


def read_table(path: Path) -> pd.DataFrame:
    """Read a tidy table that `write_table` wrote.

    Args:
        path: the file.

    Returns:
        A frame with the columns of the file; ``x`` is text, of a number or of a name.
    """
    # A method may be called "none", and a dataset "2024": only numbers can be absent, and only text is text.
    absent: dict[str, list[str]] = {name: [""] for name in ("value", "ci_low", "ci_high")}
    dtype = dict.fromkeys(_TEXT, str)
    return pd.read_csv(path, dtype=dtype, keep_default_na=False, na_values=absent)


_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")


def place(x: str) -> float | str:
    """Read a value of a table's column ``x``.

    Args:
        x: text of the column.

    Returns:
        A number where it is one, else the text; ``nan`` and ``1_0`` are names.
    """
    return float(x) if _NUMBER.fullmatch(x) else x
