"""Trained models as artifacts: made once, resumed from the last epoch, found again by what determines them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

import cpath
from cpath.data import ImageData
from cpath.errors import InputError
from cpath.evaluation import accuracy
from cpath.storage import replacing
from experiments.framework.devices import check_trainer, hardware_of
from experiments.framework.identity import INCIDENTAL, content_digest, named_code
from experiments.framework.results import Row
from experiments.framework.store import ArtifactStore, write_json

_LOG = logging.getLogger(__name__)
_FORMAT = 3
MODEL_FILE = "model.safetensors"
HISTORY_FILE = "history.json"


def train_artifact(cfg: DictConfig, data: ImageData, store: ArtifactStore, model: nn.Module) -> Path:
    """The folder with the trained model and its history; trains ``model`` unless that was done before."""
    key, name = training_key(cfg, data), f"{cfg.model.name}-{data.name}"

    def make(folder: Path) -> None:
        train_in(folder, cfg, data, model, name=f"training {name}")

    data.training_splits()  # raises where there is nothing to train on
    check_trainer(cfg)
    _LOG.info("model: %s", store.path("models", name, key))
    return store.build("models", name, key, make)


def training_key(cfg: DictConfig, data: ImageData) -> dict[str, Any]:
    """Everything that determines the weights."""
    model: Any = OmegaConf.to_container(cfg.model, resolve=True)
    recipe: Any = OmegaConf.to_container(cfg.dataset.recipe, resolve=True)
    trainer: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    # The arithmetic of the steps: a training multiplies what it changes, even where that is rounding.
    arithmetic = {name: value for name, value in trainer.items() if f"trainer.{name}" not in INCIDENTAL}
    if trainer["processes"] == 1:  # which has nobody to share its batch statistics with
        del arithmetic["sync_batchnorm"]
    return {
        "format": _FORMAT,
        "cpath": cpath.__version__,
        "model": {**model, "weights": weights_of(cfg, data)},
        # Of a training that goes on from these weights.
        "checkpoint": None if cfg.checkpoint is None else content_digest(cfg.checkpoint),
        "data": data.settings,
        "recipe": recipe,
        "code": named_code([model, recipe]),
        "trainer": arithmetic,
        "seed": cfg.seed,
    }


def weights_of(cfg: DictConfig, data: ImageData) -> Any:
    """The pretrained weights that the configuration names for its model: ``auto`` means some for ImageNet alone."""
    weights = cfg.model.get("weights")
    if weights == "auto":
        return "DEFAULT" if data.name == "imagenet" and cfg.checkpoint is None else None
    return weights


def train_in(
    folder: Path,
    cfg: DictConfig,
    data: ImageData,
    model: nn.Module,
    *,
    name: str,
    position: int = 0,
    keep_model: bool = True,
) -> None:
    """Trains ``model`` on ``data`` as the configuration says, in the artifact's ``folder``, and tests it.

    Leaves the history, whether each test image was a hit, and with ``keep_model`` the weights of the best
    validation epoch. Of these the history is the last: where it is, nothing is trained again.
    """
    if not (folder / HISTORY_FILE).exists() or (keep_model and not (folder / MODEL_FILE).exists()):
        _train_in(folder, cfg, data, model, name, position, keep_model)
    for checkpoint in folder.glob("*.ckpt"):  # of use to an interrupted training only
        checkpoint.unlink()


def _train_in(
    folder: Path, cfg: DictConfig, data: ImageData, model: nn.Module, name: str, position: int, keep_model: bool
) -> None:
    from safetensors.torch import save_file

    from cpath.training import Recipe, train

    hardware, recipe = hardware_of(cfg), Recipe(**instantiate(cfg.dataset.recipe))
    try:
        optimizer = recipe.optimizer(model.parameters())
        if recipe.scheduler is not None:
            recipe.scheduler(optimizer)
    except (TypeError, ValueError) as error:
        raise InputError(f"dataset.recipe: {error}. Its optimizer or scheduler cannot be made.") from error
    history = train(
        model,
        data,
        recipe,
        folder,
        seed=cfg.seed,
        hardware=hardware,
        name=name,
        position=position,
    )
    hits = accuracy(model, data.test, hardware.device)
    model.cpu()
    if keep_model:
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        with replacing(folder / MODEL_FILE) as partial:
            save_file(weights, partial)
    write_json(folder / HISTORY_FILE, {"epochs": history, "test_hits": hits.int().tolist()})


def read_history(folder: Path) -> dict[str, Any]:
    """Figures by epoch (``epochs``) and hits on the test images (``test_hits``) of a training."""
    history: dict[str, Any] = json.loads((folder / HISTORY_FILE).read_text())
    return history


def epoch_rows(method: str, history: Mapping[str, Any]) -> list[Row]:
    """The training's figures by epoch, counted from 1."""
    return [
        Row(method, metric, value, "epoch", epoch["epoch"] + 1)
        for epoch in history["epochs"]
        for metric, value in epoch.items()
        if metric != "epoch"
    ]
