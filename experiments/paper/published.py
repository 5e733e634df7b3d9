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
    """The paper's rows of ``experiment`` (lerf, roar, sanity_checks), with our names of the methods.

    Columns experiment, dataset, model, method, x_name, x (text), metric, value. Empty where the paper has none for
    the model and the dataset of ``config``, which may say under which name it is published (``published_as``).
    """
    rows, dataset = _all(), config.dataset.get("published_as") or config.dataset_name
    return rows[(rows.experiment == experiment) & (rows.dataset == dataset) & (rows.model == config.model_name)]


def published_rows(
    experiment: str, config: Config, metrics: Mapping[str, str], methods: Iterable[str]
) -> list[Row]:
    """The paper's numbers as rows of a job: ``metrics`` gives our name of each published metric.

    Only of ``methods``. The metric is ours with `MARK`, so that they never pass for measured ones.
    """
    rows = published(experiment, config)
    rows = rows[rows.method.isin(list(methods)) & rows.metric.isin(list(metrics))]
    return [
        Row(row.method, metrics[row.metric] + MARK, float(row.value), row.x_name, place(row.x), n=0)
        for row in rows.itertuples()
    ]
