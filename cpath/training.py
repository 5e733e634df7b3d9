"""Training classifiers with Lightning. Imported only where something is trained: Lightning loads slowly."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from tqdm.auto import tqdm

from cpath.data import ImageData, Split


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: everything that decides the weights beside the data and the seed."""

    epochs: int
    batch_size: int
    optimizer: Callable[..., torch.optim.Optimizer]
    """Called with the parameters."""
    scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None
    """Called with the optimizer; stepped after every epoch."""
    crop: int = 0
    """Pixels of zero padding before a random crop back to size."""
    flip: bool = False
    """Random horizontal flips."""


class Classifier(pl.LightningModule):
    """A classifier under cross entropy; logs the accuracy on validation and test images in per cent."""

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.recipe = recipe

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.model(images)  # type: ignore[no-any-return]

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Cross entropy of a batch."""
        images, labels = batch
        loss = F.cross_entropy(self(images), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Logs loss and accuracy."""
        images, labels = batch
        logits = self(images)
        accuracy = 100 * (logits.argmax(1) == labels).float().mean()
        self.log("val_loss", F.cross_entropy(logits, labels), batch_size=len(labels))
        self.log("val_accuracy", accuracy, prog_bar=True, batch_size=len(labels))

    def configure_optimizers(self) -> Any:
        """Optimizer, and the schedule by epochs."""
        optimizer = self.recipe.optimizer(self.parameters())
        if self.recipe.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.recipe.scheduler(optimizer)}


class Batches:
    """Batches of a split, augmented as whole tensors; in an order that ``seed`` alone decides.

    An epoch's order and augmentation depend on nothing but the seed, so a resumed training goes on with
    exactly the batches that it would have seen.
    """

    def __init__(
        self, split: Split, batch_size: int, *, seed: int | None = None, crop: int = 0, flip: bool = False
    ) -> None:
        self.split, self.batch_size, self.seed, self.crop, self.flip = split, batch_size, seed, crop, flip

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, labels); shuffled and augmented when there is a seed."""
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        count = len(self.split)
        order = torch.arange(count) if generator is None else torch.randperm(count, generator=generator)
        for indices in torch.split(order, self.batch_size):
            images = self.split.batch(indices)
            if generator is not None:
                images = augment(images, self.crop, self.flip, generator)
            yield images, self.split.labels[indices]


def augment(images: Tensor, crop: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crops after ``crop`` pixels of zero padding, and random horizontal flips, each image its own."""
    count, _, height, width = images.shape
    if flip:
        flipped = torch.rand(count, generator=generator) < 0.5
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
    if crop:
        top, left = torch.randint(0, 2 * crop + 1, (2, count, 1, 1), generator=generator)
        rows = top + torch.arange(height).view(1, -1, 1)
        columns = left + torch.arange(width).view(1, 1, -1)
        padded = F.pad(images, (crop, crop, crop, crop))
        images = padded[torch.arange(count).view(-1, 1, 1), :, rows, columns].permute(0, 3, 1, 2)
    return images.contiguous()


class ImageModule(pl.LightningDataModule):
    """Training and validation batches of a dataset; the training order changes with the epoch."""

    def __init__(self, data: ImageData, recipe: Recipe, seed: int) -> None:
        super().__init__()
        self.train, self.val = data.training_splits()
        self.recipe, self.seed = recipe, seed

    def train_dataloader(self) -> Batches:
        """The batches of the trainer's current epoch."""
        assert self.trainer is not None
        return Batches(
            self.train,
            self.recipe.batch_size,
            seed=self.seed * 1_000_003 + self.trainer.current_epoch,
            crop=self.recipe.crop,
            flip=self.recipe.flip,
        )

    def val_dataloader(self) -> Batches:
        """The validation images in order."""
        return Batches(self.val, 4 * self.recipe.batch_size)


class _History(pl.Callback):
    """The logged figures of every epoch; survives a resume."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": float(trainer.current_epoch), **figures})

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class _Bar(pl.Callback):
    """One progress bar over the whole training, with the time left."""

    def __init__(self, total: int, quiet: bool | None) -> None:
        self.total, self.quiet = total, quiet
        self.bar: tqdm[Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.bar = tqdm(
            total=self.total, initial=trainer.global_step, desc="training", unit="step", disable=self.quiet
        )

    def on_train_batch_end(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None:
            value = float(trainer.callback_metrics["val_accuracy"])
            self.bar.set_postfix_str(f"epoch {trainer.current_epoch + 1}, validation accuracy {value:.1f} %")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.bar is not None:
            self.bar.close()


def train(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    quiet: bool | None = None,
    **trainer: Any,
) -> list[dict[str, float]]:
    """Trains ``model`` in place and leaves it with the weights of the best validation epoch.

    Checkpoints go to ``folder``; when it holds an interrupted training, that one goes on. ``trainer`` are
    settings of `pytorch_lightning.Trainer`; ``quiet`` hides the progress bar (None: where there is no
    terminal). Returns the logged figures of every epoch.
    """
    # Its hints on devices and products would drown the progress bar.
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    pl.seed_everything(seed, workers=True, verbose=False)
    history = _History()
    best = ModelCheckpoint(
        folder, filename="best", monitor="val_accuracy", mode="max", save_last=True, enable_version_counter=False
    )
    module = Classifier(model.train(), recipe)
    batches = ImageModule(data, recipe, seed)
    bar = _Bar(recipe.epochs * len(Batches(batches.train, recipe.batch_size)), quiet)
    fit = pl.Trainer(
        max_epochs=recipe.epochs,
        callbacks=[best, history, bar],
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,  # the training order is the epoch's own
        **trainer,
    )
    last = folder / "last.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning's own use of PyTorch
        fit.fit(
            module,
            datamodule=batches,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=True,
        )
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items()})
    model.cpu().eval()
    return history.rows


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, device: torch.device | str = "cpu", batch_size: int = 256) -> Tensor:
    """(N,) bool: whether each image of ``split`` is classified correctly. Leaves the model in eval mode."""
    model.to(device).eval()
    hits = [model(images.to(device)).argmax(1).cpu() == labels for images, labels in Batches(split, batch_size)]
    return torch.cat(hits)
