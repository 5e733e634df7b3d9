"""Rank agreement of evaluations: how alike LeRF, MoRF, ROAD, ROAR and KAR order the attributions.

Each of these evaluations is a *criterion*: it puts the attributions into an order, from the best to the worst, by
the area under its curves. Kendall's τ of their orders says how far two criteria agree. Criteria are named ``lerf``,
``morf``, ``roar`` and ``kar``, with the fill where that is not the mean colour (``lerf_road``).
"""

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
from experiments.engine.table import COLUMNS, PseudoMethod, Row

PUBLISHED = "published"
"""Name of the criterion that is the paper's ROAR."""
_AREA = re.compile(r"(lerf|morf|roar|kar)_area(_\w+)?")
# A good method: little changes without the least relevant pixels, little is learned without the most relevant ones.
_LOW_IS_GOOD = ("lerf", "roar", PUBLISHED)
_CONTROLS = ("random", "sobel")

Areas = Mapping[str, ArrayLike]
"""Areas under the curves of each method: one for each image, or for each seed."""


def agreement_rows(
    criteria: tuple[str, str],
    areas: tuple[Areas, Areas],
    up_to: float | str = "",
    agree: Callable[[ArrayLike, ArrayLike], Interval] = rank_agreement,
) -> list[Row]:
    """Compare the orders in which two criteria put the methods.

    The controls (random maps, edges) are left out: criteria that put these last, and agree on nothing else, would
    seem to agree.

    Args:
        criteria: names of the two.
        areas: by method, for each of the two; of the same images or seeds. Methods that only one has are left out.
        up_to: end of the range of removed pixels that the areas are over, in per cent; empty where it differs.
        agree: Kendall's τ with its interval, of two tables (images or seeds, methods) of numbers that are high for
            good methods.

    Returns:
        One row, of the metric ``rank_agreement/ONE/OTHER``; none where fewer than two methods are left.
    """
    shared = [name for name in in_order(set(areas[0]) & set(areas[1])) if name not in _CONTROLS]
    if len(shared) < 2:
        return []
    first, second = (
        np.stack([np.asarray(area[name], dtype=np.float64) for name in shared], -1)
        * (-1 if criterion.startswith(_LOW_IS_GOOD) else 1)
        for criterion, area in zip(criteria, areas, strict=True)
    )
    tau = agree(first, second)
    return [
        Row(
            PseudoMethod.ALL,
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
    """Kendall's τ between the orders of the methods by each two criteria of a table. Made by `agreement`."""

    criteria: tuple[str, ...]
    """Names, in the order of the table."""
    measured: Mapping[frozenset[str], Row]
    """By pair of criteria of one experiment: its own result, over the widest range of pixels."""
    compared: Mapping[frozenset[str], Row]
    """By pair of criteria of different experiments, which share no images: from their areas, without interval."""

    def between(self, one: str, other: str) -> Row | None:
        """Agreement of two criteria.

        Args:
            one: name of a criterion.
            other: name of another one.

        Returns:
            Its row; None where the two have no two methods in common.
        """
        pair = frozenset((one, other))
        return self.measured.get(pair, self.compared.get(pair))

    def rows(self, like: pd.Series) -> pd.DataFrame:
        """Tidy table of the pairs that no experiment compared itself.

        Args:
            like: a row with the dataset, model and seed.

        Returns:
            A frame with the columns of every tidy table.
        """
        made_of = {"experiment": "reproduce_paper", **like[["dataset", "model", "seed"]]}
        records = [{**made_of, **row.cells} for row in self.compared.values()]
        return pd.DataFrame(records, columns=list(COLUMNS))


def agreement(table: pd.DataFrame) -> Agreement | None:
    """Compare each two criteria of a table by the order in which they put the methods.

    A criterion orders the methods by its areas over the widest range of pixels that it has.

    Args:
        table: tidy table, of one experiment or of several.

    Returns:
        The agreement; None where no two criteria order the same methods.
    """
    areas = _areas(table)
    measured: dict[frozenset[str], Row] = {}
    compared: dict[frozenset[str], Row] = {}
    for one, other in itertools.combinations(areas, 2):
        pair = frozenset((one, other))
        names = [f"rank_agreement/{one}/{other}", f"rank_agreement/{other}/{one}"]
        known = _widest(table[table.metric.isin(names)])
        if len(known):
            row = known.iloc[0]
            measured[pair] = Row(
                PseudoMethod.ALL, row.metric, row.value, row.x_name, row.x, row.ci_low, row.ci_high, row.n
            )
        else:
            compared.update((pair, row) for row in agreement_rows((one, other), (areas[one], areas[other])))
    return Agreement(tuple(areas), measured, compared) if measured or compared else None


def _areas(table: pd.DataFrame) -> dict[str, Areas]:
    """Mean area of each method by criterion, over the widest range of pixels."""
    areas: dict[str, Areas] = {}
    for metric, rows in table.groupby("metric", sort=False):
        if (found := _AREA.fullmatch(str(metric))) is not None:
            values = _widest(rows).set_index("method").value.dropna()
            areas[found[1] + (found[2] or "")] = {str(method): [value] for method, value in values.items()}
    return areas


def _widest(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the widest range of pixels."""
    up_to = pd.to_numeric(rows.x, errors="coerce").fillna(0.0)
    return rows[up_to == up_to.max()]
