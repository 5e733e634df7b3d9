"""Measures of images, a batch at a time: kept on disk as soon as they are known, then put together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from cpath.storage import read_tensors, replacing, write_tensors
from experiments.engine.images import Batch
from experiments.engine.table import Measure, Row, place, rows_of_means

_KIND, _FORMAT = "measures", 3
_FILE = "measures.safetensors"
PER_IMAGE = "per_image.csv.gz"
_COLUMNS = ["image", *Measure._fields, "value"]

Values = Mapping[Measure, Tensor]
"""(B,) numbers of a batch's images by measure."""


def write_measures(folder: Path, values: Values) -> None:
    """Write the measures of a batch into the folder of its part.

    Args:
        folder: of the part.
        values: (B,) numbers by measure.
    """
    tensors = {str(number): column.cpu().double().reshape(-1) for number, column in enumerate(values.values())}
    names = [list(measure) for measure in values]
    write_tensors(folder / _FILE, tensors, {"kind": _KIND, "format": _FORMAT, "measures": names})


def read_measures(folder: Path) -> dict[Measure, list[float]]:
    """Read the measures of a batch that `write_measures` wrote.

    Args:
        folder: of the part.

    Returns:
        (B) numbers, one for each image, by measure.

    Raises:
        StorageError: if the file is missing or of another kind.
    """
    tensors, metadata = read_tensors(folder / _FILE, _KIND, _FORMAT)
    return {Measure(*name): tensors[str(number)].tolist() for number, name in enumerate(metadata["measures"])}


class PerImage:
    """Numbers of all images of an experiment by measure, put together from its batches."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.values: dict[Measure, list[float]] = {}

    def add(self, batch: Batch, values: Mapping[Measure, list[float]]) -> None:
        """Append the numbers of the next batch.

        Args:
            batch: the batch.
            values: a number for each of its images, of the same measures as in the batches before.

        Raises:
            ValueError: if the measures are others, or the numbers are not as many as the images.
        """
        if self.values and self.values.keys() != values.keys():
            other = [
                measure for measure in {**self.values, **values} if (measure in values) != (measure in self.values)
            ]
            raise ValueError(f"batch {batch.number} has other measures than those before: {other[:3]}.")
        for measure, column in values.items():
            if len(column) != len(batch):
                raise ValueError(f"{measure} has {len(column)} values for {len(batch)} images.")
            self.values.setdefault(measure, []).extend(column)
        self.ids += batch.ids

    def means(self) -> list[Row]:
        """Average each measure over the images.

        Returns:
            One row for each measure, with its 95 % bootstrap interval.
        """
        return rows_of_means(self.values)

    def write(self, folder: Path) -> None:
        """Write ``per_image.csv.gz`` into a job's folder: a row for each image and measure.

        Args:
            folder: of the job.
        """
        frame = pd.concat(
            [
                pd.DataFrame({"image": self.ids, **measure._asdict(), "value": column})
                for measure, column in self.values.items()
            ]
            or [pd.DataFrame(columns=_COLUMNS)],
            ignore_index=True,
        )
        with replacing(folder / PER_IMAGE) as partial:
            frame.to_csv(partial, index=False, compression={"method": "gzip", "mtime": 0})


def read_per_image(folder: Path) -> pd.DataFrame:
    """Read the numbers of every image of a job.

    Args:
        folder: of the job.

    Returns:
        A frame with the columns ``image``, ``method``, ``metric``, ``x_name``, ``x`` and ``value``.
    """
    types = {**dict.fromkeys(("image", "method", "metric", "x_name", "x"), str), "value": float}  # of no rows too
    frame = pd.read_csv(folder / PER_IMAGE, dtype=types, keep_default_na=False, na_values={"value": [""]})
    return frame.assign(x=frame.x.map(place))


def gather(values: Mapping[Measure, list[float]]) -> dict[Measure, Tensor]:
    """Turn numbers that were put together for single images into tensors.

    Args:
        values: (B) numbers, one for each image, by measure.

    Returns:
        (B,) float64 by measure.
    """
    return {measure: torch.tensor(column, dtype=torch.float64) for measure, column in values.items()}
