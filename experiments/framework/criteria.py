"""Whether the evaluations of attributions agree: the orders in which LeRF, MoRF, ROAD, ROAR and KAR put them."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cpath.evaluation.curves import kendall
from cpath.plots import in_order
from experiments.framework.results import COLUMNS

_AREA = re.compile(r"(?P<criterion>lerf|morf|roar|kar)_area(?:_(?P<fill>\w+))?")
_LOW_IS_GOOD = ("lerf", "roar")
_LABELS = {"lerf": "LeRF", "morf": "MoRF", "roar": "ROAR", "kar": "KAR"}
_CONTROLS = ("random", "sobel")


@dataclass(frozen=True)
class Agreement:
    """Kendall's τ between the orders of the methods by each two criteria."""

    criteria: tuple[str, ...]
    methods: tuple[str, ...]
    """Those that all criteria order."""
    tau: np.ndarray
    """(criteria, criteria); NaN where all methods tie."""

    def rows(self, like: pd.Series) -> pd.DataFrame:
        """Each pair once, as tidy rows with the dataset, model and seed of ``like``; n is the number of methods."""
        pairs = itertools.combinations(range(len(self.criteria)), 2)
        records = [
            {
                "experiment": "reproduce_paper",
                **like[["dataset", "model", "seed"]],
                "method": "all",
                "x_name": "",
                "x": "",
                "metric": f"rank_agreement/{self.criteria[i]}/{self.criteria[j]}",
                "value": self.tau[i, j],
                "ci_low": np.nan,
                "ci_high": np.nan,
                "n": len(self.methods),
            }
            for i, j in pairs
        ]
        return pd.DataFrame(records, columns=list(COLUMNS))


def agreement(table: pd.DataFrame) -> Agreement | None:
    """How far the criteria in the tidy ``table`` agree; None where there are fewer than two, or two methods.

    A criterion orders the methods by its area over the widest range of pixels that it has. The controls are left
    out: criteria that put them last, and agree on nothing else, would seem to agree.
    """
    areas: dict[str, pd.Series] = {}
    for metric, rows in table.groupby("metric", sort=False):
        found = _AREA.fullmatch(str(metric))
        if found is None:
            continue
        widest = rows.x.astype(float)
        name = _LABELS[found["criterion"]] + (f", {found['fill'].upper()}" if found["fill"] else "")
        sign = -1 if found["criterion"] in _LOW_IS_GOOD else 1
        areas[name] = sign * rows[widest == widest.max()].set_index("method").value.dropna()
    if len(areas) < 2:
        return None
    shared = set.intersection(*(set(area.index) for area in areas.values()))
    methods = [name for name in in_order(shared) if name not in _CONTROLS]
    if len(methods) < 2:
        return None
    quality = np.stack([area[methods].to_numpy() for area in areas.values()])
    count = len(quality)
    tau = kendall(np.repeat(quality, count, 0), np.tile(quality, (count, 1))).reshape(count, count)
    return Agreement(tuple(areas), tuple(methods), tau)
