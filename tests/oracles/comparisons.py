"""Holm's procedure by the closure principle, with SciPy's t test: slow and obvious."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from scipy.stats import ttest_1samp


def compared(columns: list[list[float]], level: float = 0.95) -> list[tuple[str, float, float]]:
    """Decision and interval of each column of differences, as members of one family.

    A difference is decided if every set of comparisons that it belongs to is refuted by Bonferroni's test: the
    smallest p-value of the set is at most α over its size.
    """
    alpha = 1 - level
    tests = [ttest_1samp(np.array(column, dtype=np.float64), 0.0) for column in columns]
    p = [float(test.pvalue) for test in tests]
    every = range(len(columns))
    sets = [chosen for size in range(1, len(columns) + 1) for chosen in combinations(every, size)]
    refuted = {chosen: min(p[i] for i in chosen) <= alpha / len(chosen) for chosen in sets}
    decided = [all(refuted[chosen] for chosen in sets if i in chosen) for i in every]
    found = []
    for i in every:
        # Decided comparisons with smaller p-values were taken out of the family before.
        size = sum(p[j] >= p[i] for j in every) if decided[i] else len(columns) - sum(decided)
        interval = tests[i].confidence_interval(1 - alpha / size)
        sign = "higher" if np.mean(columns[i]) > 0 else "lower"
        found.append((sign if decided[i] else "no difference", float(interval.low), float(interval.high)))
    return found
