"""Means with intervals: over images by the bootstrap, over seeds by Student's t, and over two crossed kinds.

NaN are left out and counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpath.display import Shown

_RESAMPLES = 2000


@dataclass(frozen=True, repr=False)
class Interval(Shown):
    """Means, or other summaries of many values, with their intervals.

    The arrays have shape (K,) for K quantities (`bootstrap_mean`, `t_mean`, `crossed_mean`) and () for a single one
    (`rank_agreement`).

    Attributes:
        mean: Mean, or other summary.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of values that were not NaN: of images, or of repetitions (`t_mean`). For `crossed_mean` the
            number of images that have a value in any repetition.
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


def crossed_mean(values: ArrayLike, *, level: float = 0.95) -> Interval:
    """Compute means over images that were all measured in every one of several repetitions.

    The interval is for other images *and* other repetitions, see `crossed_error`. With many images and few
    repetitions an interval over images alone would be far too short where the repetitions differ.

    Args:
        values: Values (repetitions, images, K) of K quantities. NaN values are left out.
        level: Confidence level, a fraction.

    Returns:
        Means over images of each image's mean over its repetitions, intervals and numbers of images that have a
        value, each (K,). With a single repetition the interval is over images alone, and with a single image over
        repetitions alone; with one of each there is none (NaN).

    Example:
        >>> found = cpath.analysis.crossed_mean([[[1.0], [2.0], [3.0]], [[3.0], [4.0], [5.0]]])
        >>> found.mean.tolist(), found.n.tolist()
        ([3.0], [3])
        >>> found.low.round(2).tolist(), found.high.round(2).tolist()  # over the three images alone: 0.52 to 5.48
        ([-2.98], [8.98])
    """
    from scipy.stats import t

    mean, error, freedom, count = crossed_error(values)
    half = t.ppf((1 + level) / 2, np.where(np.isnan(freedom), 1, freedom)) * error
    return Interval(mean, mean - half, mean + half, count)


def crossed_error(
    values: ArrayLike,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Average a table of repetitions × images, and estimate the standard errors of the means.

    A value is taken as the sum of a mean, of what is peculiar to its image, of what is peculiar to its repetition
    (of all images alike), and of a rest. The squared error of the mean is estimated as that of the images' means,
    plus that of the repetitions' means. Each covers the rest too, which so counts twice: where there is nothing but
    the rest, errors are √2 times too large. In simulations, intervals of 95 % that are made of them hold the true
    mean in 94 to 99.7 % of the cases with 5 repetitions, and in 89 to 98 % with 2.

    Args:
        values: Values (repetitions, images, K); NaN is left out.

    Returns:
        Means (K,), their standard errors (K,), NaN where there is but one value, the degrees of freedom (K,) of
        Student's t after Satterthwaite, and the numbers of images (K,) that have a value.

    Source:
        Satterthwaite, An approximate distribution of estimates of variance components, Biometrics, 1946; the sum of
        the two as in Owen, The pigeonhole bootstrap, Annals of Applied Statistics, 2007.
    """
    data = np.asarray(values, dtype=np.float64)
    of_images, _, _ = mean_and_error(data)
    of_repetitions, _, _ = mean_and_error(data.swapaxes(0, 1))
    mean, image_error, images = mean_and_error(of_images)
    _, repetition_error, repetitions = mean_and_error(of_repetitions)
    parts = np.nan_to_num(np.array([image_error, repetition_error]) ** 2)
    counts = np.maximum(np.array([images, repetitions]) - 1, 1)
    total = parts.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = total**2 / (parts**2 / counts).sum(0)
    measured = (images > 1) | (repetitions > 1)
    # Without any scatter the smaller number stands, as far as there is one.
    fewest = np.where(images > 1, np.where(repetitions > 1, counts.min(0), counts[0]), counts[1])
    freedom = np.where(total > 0, freedom, fewest)
    return mean, np.where(measured, np.sqrt(total), np.nan), np.where(measured, freedom, np.nan), images
