"""Additions to a Lightning trainer: history of a training, progress bar, checkpoints that are never half-written.

Lightning loads slowly: this file is imported by `cpath.training` alone.
"""

from __future__ import annotations

import io
import logging
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from tqdm.auto import tqdm

from cpath.storage import replacing

_LOG = logging.getLogger(__name__)
_EVERY = 10.0  # seconds between two lines on the progress where there is no bar


class History(pl.Callback):
    """Keep the logged values of every epoch, also of those before a training was resumed."""

    state_key = "history"

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the values of the epoch."""
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": float(trainer.current_epoch), **figures})

    def state_dict(self) -> dict[str, Any]:
        """Give the values to a checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the values of a checkpoint."""
        self.rows = list(state_dict["rows"])


class ProgressBar(pl.Callback):
    """Show one progress bar over the whole training, with the time left.

    Args:
        epochs: Number of epochs.
        name: Text in front of the bar.
        quiet: Hide the bar; None to log a line every ten seconds instead of it if there is no terminal.
        position: Line of the bar on the terminal.
    """

    def __init__(self, epochs: int, name: str, quiet: bool | None, position: int) -> None:
        self.epochs, self.name, self.quiet, self.position = epochs, name, quiet, position
        self.first = 0  # epoch, of a training that was resumed a later one
        self.bar: tqdm[Any] | None = None
        self.began = self.said = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar, at the step where a resumed training goes on."""
        if trainer.is_global_zero:
            self.began = self.said = time.monotonic()
            self.first = trainer.current_epoch
            self.bar = tqdm(
                total=self.epochs * int(trainer.num_training_batches),
                initial=trainer.global_step,
                desc=self.name,
                bar_format="{desc} {percentage:3.0f} %|{bar}| {remaining} left{postfix}",
                disable=self.quiet,
                position=self.position,
                leave=self.position == 0,
            )

    def on_train_batch_end(self, *_: Any) -> None:
        """Move the bar by a step."""
        if self.bar is not None:
            self.bar.update()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the accuracy of the epoch."""
        if self.bar is not None:
            value = float(trainer.callback_metrics["val_accuracy"])
            epoch = trainer.current_epoch + 1
            self.bar.set_postfix_str(f"epoch {epoch}, validation {value:.1f} %")
            if self.bar.disable and self.quiet is None and self.position == 0:
                self._say(epoch, value)

    def _say(self, epoch: int, value: float) -> None:
        """Log a line every ten seconds where there is no terminal for a bar."""
        now = time.monotonic()
        if now - self.said >= _EVERY and epoch < self.epochs:
            self.said = now
            left = (now - self.began) / (epoch - self.first) * (self.epochs - epoch)
            words = "%s: epoch %d of %d, validation %.1f %%, %.0f s left"
            _LOG.info(words, self.name, epoch, self.epochs, value, left)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class WholeFiles(TorchCheckpointIO):
    """Write checkpoints beside their place; Lightning would move them from the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; a reader sees the whole file or the previous one."""
        buffer = io.BytesIO()  # torch.save does not say why it could not write a file
        torch.save(checkpoint, buffer)
        with replacing(Path(path)) as partial:
            partial.write_bytes(buffer.getbuffer())
