"""One table from those of many jobs: the mean over seeds, with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from cpath.analysis import t_mean
from experiments.engine.metric_entry import Metric, base_name
from experiments.engine.table import COLUMNS

AGGREGATED = (*COLUMNS, "variant", "over")
"""Columns of an aggregated table. ``seed`` lists the seeds; ``variant`` names the swept values that no other column
holds; ``over`` says what interval and ``n`` are over: seeds, or what the only job counts (images, mostly)."""

_HELD = ("experiment", "dataset", "model", "seed")  # always columns of the table
_USUALLY_HELD = ("method", "attribution", "sparsity", "percent", "keep")  # unless the jobs disagree on a number
_SAME = ["experiment", "dataset", "model", "method", "x_name", "x", "metric"]


def aggregate(tables: Mapping[tuple[str, ...], pd.DataFrame], metrics: Mapping[str, Metric]) -> pd.DataFrame:
    """Combine the tables of jobs: mean and 95 % t-interval over seeds.

    Numbers of only one seed keep their own interval.

    Args:
        tables: tidy table of each job, by its overrides as on the command line.
        metrics: entries of the metrics by name.

    Returns:
        A frame with the columns `AGGREGATED`.
    """
    if not tables:
        return pd.DataFrame(columns=list(AGGREGATED))
    swept = _swept(tables)
    rows = pd.concat([table.assign(job=number) for number, table in enumerate(tables.values())], ignore_index=True)
    # Each x_name apart: where x is the epoch, jobs may differ in the share of pixels, which elsewhere is x itself.
    parts = [_told_apart(part, list(tables), swept) for _, part in rows.groupby("x_name", sort=False)]
    rows = pd.concat(parts).sort_index().drop_duplicates([*_SAME, "variant", "seed"])
    groups = rows.groupby([*_SAME, "variant"], sort=False, dropna=False)
    return pd.DataFrame([_over_seeds(part, metrics) for _, part in groups], columns=list(AGGREGATED))


def _swept(jobs: Iterable[Sequence[str]]) -> list[str]:
    """The keys that do not have the same value in all jobs."""
    values: dict[str, set[str]] = {}
    for overrides in jobs:
        for key, value in _pairs(overrides):
            values.setdefault(key, set()).add(value)
    return [key for key, found in values.items() if len(found) > 1]


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    pairs = (override.lstrip("+").partition("=") for override in overrides)
    return [(key, value) for key, _, value in pairs]


def _told_apart(rows: pd.DataFrame, jobs: Sequence[Sequence[str]], swept: Sequence[str]) -> pd.DataFrame:
    """``rows`` with a variant: as few of the swept values as tell different numbers apart."""
    further = [key for key in swept if key not in (*_HELD, *_USUALLY_HELD)]
    usually = [key for key in swept if key in _USUALLY_HELD]
    for more in ([], *([key] for key in usually), usually):
        names = [
            " ".join(f"{key}={value}" for key, value in _pairs(overrides) if key in (*further, *more))
            for overrides in jobs
        ]
        named = rows.assign(variant=rows.job.map(dict(enumerate(names))))
        if not _disagree(named):
            break
    return named


def _disagree(rows: pd.DataFrame) -> bool:
    """Tell if two jobs gave different numbers for what the columns call the same."""
    values = rows.groupby([*_SAME, "variant", "seed"], sort=False).value
    low, high = values.min(), values.max()
    return bool(((high - low) > 1e-6 * high.abs()).any())


def _over_seeds(part: pd.DataFrame, metrics: Mapping[str, Metric]) -> dict[str, object]:
    """One row from the rows of the seeds."""
    first = part.iloc[0].to_dict()
    seeds = " ".join(str(seed) for seed in sorted(part.seed.unique()))
    entry = metrics.get(base_name(str(first["metric"])))
    published = bool((part.n.eq(0) & part.value.notna()).all())  # numbers that no seed measured
    if len(part) == 1 or published:
        over = "" if first["n"] <= 1 else "images" if entry is None else entry.over
        return {**first, "seed": seeds, "over": over}
    found = t_mean(part.value.to_numpy(dtype=np.float64)[:, None])
    interval = {"ci_low": float(found.low[0]), "ci_high": float(found.high[0])}
    if entry is not None:
        interval = {end: entry.within(value) for end, value in interval.items()}
    return {**first, "value": float(found.mean[0]), **interval, "n": int(found.n[0])} | {
        "seed": seeds,
        "over": "seeds",
    }
