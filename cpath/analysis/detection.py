"""Detection: how well a score tells inputs that should be found from others, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpath.analysis.intervals import Interval, resamples
from cpath.display import Shown
from cpath.errors import InputError

_TPR = 0.95
_AT_ONCE = 250  # resamples in memory together


@dataclass(frozen=True, repr=False)
class Detection(Shown):
    """Quality of each of K scores in finding the inputs that should be found (positives) among others (negatives).

    Attributes:
        auroc: Area under the ROC curve (K,), a fraction: the probability that a positive has the higher score than
            a negative, ties counted as half. 0.5 is chance.
        fpr95: False positive rate (K,) at the highest threshold that finds at least 95 % of the positives, a
            fraction: the share of the negatives that is found with them.
        negatives: Number (K,) of negatives with a score; `Interval.n` of both is that of the positives.
    """

    auroc: Interval
    fpr95: Interval
    negatives: NDArray[np.int64]


def detection(positives: ArrayLike, negatives: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Detection:
    """Measure how well scores tell positives from negatives, with percentile-bootstrap intervals.

    Positives and negatives are resampled each on their own; all K scores share the resampled inputs. NaN is left
    out.

    Args:
        positives: Scores (P, K) of the inputs that should be found; higher is more suspicious.
        negatives: Scores (N, K) of the others.
        level: Confidence level, a fraction.
        seed: Seed of the resampling.

    Returns:
        AUROC and FPR at 95 % TPR of each score; NaN where there is no positive or no negative, and without an
        interval where there is only one of either.

    Raises:
        InputError: If the shapes do not fit.

    Source: Hendrycks and Gimpel, A baseline for detecting misclassified and out-of-distribution examples, ICLR
        2017; FPR at 95 % TPR as in Liang et al., ICLR 2018.

    Example:
        >>> found = cpath.analysis.detection([[3.0], [1.0]], [[0.0], [2.0]])
        >>> found.auroc.mean.tolist(), found.fpr95.mean.tolist()
        ([0.75], [0.5])
    """
    above, below = (np.asarray(values, dtype=np.float64) for values in (positives, negatives))
    if above.ndim != 2 or below.ndim != 2 or above.shape[1] != below.shape[1]:
        raise InputError(
            f"scores must be (P, K) of positives and (N, K) of negatives, not {above.shape} and {below.shape}."
        )
    counts = [(~np.isnan(values)).sum(0) for values in (above, below)]
    whole = np.ones((1, len(above))), np.ones((1, len(below)))
    drawn = _draws(len(above), seed), _draws(len(below), seed + 1)
    tails = [(1 - level) / 2, (1 + level) / 2]
    columns = []
    for number in range(above.shape[1]):
        curve = _Curve(above[:, number], below[:, number])
        enough = min(counts[0][number], counts[1][number]) > 1
        resampled = curve.measures(*drawn) if enough else np.full((1, 2), np.nan)
        with np.errstate(invalid="ignore"):
            ends = np.nanquantile(resampled, tails, axis=0) if enough else np.full((2, 2), np.nan)
        columns.append(np.concatenate([curve.measures(*whole), ends]))
    table = np.array(columns).reshape(-1, 3, 2)  # (K, value and ends, AUROC and FPR)
    auroc, fpr95 = (
        Interval(table[:, 0, place], table[:, 1, place], table[:, 2, place], counts[0]) for place in (0, 1)
    )
    return Detection(auroc, fpr95, counts[1])


def _draws(inputs: int, seed: int) -> NDArray[np.float64]:
    return resamples(inputs, seed) if inputs else np.zeros((1, 0))


class _Curve:
    """The ROC curve of one score, for any weights of its positives and negatives."""

    def __init__(self, positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> None:
        self._mine, self._others = (_in_order(values) for values in (positives, negatives))
        mine, others = positives[self._mine][::-1], negatives[self._others]
        self._mine = self._mine[::-1]  # from the highest down, as a threshold finds them
        # How many negatives are below each positive, and how many are not above it.
        self._below = np.searchsorted(others, mine, "left")
        self._not_above = np.searchsorted(others, mine, "right")

    def measures(self, positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> NDArray[np.float64]:
        """AUROC and FPR (R, 2) for R weightings (R, P) and (R, N)."""
        parts = [
            self._measures(positives[first : first + _AT_ONCE], negatives[first : first + _AT_ONCE])
            for first in range(0, len(positives), _AT_ONCE)
        ]
        return np.concatenate(parts)

    def _measures(self, positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> NDArray[np.float64]:
        if not len(self._mine) or not len(self._others):
            return np.full((len(positives), 2), np.nan)
        mine = positives[:, self._mine]
        others = np.cumsum(negatives[:, self._others], 1)
        others = np.concatenate([np.zeros((len(others), 1)), others], 1)  # weight of the lowest so many
        found, everything = mine.cumsum(1), others[:, -1]
        with np.errstate(invalid="ignore"):
            # A positive wins over the negatives below it, and half over those that tie with it.
            won = (mine * (others[:, self._below] + others[:, self._not_above])).sum(1) / 2
            auroc = won / (found[:, -1] * everything)
            last = (found >= _TPR * found[:, -1:] - 1e-9).argmax(1)  # the positive at which 95 % are found
            fpr = 1 - others[np.arange(len(others)), self._below[last]] / everything
        return np.stack([auroc, fpr], 1)


def _in_order(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of the values that are not NaN, from the lowest up."""
    order = np.argsort(values, kind="stable")  # NaN come last
    return order[: len(values) - int(np.isnan(values).sum())]
