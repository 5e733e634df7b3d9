"""The paper's own numbers, to stand beside ours where network, dataset and setting are those of the paper."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from experiments import CONF
from experiments.engine.config import Config
from experiments.engine.table import Row, place

_FILE = Path(__file__).with_name("published.csv")

_METHODS = {
    "DGR": "dgr",
    "DGR (random init)": "dgr_random_init",
    "Gradients": "gradients",
    "GBP": "gbp",
    "GradCAM": "gradcam",
    "Greedy": "greedy_released",  # what was published is what the released code computes
    "InputIntGrad": "input_intgrad",
    "InputMCT": "input_mct",
    "NeuronIntGrad": "neuron_intgrad",
    "NeuronIntGrad*": "neuron_intgrad_star",
    "NeuronMCT": "neuron_mct",
    "Random": "random",
}

_NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "resnet8": {"_target_": "cpath.models.resnet8", "width": 64},
    "resnet50": {"_target_": "cpath.models.torchvision_model", "architecture": "resnet50"},
    "vgg16": {"_target_": "cpath.models.torchvision_model", "architecture": "vgg16"},
}
"""Settings of the networks of the paper, by their names in its numbers."""
_PRETRAINED = "imagenet"  # the dataset on which the paper takes torchvision's weights of its time
_WEIGHTS = "IMAGENET1K_V1"

MARK = "/published"
"""End of the metric of a published row."""

SWAPPED_LABELS = (
    "The paper's figure has its labels in another order than its rows: what it calls NeuronIntGrad is NeuronMCT "
    "and the other way round, and what it calls Greedy is Random (5.26 % with every contribution method, which is "
    "chance at 90 %) and the other way round; here each number stands at the method that it is of. Its Greedy is "
    "that of the released code, always called for 99 rounds of one per cent, which keeps some 79 % of the neurons."
)
"""Note for a reader of the published overlaps."""


@cache
def _all() -> pd.DataFrame:
    return pd.read_csv(_FILE, dtype={"x": str}, keep_default_na=False)


def published(experiment: str, config: Config) -> pd.DataFrame:
    """Select the paper's numbers of an experiment on the network and dataset of a configuration.

    The setting of the experiment is for the caller to compare.

    Args:
        experiment: ``lerf``, ``roar``, ``sanity_checks`` or ``path_analysis``.
        config: names model and dataset; the dataset may have another name in the paper (``published_as``).

    Returns:
        A frame with the columns experiment, dataset, model, method (as we call it), x_name, x (text), metric, value
        and meant; empty where the paper has no such numbers.
    """
    dataset = str(config.dataset.get("published_as") or config.dataset_name)
    network = _network(config, dataset)
    rows = _all()
    rows = rows[(rows.experiment == experiment) & (rows.dataset == dataset) & (rows.model == network)]
    return rows.assign(method=rows.method.map(_METHODS))


def _network(config: Config, dataset: str) -> str | None:
    """Name that the paper's numbers have for the network; None for a network that is not of the paper."""
    settings = {name: value for name, value in config.model.items() if name not in ("name", "weights")}
    found = next((name for name, theirs in _NETWORKS.items() if theirs == settings), None)
    if found is None or dataset != _PRETRAINED or _has_published_weights(config):
        return found
    return None


def _has_published_weights(config: Config) -> bool:
    """Tell if the weights are those that torchvision had when the paper was written."""
    from torchvision.models import get_model_weights

    known = get_model_weights(config.model["architecture"])
    theirs = known[_WEIGHTS]
    if config.checkpoint is not None:
        beginning = Path(theirs.url).stem.rpartition("-")[2]  # torchvision's files carry it in their names
        return _sha256(Path(config.checkpoint)).startswith(beginning)
    named = config.model.get("weights")
    if named == "auto":
        named = "DEFAULT" if config.dataset_name == _PRETRAINED else None
    return named in known.__members__ and known[named] is theirs


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def has_published_schedule(config: Config) -> bool:
    """Tell if networks are trained as the paper trains on CIFAR-10, on all training images.

    Args:
        config: with the recipe.

    Returns:
        True if the recipe is that of ``recipe=cifar10``.
    """
    theirs = OmegaConf.to_container(OmegaConf.load(CONF / "recipe" / "cifar10.yaml"))
    ours = OmegaConf.to_container(config.composed.recipe, resolve=True) if "recipe" in config.composed else None
    return ours == theirs and config.dataset.get("per_class") is None


def published_rows(rows: pd.DataFrame, metrics: Mapping[str, str], methods: Collection[str]) -> list[Row]:
    """Turn the paper's numbers into rows of a job.

    Their metrics end with `MARK`, so that they never pass for measured ones.

    Args:
        rows: of `published`.
        metrics: our name of each published metric; others are left out.
        methods: methods that the job has; others are left out.

    Returns:
        One row for each number, with 0 as the number of observations.
    """
    rows = rows[rows.method.isin(list(methods)) & rows.metric.isin(list(metrics))]
    return [
        Row(row.method, metrics[row.metric] + MARK, float(row.value), row.x_name, place(row.x), n=0)
        for row in rows.itertuples()
    ]


def published_pathways(config: Config, methods: Collection[str], sparsities: Collection[float]) -> list[Row]:
    """Turn the paper's path analysis into rows of a job, each at the method that it is of (`SWAPPED_LABELS`).

    Args:
        config: names model and dataset.
        methods: methods that the job has; others are left out.
        sparsities: per cent that the job prunes; others are left out.

    Returns:
        Overlaps of pairs, both ways round, and dead shares in per cent, with 0 as the number of observations.
    """
    found = []
    for row in published("path_analysis", config).itertuples():
        meant = [_METHODS[name] for name in row.meant.split(" with ") if name] or [row.method]
        if float(row.x) not in sparsities or not set(meant) <= set(methods):
            continue
        if row.metric == "dead_share_percent":
            found.append(Row(meant[0], f"dead_share{MARK}", float(row.value), row.x_name, place(row.x), n=0))
            continue
        for one, other in (meant, reversed(meant)):
            overlap = float(row.value) / 100
            found.append(Row(one, f"jaccard/{other}{MARK}", overlap, row.x_name, place(row.x), n=0))
    return found
