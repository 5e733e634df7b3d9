"""Cells of a ROAR table: networks retrained on images without some of their pixels, as entries of the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cpath.data import ImageData
from cpath.errors import InputError, StorageError
from cpath.evaluation import NoisyLinear, altered
from experiments.engine.cache import Cache, Key
from experiments.engine.config import Config
from experiments.engine.devices import hardware_of
from experiments.engine.network import build_model
from experiments.engine.table import PseudoMethod
from experiments.engine.training import (
    read_history,
    recipe_of,
    train_in,
    trained_entry,
    training_identity,
    training_key,
)
from experiments.engine.training_together import Training, reason_against, train_together
from experiments.roar.ranks import Ranks

UNTOUCHED = PseudoMethod.UNTOUCHED.value
"""Stands for the attribution where no pixel is removed."""


Fill = float | Literal["noisy_linear"]
"""Value of a removed pixel, or `cpath.evaluation.NoisyLinear`."""


@dataclass(frozen=True)
class Mode:
    """Removing (ROAR) or keeping (KAR) the most relevant pixels."""

    keep: bool
    """True for KAR, False for ROAR."""

    @property
    def name(self) -> str:
        """Name with which its metrics begin."""
        return "kar" if self.keep else "roar"

    @property
    def x_name(self) -> str:
        """Name of the share of pixels in tables."""
        return "percent_kept" if self.keep else "percent_removed"

    def places(self, percent: Sequence[float]) -> tuple[float, ...]:
        """Shares at which the curve has values: at 0, ROAR has the untouched images, and KAR none at all.

        Args:
            percent: shares of the cells, per cent, ascending from above 0.

        Returns:
            The shares, per cent.
        """
        return tuple(percent) if self.keep else (0.0, *percent)


@dataclass(frozen=True)
class Cell:
    """One retraining."""

    attribution: str
    """Name of the attribution, or `UNTOUCHED`."""
    percent: float
    """Per cent of the pixels, the most relevant first."""
    keep: bool
    """True if all other pixels are removed, instead of these."""
    seed: int
    """Seed of the training."""

    @classmethod
    def untouched(cls, seed: int) -> Cell:
        """Retraining on images that keep all of their pixels.

        Args:
            seed: seed of the training.

        Returns:
            The cell.
        """
        return cls(UNTOUCHED, 0.0, False, seed)

    @property
    def label(self) -> str:
        """Description for progress bars and names of folders."""
        if self.percent == 0:
            return f"{UNTOUCHED}-s{self.seed}"
        return f"{self.attribution}-{self.percent:g}-{Mode(self.keep).name}-s{self.seed}"


@dataclass(frozen=True)
class History:
    """Result of a retraining."""

    epochs: list[dict[str, float]]
    """Losses and validation accuracy (per cent) by epoch."""
    test_hits: list[int]
    """1 for each test image that is classified correctly after the best validation epoch, else 0."""

    @property
    def accuracy(self) -> float:
        """Per cent of the test images that are classified correctly."""
        return 100.0 * sum(self.test_hits) / len(self.test_hits)

    @property
    def val_accuracy(self) -> float:
        """Per cent of the validation images that are classified correctly after the best epoch."""
        return float(self._best["val_accuracy"])

    @property
    def best_epoch(self) -> int:
        """Epoch with the best validation accuracy, counted from 1."""
        return int(self._best["epoch"]) + 1

    @property
    def _best(self) -> dict[str, float]:
        return max(self.epochs, key=lambda epoch: epoch["val_accuracy"])


@dataclass(frozen=True)
class Retrainings:
    """Trains cells, each once: what another job trained is found again."""

    config: Config
    """Configuration of the job."""
    data: ImageData
    """Images, untouched."""
    cache: Cache
    """Holds the cells."""
    ranks: Mapping[str, Ranks]
    """Ranks of the pixels by attribution; none are needed for untouched images."""
    fill: Fill
    """Normalised value of a removed pixel, or its imputation from the pixels that are left."""
    _configs: dict[int, Config] = field(default_factory=dict, init=False, repr=False, compare=False)

    def key(self, cell: Cell) -> Key:
        """Key of a cell.

        That of untouched images is the network that any other experiment trains with the same seed.

        Args:
            cell: the retraining.

        Returns:
            The key, of a cell or of a trained network.
        """
        config = self.config_of(cell.seed)
        if cell.percent == 0:
            return training_key(config, self.data)
        made_of = {
            **training_identity(config, self.data),
            "ranks": self.ranks[cell.attribution].digest,
            "percent": cell.percent,
            "keep": cell.keep,
            "fill": self.fill,
        }
        return Key("cells", f"{cell.label}-{config.model_name}-{self.data.name}", made_of)

    def is_trained(self, cell: Cell) -> bool:
        """Tell if a cell was trained before.

        Args:
            cell: the retraining.

        Returns:
            True if the cache holds it.
        """
        return self.cache.holds(self.key(cell))

    def history(self, cell: Cell, position: int = 0) -> History:
        """Train a cell unless that was done before.

        Args:
            cell: what to train.
            position: row of the progress bar.

        Returns:
            Losses and validation accuracy by epoch, and hits on the test images.
        """
        config = self.config_of(cell.seed)
        if cell.percent == 0:
            folder = trained_entry(config, self.data, self.cache, build_model(config, self.data))
            return History(**read_history(folder))
        with self.cache.entry(self.key(cell)) as entry:
            if entry.missing:
                model = build_model(config, self.data)
                images = self._images(cell)
                train_in(entry, config, images, model, name=cell.label, position=position, keep_model=False)
        return History(**read_history(entry.folder))

    def train(self, cells: Sequence[Cell], position: int = 0) -> dict[Cell, Exception]:
        """Train cells, several of them at once, unless that was done before.

        Args:
            cells: what to train: one, or several where nothing is against that (`reason_against_several`).
            position: row of the progress bar.

        Returns:
            The errors of those that failed while the others went on.

        Raises:
            InputError: if the settings are unusable, which no other cell would change.
        """
        if len(cells) == 1:
            try:
                self.history(cells[0], position)
            except (InputError, StorageError):
                raise
            except Exception as error:  # of this cell alone
                return {cells[0]: error}
            return {}
        trainings = {cell: self._training(cell) for cell in cells}
        failed = train_together(list(trainings.values()), self.cache, build_model, position)
        return {cell: failed[one.key.name] for cell, one in trainings.items() if one.key.name in failed}

    def reason_against_several(self, cells: Sequence[Cell]) -> str | None:
        """Say why cells cannot be trained at once.

        Args:
            cells: any of the table.

        Returns:
            A sentence; None where they can.
        """
        config = self.config_of(cells[0].seed)
        return reason_against(config, self.data, build_model(config, self.data))

    def check_memory(self, cell: Cell, at_once: int) -> None:
        """Refuse cells that cannot fit the memory of the device.

        Args:
            cell: any of the table.
            at_once: number of cells that are trained on the device at a time.

        Raises:
            InputError: if they need more than there is.
        """
        config = self.config_of(cell.seed)
        batch_size = recipe_of(config).batch_size
        hardware_of(config).check_memory(build_model(config, self.data), self._images(cell), batch_size, at_once)

    def _training(self, cell: Cell) -> Training:
        return Training(self.key(cell), self.config_of(cell.seed), self._images(cell), keep_model=cell.percent == 0)

    def _images(self, cell: Cell) -> ImageData:
        if cell.percent == 0:
            return self.data
        fill = NoisyLinear() if self.fill == "noisy_linear" else self.fill
        return altered(self.data, self.ranks[cell.attribution].splits, cell.percent, keep=cell.keep, fill=fill)

    def config_of(self, seed: int) -> Config:
        """Configuration of a retraining: from scratch, whatever weights the explained network has.

        Args:
            seed: seed of the training.

        Returns:
            The configuration.
        """
        if seed not in self._configs:
            scratch: dict[str, Any] = {"seed": seed, "checkpoint": None}
            if self.config.model.get("weights") is not None:
                scratch["model.weights"] = None
            self._configs[seed] = self.config.changed(**scratch)
        return self._configs[seed]
