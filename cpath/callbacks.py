"""Additions to a Lightning trainer: history of a training, progress bar, checkpoints that are never half-written.

Lightning loads slowly: this file is imported by `cpath.training` alone.
"""

from __future__ import annotations

import io
import logging
import math
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from tqdm.auto import tqdm

from cpath.errors import TrainingError
from cpath.storage import replacing

_LOG = logging.getLogger(__name__)
_EVERY = 10.0  # seconds between two lines on the progress where there is no bar


def check_loss(loss: float, epoch: int) -> None:
    """Stop a training whose loss is NaN or infinite: no later epoch would mend its weights.

    Args:
        loss: Mean over the training images of an epoch.
        epoch: Number of finished epochs.

    Raises:
        TrainingError: If it is no number.

    Example:
        >>> from cpath.callbacks import check_loss
        >>> check_loss(2.3, epoch=1)
    """
    if not math.isfinite(loss):
        raise TrainingError(
            f"the training has diverged: its loss is {loss} after epoch {epoch}. Lower the learning rate "
            "(recipe.optimizer.lr=…), or look for images and labels that are no numbers."
        )


class History(pl.Callback):
    """Keep the logged values of every epoch, also of those before a training was resumed."""

    state_key = "history"

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the values of the epoch."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        check_loss(figures["loss"], trainer.current_epoch + 1)
        self.rows.append({"epoch": float(trainer.current_epoch), **figures})

    def state_dict(self) -> dict[str, Any]:
        """Give the values to a checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the values of a checkpoint."""
        self.rows = list(state_dict["rows"])


class Progress:
    """One progress bar over a whole training, with the time left; a line now and then where there is no terminal.

    Args:
        epochs: Number of epochs.
        name: Text in front of the bar.
        quiet: Hide the bar; None to log a line every ten seconds instead of it if there is no terminal.
        position: Line of the bar on the terminal.
    """

    def __init__(self, epochs: int, name: str, quiet: bool | None = None, position: int = 0) -> None:
        self.epochs, self.name, self.quiet, self.position = epochs, name, quiet, position
        self.first = 0  # epoch, of a training that was resumed a later one
        self.bar: tqdm[Any] | None = None
        self.began = self.said = 0.0

    def begin(self, epoch: int, steps: int) -> None:
        """Open the bar.

        Args:
            epoch: Number of finished epochs, above 0 in a training that is resumed.
            steps: Number of steps in an epoch.
        """
        self.began = self.said = time.monotonic()
        self.first = epoch
        self.bar = tqdm(
            total=self.epochs * steps,
            initial=epoch * steps,
            desc=self.name,
            bar_format="{desc} {percentage:3.0f} %|{bar}| {remaining} left{postfix}",
            disable=self.quiet,
            position=self.position,
            leave=self.position == 0,
        )

    def step(self) -> None:
        """Move the bar by a step."""
        if self.bar is not None:
            self.bar.update()

    def end_epoch(self, epoch: int, accuracy: str) -> None:
        """Show the accuracy of an epoch.

        Args:
            epoch: Number of finished epochs.
            accuracy: Accuracy on the validation images, in per cent, as a text.
        """
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {epoch}, validation {accuracy} %")
            if self.bar.disable and self.quiet is None and self.position == 0:
                self._say(epoch, accuracy)

    def _say(self, epoch: int, accuracy: str) -> None:
        """Log a line every ten seconds where there is no terminal for a bar."""
        now = time.monotonic()
        if now - self.said >= _EVERY and epoch < self.epochs:
            self.said = now
            left = (now - self.began) / (epoch - self.first) * (self.epochs - epoch)
            words = "%s: epoch %d of %d, validation %s %%, %.0f s left"
            _LOG.info(words, self.name, epoch, self.epochs, accuracy, left)

    def close(self) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class ProgressBar(pl.Callback):
    """Show the progress of a training by Lightning.

    Args:
        progress: The bar.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, at the epoch where a resumed training goes on."""
        if trainer.is_global_zero:
            self.progress.begin(trainer.current_epoch, int(trainer.num_training_batches))

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the bar by a step."""
        self.progress.step()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the accuracy of the epoch."""
        accuracy = float(trainer.callback_metrics["val_accuracy"])
        self.progress.end_epoch(trainer.current_epoch + 1, f"{accuracy:.1f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        self.progress.close()


class WholeFiles(TorchCheckpointIO):
    """Write checkpoints beside their place; Lightning would move them from the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; a reader sees the whole file or the previous one."""
        buffer = io.BytesIO()  # torch.save does not say why it could not write a file
        torch.save(checkpoint, buffer)
        with replacing(Path(path)) as partial:
            partial.write_bytes(buffer.getbuffer())
