"""Rank agreement of evaluations: how alike LeRF, MoRF, ROAD, ROAR and KAR order the attributions."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from cpath.analysis.intervals import Interval
from cpath.evaluation import rank_agreement
from cpath.viz import in_order
from experiments.engine.table import COLUMNS, Row

PUBLISHED = "published"
"""The criterion that is the paper's ROAR."""
_AREA = re.compile(r"(lerf|morf|roar|kar)_area(_\w+)?")
# A good method: little changes without the least relevant pixels, little is learned without the most relevant ones.
_LOW_IS_GOOD = ("lerf", "roar", PUBLISHED)
_CONTROLS = ("random", "sobel")

Areas = Mapping[str, ArrayLike]
"""By method: the areas under its curves, one an image or a seed."""


def agreement_rows(
    criteria: tuple[str, str],
    areas: tuple[Areas, Areas],
    up_to: float | str = "",
    measure: Callable[[ArrayLike, ArrayLike], Interval] = rank_agreement,
) -> list[Row]:
    """Kendall's τ between the orders in which two criteria put the methods of both; no row for fewer than two.

    The controls are left out: criteria that put these last, and agree on nothing else, would seem to agree.
    """
    shared = [name for name in in_order(set(areas[0]) & set(areas[1])) if name not in _CONTROLS]
    if len(shared) < 2:
        return []
    first, second = (
        np.stack([np.asarray(area[name], dtype=np.float64) for name in shared], 1)
        * (-1 if criterion.startswith(_LOW_IS_GOOD) else 1)
        for criterion, area in zip(criteria, areas, strict=True)
    )
    tau = measure(first, second)
    return [
        Row(
            "all",
            "rank_agreement/" + "/".join(criteria),
            float(tau.mean),
            "up_to_percent" if up_to != "" else "",
            up_to,
            float(tau.low),
            float(tau.high),
            int(tau.n),
        )
    ]


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ between the orders of the methods by each two criteria of a table."""

    criteria: tuple[str, ...]
    measured: Mapping[frozenset[str], Row]
    """By pair: what an experiment found for two criteria of its own, at the widest range of pixels."""
    compared: Mapping[frozenset[str], Row]
    """By pair of different experiments: from their areas. They share no images or seeds, so no interval."""

    def between(self, one: str, other: str) -> Row | None:
        """The row of two criteria; None where they have no two methods in common."""
        pair = frozenset((one, other))
        return self.measured.get(pair, self.compared.get(pair))

    def rows(self, like: pd.Series) -> pd.DataFrame:
        """What no experiment found itself, as tidy rows with the dataset, model and seed of ``like``."""
        made_of = {"experiment": "reproduce_paper", **like[["dataset", "model", "seed"]]}
        records = [{**made_of, **row.cells} for row in self.compared.values()]
        return pd.DataFrame(records, columns=list(COLUMNS))


def agreement(table: pd.DataFrame) -> Agreement | None:
    """How far the criteria in the tidy ``table`` agree; None where no two of them order the same methods.

    A criterion orders the methods by its area over the widest range of pixels that it has.
    """
    areas: dict[str, dict[str, list[float]]] = {}
    for metric, rows in table.groupby("metric", sort=False):
        if (found := _AREA.fullmatch(str(metric))) is not None:
            values = _widest(rows).set_index("method").value.dropna()
            areas[found[1] + (found[2] or "")] = {method: [value] for method, value in values.items()}
    measured: dict[frozenset[str], Row] = {}
    compared: dict[frozenset[str], Row] = {}
    for one, other in itertools.combinations(areas, 2):
        pair, names = frozenset((one, other)), (f"{one}/{other}", f"{other}/{one}")
        known = _widest(table[table.metric.isin([f"rank_agreement/{name}" for name in names])])
        if len(known):
            row = known.iloc[0]
            measured[pair] = Row("all", row.metric, row.value, row.x_name, row.x, row.ci_low, row.ci_high, row.n)
        else:
            compared.update((pair, row) for row in agreement_rows((one, other), (areas[one], areas[other])))
    return Agreement(tuple(areas), measured, compared) if measured or compared else None


def _widest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the widest range of pixels."""
    up_to = pd.to_numeric(rows.x, errors="coerce").fillna(0.0)
    return rows[up_to == up_to.max()]
