"""Summaries of curves over the share of removed pixels, and their agreement on the order of methods."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from cpath.analysis.intervals import Interval, crossed_mean, resamples, t_mean
from cpath.errors import InputError


def area_under_curve(percent: Sequence[float], values: ArrayLike) -> np.ndarray:
    """Compute the mean height of curves between 0 and the largest per cent, by the trapezoidal rule.

    Every curve starts at (0, 0).

    Args:
        percent: Ascending per cents above 0.
        values: Heights (images, len(percent)).

    Returns:
        Mean heights (images,); NaN where a curve has a NaN.

    Raises:
        InputError: If ``percent`` does not ascend, or does not fit ``values``.

    Example:
        >>> cpath.evaluation.area_under_curve([1, 2], [[0.5, 0.5]]).tolist()
        [0.375]
    """
    x, curves = _curves(percent, values, "area_under_curve needs ascending per cents above 0", above=0.0)
    return mean_height(np.insert(x, 0, 0.0).tolist(), np.insert(curves, 0, 0.0, axis=1))


def mean_height(x: Sequence[float], values: ArrayLike) -> np.ndarray:
    """Compute the mean height of curves over the range of x, by the trapezoidal rule.

    Args:
        x: Ascending places. For a single place the result is the value there.
        values: Heights (K, len(x)).

    Returns:
        Mean heights (K,); NaN where a curve has a NaN.

    Raises:
        InputError: If ``x`` does not ascend, or does not fit ``values``.

    Example:
        >>> cpath.evaluation.mean_height([0, 1, 3], [[0.0, 1.0, 1.0]]).round(4).tolist()
        [0.8333]
    """
    places, curves = _curves(x, values, "mean_height needs ascending places")
    if len(places) == 1:
        return curves[:, 0].copy()
    return np.asarray(np.trapezoid(curves, places, axis=1) / (places[-1] - places[0]))


def _curves(
    x: Sequence[float], values: ArrayLike, needs: str, above: float = -np.inf
) -> tuple[np.ndarray, np.ndarray]:
    places, curves = np.asarray(x, dtype=np.float64), np.asarray(values, dtype=np.float64)
    ascending = (np.diff(places, prepend=above) > 0).all()
    if not len(places) or curves.ndim != 2 or curves.shape[1] != len(places) or not ascending:
        raise InputError(f"{needs} and one column of values for each.")
    return places, curves


def rank_agreement(first: ArrayLike, second: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Interval:
    """Compute Kendall's τ_b between the orders in which two quantities put the methods.

    The methods are ordered by their means over the images that have all values.

    Args:
        first: Values (images, methods) of the first quantity.
        second: Values (images, methods) of the second.
        level: Confidence level of the interval, a fraction.
        seed: Seed of the resampling.

    Returns:
        τ_b with a percentile-bootstrap interval over the images, and their number. NaN if there are fewer than two
        methods or all of them tie.

    Raises:
        InputError: If the two tables differ in shape.

    Example:
        >>> quantity = [[0.1, 0.5, 0.9], [0.2, 0.4, 0.8]]
        >>> found = cpath.evaluation.rank_agreement(quantity, [[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])
        >>> float(found.mean), int(found.n)
        (-1.0, 2)
    """
    one, other = _two_tables(first, second)
    whole = ~(np.isnan(one).any(1) | np.isnan(other).any(1))
    one, other = one[whole], other[whole]
    images = len(one)
    if images == 0:
        nothing = np.array(np.nan)
        return Interval(nothing, nothing, nothing, np.array(0))
    drawn = resamples(images, seed) / images
    found = kendall(one.mean(0)[None], other.mean(0)[None])[0]
    resampled = kendall(drawn @ one, drawn @ other)
    low, high = np.nan, np.nan
    if images > 1 and not np.isnan(resampled).all():
        low, high = np.nanquantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(np.array(found), np.array(low), np.array(high), np.array(images))


def mean_rank_agreement(first: ArrayLike, second: ArrayLike, *, level: float = 0.95) -> Interval:
    """Compute the mean over repetitions (seeds) of Kendall's τ_b between the orders of the methods in each of them.

    This is for few repetitions, of which a bootstrap would only draw the same means again.

    Args:
        first: Values (repetitions, methods) of the first quantity, or (R, S, methods) where R repetitions of one
            kind were each made with the same S repetitions of another kind.
        second: Values of the second, in the same shape.
        level: Confidence level of the interval, a fraction.

    Returns:
        Mean τ_b with Student's t interval (for two kinds of repetitions that of `cpath.analysis.crossed_mean`), cut
        at −1 and 1, and the number of repetitions that have a τ. There is no interval (NaN) if all repetitions give
        the same τ: it has too few steps for that to say how it varies.

    Raises:
        InputError: If the two tables differ in shape.

    Example:
        >>> first = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]
        >>> found = cpath.evaluation.mean_rank_agreement(first, [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
        >>> float(found.mean), float(found.low), float(found.high)
        (0.0, -1.0, 1.0)
    """
    one, other = _two_tables(first, second, most=3)
    tau = kendall(one.reshape(-1, one.shape[-1]), other.reshape(-1, one.shape[-1])).reshape(one.shape[:-1])
    found = (t_mean if tau.ndim == 1 else crossed_mean)(tau[..., None], level=level)
    low, high = np.clip([found.low[0], found.high[0]], -1, 1)
    count = int((~np.isnan(tau)).sum())
    if count > 1 and np.nanmax(tau) - np.nanmin(tau) < 1e-9:
        low = high = np.nan
    return Interval(found.mean[0], np.array(low), np.array(high), np.array(count))


def _two_tables(first: ArrayLike, second: ArrayLike, most: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Two tables of one shape, with the methods last and at most so many axes."""
    one, other = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if not 2 <= one.ndim <= most or one.shape != other.shape:
        raise InputError("rank agreement needs two tables of one shape (images or seeds, methods).")
    return one, other


def kendall(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute Kendall's τ_b between the rows of two tables.

    Args:
        first: Values (R, M).
        second: Values (R, M).

    Returns:
        τ_b (R,); NaN where a row has no two different values.
    """
    i, j = np.triu_indices(first.shape[1], 1)
    one, other = (np.sign(rows[:, i] - rows[:, j]) for rows in (first, second))
    scale = np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return np.asarray((one * other).sum(1) / np.where(scale > 0, scale, np.nan))
