"""Means with intervals: over images by the bootstrap, over seeds by Student's t. NaN are left out and counted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """Means, or other numbers that sum up many, with their intervals.

    Arrays (K,) for K quantities (`bootstrap_mean`, `t_mean`), 0-d for a single one (`rank_agreement`).
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]
    """What had a value: images, or repetitions (`t_mean`)."""


def resamples(images: int, seed: int) -> NDArray[np.float64]:
    """(2000, images): how often each image is drawn in each resample of a bootstrap.

    One matrix product with it gives the sums over all resamples.
    """
    generator = np.random.default_rng(seed)
    return generator.multinomial(images, np.full(images, 1 / images), _RESAMPLES).astype(np.float64)


def bootstrap_mean(values: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Means over images with percentile-bootstrap intervals, of ``values`` (images, K).

    All K quantities share the resampled images, so that their intervals belong together. NaN values are left
    out. A quantity without any value has a NaN mean and n = 0; one with a single value has no interval (NaN).
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
    """Means over repetitions (seeds) with Student's t intervals, of ``values`` (repetitions, K).

    For few values that scatter about a mean, where resampling them would give intervals that are too short. NaN
    values are left out. A quantity with a single value has no interval (NaN).
    """
    from scipy.stats import t

    data = np.asarray(values, dtype=np.float64)
    present = ~np.isnan(data)
    count = present.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(present, data, 0.0).sum(0) / count
        variance = (np.where(present, data - mean, 0.0) ** 2).sum(0) / (count - 1)
        half = t.ppf((1 + level) / 2, np.maximum(count - 1, 1)) * np.sqrt(variance / count)
    half = np.where(count > 1, half, np.nan)
    return Interval(mean, mean - half, mean + half, count)
