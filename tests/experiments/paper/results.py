"""Results made by hand, so that the right verdict is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from experiments.engine.table import Measure, rows_of_means, tidy_table
from experiments.paper.evidence import Results

Values = Mapping[Measure, Sequence[float]]


def of_images(values: Values, *, keep_images: bool = True) -> Results:
    """Results of one number per image for each measure; without the images, the tidy table is all there is."""
    table = tidy_table(rows_of_means(values), experiment="any", dataset="digits", model="resnet8", seed=0)
    images = pd.concat(
        [
            pd.DataFrame(
                {"image": [f"image {i}" for i in range(len(column))], **measure._asdict(), "value": column}
            )
            for measure, column in values.items()
        ],
        ignore_index=True,
    )
    return Results(table, images) if keep_images else Results(table)


def spread(mean: float, n: int, *, half: float = 0.01, seed: int = 0) -> list[float]:
    """Numbers of n images with this very mean, that scatter by about ``half``."""
    noise = np.random.default_rng(seed).normal(0, half, n)
    return (mean + noise - noise.mean()).tolist()


def at(
    metric: str, x_name: str, x: float | str, means: Mapping[str, float], n: int = 12
) -> dict[Measure, list[float]]:
    """A metric of several methods at one place, each with its mean."""
    return {
        Measure(method, metric, x_name, x): spread(mean, n, seed=number)
        for number, (method, mean) in enumerate(means.items())
    }
