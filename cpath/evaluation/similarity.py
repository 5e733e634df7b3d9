"""Similarity of two saliency maps: the measures of the sanity checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cpath.attribution.reduction import single_channel
from cpath.errors import InputError, unknown_name
from cpath.optional import optional

_HOG_CELL = 16
_SSIM_WINDOW = 5


@dataclass(frozen=True)
class Measure:
    """Similarity of two maps, split so that the part that concerns one map alone is computed once.

    Attributes:
        prepare: Function from signed float64 maps (B, H, W) to (B, ...).
        compare: Function from two prepared batches to (B,); 1 for equal maps, NaN where it is undefined.
    """

    prepare: Callable[[np.ndarray], np.ndarray]
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray]


def _rows(maps: np.ndarray) -> np.ndarray:
    return maps.reshape(len(maps), -1)


def _ranks(maps: np.ndarray) -> np.ndarray:
    stats = optional("scipy.stats", "scipy>=1.13", "rank correlation")
    return np.asarray(stats.rankdata(_rows(maps), axis=1))  # ties get their mean rank


def pearson(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute Pearson's correlation between the rows of two tables.

    Args:
        first: Values (B, N).
        second: Values (B, N).

    Returns:
        Correlations (B,); NaN where a row is constant.
    """
    first, second = (rows - rows.mean(1, keepdims=True) for rows in (first, second))
    scale = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    with np.errstate(invalid="ignore"):
        correlation: np.ndarray = (first * second).sum(1) / np.where(scale > 0, scale, np.nan)
    return correlation


def _scaled(maps: np.ndarray) -> np.ndarray:
    """Scale each map to [0, 1]; a constant one becomes NaN."""
    low, high = (bound(_rows(maps), 1)[:, None, None] for bound in (np.min, np.max))
    return np.asarray((maps - low) / np.where(high > low, high - low, np.nan))


def _structural(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    metrics = optional("skimage.metrics", "scikit-image>=0.24", "SSIM")
    found = np.full(len(first), np.nan)
    if min(first.shape[1:]) >= _SSIM_WINDOW:
        for i, (one, other) in enumerate(zip(first, second, strict=True)):
            # The range is 1 by the scaling. It is pinned all the same: the result depends on it.
            found[i] = metrics.structural_similarity(one, other, win_size=_SSIM_WINDOW, data_range=1.0)
    return found


def hog_cell(height: int, width: int) -> int:
    """Choose the side of a HOG cell: 16 pixels, or half the shorter side if there is no room for 2 × 2 such cells.

    Args:
        height: Height of the map in pixels.
        width: Width of the map in pixels.

    Returns:
        Side in pixels.
    """
    return min(_HOG_CELL, height // 2, width // 2)


def _gradient_histograms(maps: np.ndarray) -> np.ndarray:
    """Compute HOG features (B, features): 9 orientations per cell, each cell normalised by itself."""
    feature = optional("skimage.feature", "scikit-image>=0.24", "HOG")
    cell = hog_cell(*maps.shape[1:])
    if cell == 0:
        return np.full((len(maps), 1), np.nan)
    settings = {"orientations": 9, "pixels_per_cell": (cell, cell), "cells_per_block": (1, 1)}
    return np.stack([feature.hog(one, **settings) for one in _scaled(maps)])


MEASURES = {
    "spearman": Measure(_ranks, pearson),
    "spearman_abs": Measure(lambda maps: _ranks(np.abs(maps)), pearson),
    "ssim": Measure(_scaled, _structural),
    "hog": Measure(_gradient_histograms, pearson),
}
"""Measures by name (Adebayo et al. 2018): Spearman's rank correlation, the same of absolute values, SSIM (window
5, maps scaled to 0..1, data range 1), and Pearson's correlation of HOG features (16-pixel cells, see `hog_cell`).
Constant maps, images below 5 pixels (SSIM) and below 2 (HOG) give NaN."""


def check_measures(names: tuple[str, ...]) -> tuple[str, ...]:
    """Check names of measures.

    Args:
        names: The names.

    Returns:
        ``names``.

    Raises:
        UnknownNameError: If a name is unknown.
        InputError: If there is none.
    """
    for name in names:
        if name not in MEASURES:
            raise unknown_name("measure", name, MEASURES)
    if not names:
        raise InputError(f"measures is empty: name at least one of {', '.join(MEASURES)}.")
    return names


class Comparison:
    """Attributions to which others are compared, by the single-channel maps of both.

    Args:
        attribution: Attributions (B, C, H, W) or (B, 1, H, W).
        measures: Names of measures in `cpath.evaluation.MEASURES`.

    Raises:
        UnknownNameError: If a measure is unknown.
        InputError: If ``measures`` is empty.

    Example:
        >>> maps = cpath.attribute(model, images, "gradients")
        >>> found = cpath.evaluation.Comparison(maps, ("spearman", "spearman_abs")).to(-maps)
        >>> found["spearman"].round(3).tolist(), found["spearman_abs"].round(3).tolist()
        ([-1.0, -1.0], [1.0, 1.0])
    """

    def __init__(self, attribution: Tensor, measures: tuple[str, ...] = tuple(MEASURES)) -> None:
        self._measures = {name: MEASURES[name] for name in check_measures(measures)}
        maps = _maps(attribution)
        self._prepared = {name: measure.prepare(maps) for name, measure in self._measures.items()}

    def to(self, attribution: Tensor) -> dict[str, np.ndarray]:
        """Compare with another attribution of the same images.

        Args:
            attribution: Attributions (B, C, H, W) or (B, 1, H, W).

        Returns:
            Similarities (B,) by measure; NaN where a measure is undefined.
        """
        maps = _maps(attribution)
        return {
            name: measure.compare(self._prepared[name], measure.prepare(maps))
            for name, measure in self._measures.items()
        }


def _maps(attribution: Tensor) -> np.ndarray:
    maps: np.ndarray = single_channel(attribution).squeeze(1).cpu().double().numpy()
    return maps
