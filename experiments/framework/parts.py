"""Measures of images, a batch at a time, on disk as soon as they are known: a stopped job loses one batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from cpath.storage import kept_tensors, replacing, write_tensors
from experiments.framework.job import Job
from experiments.framework.results import Key
from experiments.framework.scored import batches, progress
from experiments.framework.subject import Images, Origin

_FORMAT = 2


def measure_in_parts(
    job: Job, images: Images, origin: Origin, measure: Callable[[slice, int], Mapping[Key, Tensor]], what: str
) -> dict[Key, list[float]]:
    """The values of all images by measure, from ``measure(where, number)`` of each batch: (B,) by key.

    Batches that were finished before are read instead, if they are of the same ``origin``. The values also go,
    image by image, to ``per_image.csv.gz``, for analyses of one's own.
    """
    folder = job.folder / "parts"
    if job.cfg.redo:
        for old in folder.glob("*.safetensors"):
            old.unlink()
    parts = batches(images, job.cfg.experiment.batch)
    columns: dict[Key, list[float]] = {}
    for number in progress(range(len(parts)), what, "batch"):
        file, made_of = folder / f"part-{number:05d}.safetensors", origin.of(parts[number])

        def make(file: Path = file, number: int = number, made_of: Mapping[str, Any] = made_of) -> None:
            found = measure(parts[number], number)
            tensors = {"|".join(map(_text, key)): values.cpu().double() for key, values in found.items()}
            write_tensors(file, tensors, {"kind": "measures", "format": _FORMAT, **made_of, "order": list(tensors)})

        tensors, metadata = kept_tensors(file, "measures", _FORMAT, make, made_of)
        for name in metadata["order"]:
            columns.setdefault(_key(name), []).extend(tensors[name].tolist())
    frame = pd.DataFrame(
        {"|".join(_text(part) for part in key if part != ""): values for key, values in columns.items()},
        index=pd.Index(images.ids, name="image"),
    )
    with replacing(job.folder / "per_image.csv.gz") as partial:
        frame.to_csv(partial, compression="gzip")
    return columns


def _text(part: object) -> str:
    return f"{part:g}" if isinstance(part, float) else str(part)


def _key(name: str) -> Key:
    method, x_name, x, metric = name.split("|")
    try:
        return method, x_name, float(x), metric
    except ValueError:
        return method, x_name, x, metric
