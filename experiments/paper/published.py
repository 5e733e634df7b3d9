"""The paper's own numbers, to stand beside ours where dataset and model are the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from experiments.engine.config import Config
from experiments.engine.table import Row, place

_FILE = Path(__file__).with_name("published.csv")

_METHODS = {
    "Gradients": "gradients",
    "GBP": "gbp",
    "GradCAM": "gradcam",
    "InputIntGrad": "input_intgrad",
    "InputMCT": "input_mct",
    "NeuronIntGrad": "neuron_intgrad",
    "NeuronIntGrad*": "neuron_intgrad_star",
    "NeuronMCT": "neuron_mct",
}

MARK = "/published"
"""What the metric of a published row ends with."""


@cache
def _all() -> pd.DataFrame:
    frame = pd.read_csv(_FILE, dtype={"x": str})
    return frame.assign(method=frame.method.map(lambda name: _METHODS.get(name, name)))


def published(experiment: str, config: Config) -> pd.DataFrame:
    """Select the paper's numbers of an experiment, under our names of the methods.

    Args:
        experiment: ``lerf``, ``roar`` or ``sanity_checks``.
        config: names model and dataset; the dataset may have another name in the paper (``published_as``).

    Returns:
        A frame with the columns experiment, dataset, model, method, x_name, x (text), metric and value; empty where
        the paper has no such numbers.
    """
    rows, dataset = _all(), config.dataset.get("published_as") or config.dataset_name
    return rows[(rows.experiment == experiment) & (rows.dataset == dataset) & (rows.model == config.model_name)]


def published_rows(
    experiment: str, config: Config, metrics: Mapping[str, str], methods: Iterable[str]
) -> list[Row]:
    """Turn the paper's numbers into rows of a job.

    Their metrics end with `MARK`, so that they never pass for measured ones.

    Args:
        experiment: ``lerf``, ``roar`` or ``sanity_checks``.
        config: names model and dataset.
        metrics: our name of each published metric; others are left out.
        methods: methods that the job has; others are left out.

    Returns:
        One row for each number, with 0 as the number of observations.
    """
    rows = published(experiment, config)
    rows = rows[rows.method.isin(list(methods)) & rows.metric.isin(list(metrics))]
    return [
        Row(row.method, metrics[row.metric] + MARK, float(row.value), row.x_name, place(row.x), n=0)
        for row in rows.itertuples()
    ]
