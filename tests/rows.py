"""Rows of tidy tables: one looked up, one made for a figure to be drawn from."""

from __future__ import annotations

import pandas as pd


def row_of(table: pd.DataFrame, method: str, metric: str, x: float | str | None = None) -> pd.Series:
    """The only row of ``metric`` of ``method``, at ``x`` where it is given."""
    rows = table[(table.method == method) & (table.metric == metric)]
    if x is not None:
        rows = rows[(rows.x if isinstance(x, str) else rows.x.astype(float)) == x]
    assert len(rows) == 1, f"{len(rows)} rows of {metric} of {method} at {x}"
    return rows.iloc[0]


def made_row(
    method: str,
    metric: str,
    value: float,
    x_name: str = "",
    x: float | str = "",
    *,
    half: float = 0.05,
    n: int = 9,
) -> dict[str, object]:
    """A row whose interval reaches ``half`` to each side."""
    at = {"method": method, "metric": metric, "value": value, "x_name": x_name, "x": str(x)}
    return {**at, "ci_low": value - half, "ci_high": value + half, "n": n}
