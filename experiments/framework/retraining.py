"""The stages of ROAR as artifacts: the network that is explained, the ranks of all pixels, the retrained cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

import cpath
from cpath.attribution import RANK_BY, Attribution
from cpath.data import ImageData
from cpath.errors import InputError, unknown_name
from cpath.evaluation import altered, parts_of, rank_pixels, stored_ranks
from experiments.framework.devices import device_of
from experiments.framework.identity import code_digest
from experiments.framework.scored import progress
from experiments.framework.store import ArtifactStore, digest
from experiments.framework.subject import attributions_of, build_model, fingerprint, trained_model
from experiments.framework.trained import read_history, train_artifact, train_in, training_key

_FORMAT = 1
UNTOUCHED = "untouched"
"""Stands for the attribution where no pixel is removed."""


@dataclass(frozen=True)
class Cell:
    """One retraining."""

    attribution: str
    percent: float
    keep: bool
    seed: int

    @property
    def name(self) -> str:
        """For progress bars and folders."""
        if self.percent == 0:
            return f"{UNTOUCHED}-s{self.seed}"
        return f"{self.attribution}-{self.percent:g}-{'kar' if self.keep else 'roar'}-s{self.seed}"


@dataclass(frozen=True)
class Ranks:
    """The artifact with the ranks of one attribution: all images of all splits."""

    folder: Path
    chunk: int
    """Images a file."""
    digest: str
    """What determines the ranks; the size of the files does not."""


def reseeded(cfg: DictConfig, seed: int) -> DictConfig:
    """The configuration with another seed, and with it whatever the configuration derives from the seed."""
    changed = cfg.copy()
    changed.seed = seed
    return changed


def base_config(cfg: DictConfig) -> DictConfig:
    """The configuration of the network that is explained, and of its maps: they do not vary with a cell's seed."""
    return reseeded(cfg, int(cfg.experiment.base_seed))


def cell_config(cfg: DictConfig, seed: int) -> DictConfig:
    """The configuration of a retraining: from scratch, whatever weights the explained network has."""
    changed = reseeded(cfg, seed)
    changed.checkpoint = None
    if changed.model.get("weights") is not None:
        changed.model.weights = None
    return changed


def check_settings(cfg: DictConfig, data: ImageData) -> dict[str, Attribution]:
    """The attributions, by name; raises `InputError` for settings with which no cell can be made."""
    settings = cfg.experiment
    if settings.rank_by not in RANK_BY:
        raise unknown_name("rank_by", settings.rank_by, RANK_BY)
    if settings.batch < 1:
        raise InputError(f"experiment.batch must be at least 1, not {settings.batch}.")
    attributions = attributions_of(base_config(cfg))
    if not attributions:
        raise InputError("no attribution named: attribution=all, or one by name.")
    try:
        data.training_splits()
    except InputError as error:
        raise InputError(f"ROAR retrains the network, and there is nothing to train on: {error}") from error
    return attributions


def check_percent(percent: float) -> float:
    """``percent`` as a number from 0 to 100; raises `InputError` for any other."""
    try:
        value = float(percent)
    except (TypeError, ValueError):
        raise InputError(f"percent must be a number from 0 to 100, not {percent!r}.") from None
    if not 0 <= value <= 100:
        raise InputError(f"percent must be between 0 and 100, not {percent}.")
    return value


def base_model(cfg: DictConfig, data: ImageData, store: ArtifactStore) -> nn.Module:
    """The network that is explained: the configuration's, trained with ``experiment.base_seed``."""
    return trained_model(base_config(cfg), data, store)


