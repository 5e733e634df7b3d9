"""What the tests of ROAR share: a tiny table, and made-up trainings."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from experiments.engine.config import parse
from experiments.engine.job import Job

METHODS: dict[str, Any] = {"neuron_mct": {"sparsity": 80}, "gradients": {}, "random": {"seed": 0}}
TINY = ["dataset._target_=tests.experiments.tiny.digits", "dataset.size=8"]
PERCENTS, SEEDS = [30, 90], [0, 1, 2]


def made_up_hits(name: str) -> int:
    """Hits of 36 for a training, by its name: anything, but the same every time."""
    return 5 + zlib.crc32(name.encode()) % 30


def job_of(cfg: DictConfig) -> Job:
    return Job(parse(cfg))


def cells_of(cfg: DictConfig) -> pd.DataFrame:
    """The cells that the finished table of a configuration left."""
    return pd.read_csv(job_of(cfg).folder / "cells.csv")


def notes_of(cfg: DictConfig) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((job_of(cfg).folder / "manifest.json").read_text())
    return manifest


def accuracies(cells: pd.DataFrame, method: str, percent: float, keep: bool) -> np.ndarray:
    """(seeds,) test accuracies."""
    part = cells[(cells.attribution == method) & (cells.percent == percent) & (cells.keep == keep)]
    return part.sort_values("seed").test_accuracy.to_numpy()
