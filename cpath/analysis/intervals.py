"""Means with intervals: over images by the bootstrap, over seeds by Student's t. NaN are left out and counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """Means, or other summaries of many values, with their intervals.

    The arrays have shape (K,) for K quantities (`bootstrap_mean`, `t_mean`) and () for a single one
    (`rank_agreement`).

    Attributes:
        mean: Mean, or other summary.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of values that were not NaN: of images, or of repetitions (`t_mean`).
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]


def resamples(images: int, seed: int) -> NDArray[np.float64]:
    """Draw the resamples of a bootstrap. One matrix product with the result gives the sums over all resamples.

    Args:
        images: Number of images.
        seed: Seed of the draws.

    Returns:
        Counts (2000, images) that say how often each image is drawn in each resample.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), _RESAMPLES).astype(np.float64)


def bootstrap_mean(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Compute means over images with percentile-bootstrap intervals.

    All K quantities share the resampled images, so that their intervals belong together. NaN values are left out.

    Args:
        values: Values (images, K) of K quantities.
        level: Confidence level, a fraction.
        seed: Seed of the resampling.

    Returns:
        Means, intervals and numbers of values, each (K,). A quantity without any value has a NaN mean and n = 0;
        one with a single value has no interval (NaN).

    Example:
        >>> found = cpath.analysis.bootstrap_mean([[1.0], [2.0], [3.0], [float("nan")]])
        >>> found.mean.tolist(), found.n.tolist()
        ([2.0], [3])
        >>> bool(found.low[0] < 2 < found.high[0])
        True
    """
    data = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(data)
    count = present.sum(0)
    filled = np.where(present, data, 0.0)
    drawn = resamples(len(data), seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(0) / count
        means = (drawn @ filled) / (drawn @ present)
    low, high = np.full(count.shape, np.nan), np.full(count.shape, np.nan)
    enough = count > 1
    if enough.any():
        tail = (1 - level) / 2
        low[enough], high[enough] = np.nanquantile(means[:, enough], [tail, 1 - tail], axis=0)
    return Interval(mean, low, high, count)


def t_mean(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Compute means over repetitions (seeds) with Student's t intervals.

    This is for few values that scatter about a mean, where resampling them would give intervals that are too short.
    NaN values are left out.

    Args:
        values: Values (repetitions, K) of K quantities.
        level: Confidence level, a fraction.

    Returns:
        Means, intervals and numbers of values, each (K,). A quantity with a single value has no interval (NaN).

    Example:
        >>> found = cpath.analysis.t_mean([[1.0], [2.0], [3.0]])
        >>> found.mean.round(2).tolist(), found.low.round(2).tolist(), found.high.round(2).tolist()
        ([2.0], [-0.48], [4.48])
    """
    from scipy.stats import t

    mean, error, count = mean_and_error(values)
    half = t.ppf((1 + level) / 2, np.maximum(count - 1, 1)) * error
    return Interval(mean, mean - half, mean + half, count)


def mean_and_error(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Average the rows of a table, and estimate the standard errors of the means.

    Args:
        values: (N, …) numbers; NaN is left out.

    Returns:
        Means (…), their standard errors (…), NaN for fewer than two values, and the numbers of values (…).
    """
    data = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(data)
    count = present.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(present, data, 0.0).sum(0) / count
        variance = (np.where(present, data - mean, 0.0) ** 2).sum(0) / (count - 1)
        error = np.sqrt(variance / count)
    return mean, np.where(count > 1, error, np.nan), count
