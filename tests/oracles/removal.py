"""Slow, obvious pixel removal and linear imputation: one pixel at a time, in Python's own numbers."""

from __future__ import annotations

import numpy as np


def count(percent: float, pixels: int) -> int:
    """Nearest whole number, halves up."""
    return int(np.floor(percent * pixels / 100 + 0.5))


def remove(
    image: np.ndarray, relevance: np.ndarray, percent: float, most: bool, keep: bool, fill: list[float]
) -> np.ndarray:
    """Image (C, H, W) after removal, for a relevance (H, W) without ties."""
    height, width = relevance.shape
    places = sorted(
        ((i, j) for i in range(height) for j in range(width)), key=lambda place: relevance[place], reverse=most
    )
    chosen = places[: count(percent, height * width)]
    result = image.copy()
    for place in places:
        if percent > 0 and (place in chosen) != keep:
            result[:, *place] = fill
    return result


def impute(image: np.ndarray, removed: np.ndarray, sweeps: int = 4000) -> np.ndarray:
    """Repeats «each removed pixel is the weighted mean of its neighbours» until nothing changes any more."""
    result = np.where(removed, 0.0, image)
    height, width = removed.shape
    for _ in range(sweeps):
        for i, j in zip(*np.nonzero(removed), strict=True):
            total, weights = 0.0, 0.0
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    y, x = i + down, j + right
                    if (down, right) == (0, 0) or not (0 <= y < height and 0 <= x < width):
                        continue
                    weight = 1 / 12 if down and right else 1 / 6
                    total, weights = total + weight * result[:, y, x], weights + weight
            result[:, i, j] = total / weights
    return result
