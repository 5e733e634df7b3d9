"""Many jobs' tidy tables made one: the mean over seeds with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy.stats

from experiments.framework.published import MARK
from experiments.framework.results import COLUMNS

AGGREGATED = (*COLUMNS, "variant", "over")
"""Columns of an aggregated table. ``seed`` lists the seeds; ``variant`` names the swept values that no other column
holds; ``over`` says what ``value``, interval and ``n`` are over: seeds, or the images of the only seed."""

_HELD = ("experiment", "dataset", "model", "seed")  # always columns of the table
_USUALLY_HELD = ("method", "attribution", "sparsity")  # columns unless the jobs disagree on a number
_SAME = ["experiment", "dataset", "model", "method", "x_name", "x", "metric"]


def aggregate(tables: Mapping[tuple[str, ...], pd.DataFrame]) -> pd.DataFrame:
    """One table from those of jobs, by the overrides of each: mean and 95 % t-interval over seeds.

    What only one seed measured keeps its interval over images.
    """
    if not tables:
        return pd.DataFrame(columns=list(AGGREGATED))
    swept = _swept(tables)
    rows = _with_variants(tables, [key for key in swept if key not in (*_HELD, *_USUALLY_HELD)])
    if _disagree(rows):
        rows = _with_variants(tables, [key for key in swept if key not in _HELD])
    rows = rows.drop_duplicates([*_SAME, "variant", "seed"])
    groups = rows.groupby([*_SAME, "variant"], sort=False, dropna=False)
    return pd.DataFrame([_over_seeds(part) for _, part in groups], columns=list(AGGREGATED))


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


def _with_variants(tables: Mapping[tuple[str, ...], pd.DataFrame], keys: Sequence[str]) -> pd.DataFrame:
    frames = []
    for overrides, table in tables.items():
        variant = " ".join(f"{key}={value}" for key, value in _pairs(overrides) if key in keys)
        frames.append(table.assign(variant=variant))
    return pd.concat(frames, ignore_index=True)


def _disagree(rows: pd.DataFrame) -> bool:
    """Whether two jobs gave different numbers for what the columns call the same."""
    values = rows.groupby([*_SAME, "variant", "seed"], sort=False).value
    low, high = values.min(), values.max()
    return bool(((high - low) > 1e-6 * high.abs()).any())


def _over_seeds(part: pd.DataFrame) -> dict[str, object]:
    """One row from the rows of the seeds."""
    first = part.iloc[0].to_dict()
    seeds = " ".join(str(seed) for seed in sorted(part.seed.unique()))
    if len(part) == 1 or str(first["metric"]).endswith(MARK):
        return {**first, "seed": seeds, "over": "images" if first["n"] > 1 else ""}
    values = part.value.dropna().to_numpy(dtype=np.float64)
    count = len(values)
    mean = float(values.mean()) if count else float("nan")
    half = float("nan")
    if count > 1:
        half = float(scipy.stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))
    return {**first, "value": mean, "ci_low": mean - half, "ci_high": mean + half, "n": count} | {
        "seed": seeds,
        "over": "seeds",
    }