def rank_artifact(
    cfg: DictConfig, data: ImageData, store: ArtifactStore, model: nn.Module, name: str, attribution: Attribution
) -> Ranks:
    """Ranks of the pixels of every training, validation and test image by the attribution called ``name``.

    Of the response of the class that ``model`` predicts. Made a batch at a time; a stopped job goes on behind the
    last finished one.
    """
    settings = cfg.experiment
    key = {
        "format": _FORMAT,
        "cpath": cpath.__version__,
        "model": fingerprint(model, base_config(cfg)),
        "data": data.settings,
        "activations": list(cfg.activations),
        "attribution": name,
        "settings": asdict(attribution) if is_dataclass(attribution) else vars(attribution),
        "code": code_digest(attribution),
        "rank_by": settings.rank_by,
        "seed": settings.base_seed,
    }

    def make(folder: Path) -> None:
        stored = stored_ranks(data, folder, settings.batch)
        parts = [(split, ranks, k) for split, ranks in stored.items() for k in range(len(ranks.where()))]
        splits, device = parts_of(data), device_of(cfg)
        for number in progress(range(len(parts)), f"maps of {name}", "batch"):
            split, ranks, chunk = parts[number]

            def compute(where: slice, split: str = split) -> torch.Tensor:
                images = splits[split].batch(torch.arange(where.start, where.stop)).to(device)
                maps = cpath.attribute(
                    model, images, attribution, activations=cfg.activations, max_batch=settings.max_batch
                )
                return rank_pixels(maps, images, rank_by=settings.rank_by, seed=settings.base_seed)

            ranks.write(compute, [chunk])

    artifact = f"{name}-{cfg.model.name}-{data.name}"
    folder = store.build("ranks", artifact, {**key, "batch": settings.batch}, make)
    return Ranks(folder, int(settings.batch), digest(key))


def cell_key(cfg: DictConfig, data: ImageData, cell: Cell, ranks: Ranks) -> dict[str, Any]:
    """Everything that determines the result of a cell with removed pixels."""
    return {
        **training_key(cell_config(cfg, cell.seed), data),
        "ranks": ranks.digest,
        "percent": cell.percent,
        "keep": cell.keep,
        "fill": float(cfg.experiment.fill),
    }


def cell_artifact(
    cfg: DictConfig, data: ImageData, store: ArtifactStore, cell: Cell, ranks: Ranks | None, position: int = 0
) -> dict[str, Any]:
    """History and test hits of a cell; trains it unless that was done before.

    Without removed pixels it is the same artifact as the network trained with that seed by any other experiment.
    """
    ours = cell_config(cfg, cell.seed)
    if cell.percent == 0:
        return read_history(train_artifact(ours, data, store, build_model(ours, data)))
    assert ranks is not None

    def make(folder: Path) -> None:
        stored = stored_ranks(data, ranks.folder, ranks.chunk)
        changed = altered(data, stored, cell.percent, keep=cell.keep, fill=float(cfg.experiment.fill))
        model = build_model(ours, data)
        train_in(folder, ours, changed, model, name=cell.name, position=position, keep_model=False)

    name = f"{cell.name}-{cfg.model.name}-{data.name}"
    return read_history(store.build("cells", name, cell_key(cfg, data, cell, ranks), make))


def is_trained(
    cfg: DictConfig, data: ImageData, store: ArtifactStore, cell: Cell, ranks: Mapping[str, Ranks]
) -> bool:
    """Whether the cell was trained before."""
    if cell.percent == 0:
        key = training_key(cell_config(cfg, cell.seed), data)
        return store.path("models", f"{cfg.model.name}-{data.name}", key).is_dir()
    name = f"{cell.name}-{cfg.model.name}-{data.name}"
    return store.path("cells", name, cell_key(cfg, data, cell, ranks[cell.attribution])).is_dir()


def accuracy_of(history: Mapping[str, Any]) -> float:
    """Per cent of the test images that the best validation epoch classifies correctly."""
    hits: list[int] = history["test_hits"]
    return 100.0 * sum(hits) / len(hits)


def plain(cfg: DictConfig) -> Any:
    """The configuration as plain containers, for another process; references in it stay references."""
    return OmegaConf.to_container(cfg, resolve=False)
