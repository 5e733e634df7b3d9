"""Trained networks as cache entries: made once, resumed from the last epoch, identified by what determines them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import cpath
from cpath.data import ImageData
from cpath.errors import InputError
from cpath.evaluation import accuracy
from cpath.storage import replacing
from experiments.engine.cache import Cache, Entry, Key, write_json
from experiments.engine.config import Config
from experiments.engine.devices import check_trainer, hardware_of
from experiments.engine.digests import content_digest, named_code
from experiments.engine.fields import keyed
from experiments.engine.images import Data
from experiments.engine.instantiate import instantiated
from experiments.engine.table import Row

if TYPE_CHECKING:  # importing it takes seconds
    from cpath.training import Recipe

_LOG = logging.getLogger(__name__)
_FORMAT = 4
MODEL_FILE = "model.safetensors"
HISTORY_FILE = "history.json"


def trained_entry(config: Config, data: ImageData, cache: Cache, model: nn.Module) -> Path:
    """Train a model as configured, unless that was done before.

    Args:
        config: recipe, trainer, seed, and the settings of the model.
        data: training, validation and test images.
        cache: where trained networks are kept.
        model: the untrained network, which is changed if it is trained now.

    Returns:
        Folder with the weights of the best validation epoch (`MODEL_FILE`) and the history (`HISTORY_FILE`).

    Raises:
        InputError: if there is nothing to train on, or the recipe cannot be used.
    """
    data.training_splits()  # raises where there are none
    check_trainer(config)
    key = training_key(config, data)
    _LOG.info("model: %s", cache.folder(key))
    with cache.entry(key) as entry:
        if entry.missing:
            train_in(entry, config, data, model, name=f"training {key.label}")
    _say_accuracy(read_history(entry.folder)["test_hits"], data)
    return entry.folder


def _say_accuracy(hits: Sequence[int], data: ImageData) -> None:
    """Say how good a network is, and warn where it has learned next to nothing.

    That is less than a tenth of the way from the share of the most frequent class to all, or less than three
    standard errors above that share.
    """
    share = sum(hits) / len(hits)
    _LOG.info("model: test accuracy %.1f %% (%d of %d images)", 100 * share, sum(hits), len(hits))
    chance = float(data.test.labels.bincount().max()) / len(hits)
    error = (chance * (1 - chance) / len(hits)) ** 0.5
    if share < chance + max(3 * error, 0.1 * (1 - chance)):
        _LOG.warning(
            "model: this accuracy is near chance (%.1f %%): the network has hardly learned its task, and what is "
            "found in it says little. Train it longer (recipe.epochs=…), or change the recipe.",
            100 * chance,
        )


def training_key(config: Config, data: ImageData) -> Key:
    """Key of a trained network.

    Args:
        config: names the model, the recipe, the trainer and the seed.
        data: training, validation and test images.

    Returns:
        The key, made of `training_identity`.
    """
    return Key("models", f"{config.model_name}-{data.name}", training_identity(config, data))


def training_identity(config: Config, data: ImageData) -> dict[str, Any]:
    """Collect everything that determines the weights of a training.

    Args:
        config: names the model, the recipe, the trainer and the seed.
        data: training, validation and test images.

    Returns:
        Plain containers, for a key of the cache.

    Raises:
        InputError: if the configuration has no recipe.
    """
    recipe = _recipe(config)
    # The arithmetic of the steps counts: a training multiplies its changes, even those of rounding.
    arithmetic = keyed(config.trainer)
    if config.trainer.processes == 1:  # then there is nobody to share batch statistics with
        del arithmetic["sync_batchnorm"]
    return {
        "format": _FORMAT,
        "cpath": cpath.__version__,
        "model": {**config.model, "weights": pretrained_weights(config, data)},
        # The training starts from its weights.
        "checkpoint": None if config.checkpoint is None else content_digest(config.checkpoint),
        "data": dict(data.settings),
        "recipe": recipe,
        "code": named_code([config.model, recipe]),
        "trainer": arithmetic,
        "seed": config.seed,
    }


def _recipe(config: Config) -> dict[str, Any]:
    if config.recipe is None:
        raise InputError("a training needs a recipe: add +recipe=default, or name one in the file of the dataset.")
    return keyed(config.recipe)


def pretrained_weights(config: Config, data: Data) -> Any:
    """Pretrained weights that the configuration names for its model.

    Args:
        config: names the model and its ``weights``; ``auto`` means the default ones on ImageNet, and none
            elsewhere.
        data: the dataset.

    Returns:
        Name of the weights; None for none.
    """
    weights = config.model.get("weights")
    if weights == "auto":
        return "DEFAULT" if data.name == "imagenet" and config.checkpoint is None else None
    return weights


def train_in(
    entry: Entry,
    config: Config,
    data: ImageData,
    model: nn.Module,
    *,
    name: str,
    position: int = 0,
    keep_model: bool = True,
) -> None:
    """Train and test a model in the folder of its entry.

    Leaves the history, a hit or miss for each test image and, with ``keep_model``, the weights of the best
    validation epoch.

    Args:
        entry: which is missing; an interrupted training continues from the last epoch that it left in its folder.
        config: recipe, trainer and seed.
        data: training, validation and test images.
        model: network to train.
        name: description of the progress bar.
        position: row of the progress bar.
        keep_model: whether the weights are of use later.

    Raises:
        InputError: if the recipe cannot be used.
    """
    from cpath.training import train  # imports Lightning, which takes seconds

    entry.scratch = ("*.ckpt",)
    folder, hardware, recipe = entry.folder, hardware_of(config), recipe_of(config)
    _check_optimizer(recipe, model)
    history = train(model, data, recipe, folder, seed=config.seed, hardware=hardware, name=name, position=position)
    leave_results(entry, model, data, history, hardware.device, keep_model=keep_model)


def leave_results(
    entry: Entry,
    model: nn.Module,
    data: ImageData,
    history: list[dict[str, float]],
    device: torch.device,
    *,
    keep_model: bool,
) -> None:
    """Test a trained network, and write what its entry is to hold: see `train_in`.

    Args:
        entry: of the training.
        model: with the weights of the best validation epoch; moved to the CPU.
        data: training, validation and test images.
        history: numbers by epoch.
        device: to test on.
        keep_model: whether the weights are of use later.
    """
    from safetensors.torch import save_file

    hits = accuracy(model, data.test, device)
    model.cpu()
    if keep_model:
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        with replacing(entry.folder / MODEL_FILE) as unfinished:
            save_file(weights, unfinished)
    write_json(entry.folder / HISTORY_FILE, {"epochs": history, "test_hits": hits.int().tolist()})


def recipe_of(config: Config) -> Recipe:
    """Make the recipe of a configuration.

    Args:
        config: names optimizer, scheduler, loss and augmentation.

    Returns:
        The recipe that `cpath.training.train` takes.

    Raises:
        InputError: if there is none, or a part of it cannot be made.
    """
    from cpath.training import Recipe

    return Recipe(**instantiated(_recipe(config), "recipe"))


def _check_optimizer(recipe: Recipe, model: nn.Module) -> None:
    try:
        optimizer = recipe.optimizer(model.parameters())
        if recipe.scheduler is not None:
            recipe.scheduler(optimizer)
    except (TypeError, ValueError) as error:
        raise InputError(f"recipe: its optimizer or scheduler cannot be made: {error}.") from error


def read_history(folder: Path) -> dict[str, Any]:
    """Read the history of a training.

    Args:
        folder: of the entry of the trained network.

    Returns:
        ``epochs``: numbers by name for each epoch; ``test_hits``: 1 for each test image that is classified
        correctly, else 0.
    """
    history: dict[str, Any] = json.loads((folder / HISTORY_FILE).read_text())
    return history


def epoch_rows(method: str, history: Mapping[str, Any]) -> list[Row]:
    """Rows of a training's numbers by epoch, counted from 1.

    Args:
        method: name in the column ``method``.
        history: as `read_history` returns it.

    Returns:
        One row for each epoch and number.
    """
    return [
        Row(method, metric, value, "epoch", epoch["epoch"] + 1)
        for epoch in history["epochs"]
        for metric, value in epoch.items()
        if metric != "epoch"
    ]
