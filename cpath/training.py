"""Training of classifiers with Lightning, imported only to train something because Lightning loads slowly."""

from __future__ import annotations

import copy
import logging
import os
import random
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cpath.callbacks import History, Progress, ProgressBar, WholeFiles
from cpath.checks import check_at_least, check_count, check_number
from cpath.data import Batches, ImageData, Split
from cpath.devices import widest
from cpath.errors import InputError
from cpath.response import logits_of, predicted, raw_logits
from cpath.training_memory import check_memory

_CPU = torch.device("cpu")
# Warnings of Lightning about its own use of PyTorch, and about settings that are intended.
_HINTS = (".*LeafSpec.*", ".*does not have many workers.*", ".*srun.*", ".*exists and is not empty.*")
_LOGGERS = ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero")


@dataclass(frozen=True)
class Recipe:
    """Training settings that decide the weights, beside the data and the seed.

    Args:
        epochs: Number of epochs.
        batch_size: Number of images in a step, those of all processes together.
        optimizer: Called with the parameters.
        scheduler: Called with the optimizer; stepped after every epoch. None for a constant learning rate.
        loss: Called with logits (B, classes) and labels (B,); gives the mean over the batch. Of a binary classifier
            with one logit z the logits are (−z/2, z/2): their cross-entropy is the binary cross-entropy of z.
        augmentation: Called with a training batch (B, C, H, W), normalised and on the device, and a generator on
            that device; gives such a batch. None for the images as they are.

    Raises:
        InputError: If ``epochs`` or ``batch_size`` is below 1.

    Example:
        >>> cpath.training.Recipe(epochs=2, batch_size=256, optimizer=torch.optim.Adam).batch_size
        256
    """

    epochs: int
    batch_size: int
    optimizer: Callable[..., torch.optim.Optimizer]
    scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
    augmentation: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __post_init__(self) -> None:
        check_count("epochs", self.epochs)
        check_count("batch_size", self.batch_size)

    def augmented(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Augment a training batch.

        Args:
            images: Normalised images (B, C, H, W), on the device.
            draws: Generator on that device.

        Returns:
            Images (B, C, H, W).
        """
        return images if self.augmentation is None else self.augmentation(images, draws)


@dataclass(frozen=True)
class Hardware:
    """Hardware settings of a training. They change its speed, and its numbers only by rounding.

    Args:
        device: Device to compute on.
        processes: Number of processes. With more than one, training is distributed data parallel, on as many GPUs
            or as many processes on the CPU.
        precision: Lightning's precision: "32-true", "bf16-mixed", "16-mixed", …
        tf32: Multiply float32 matrices in TF32, on GPUs that can.
        channels_last: Keep images and weights in the channels-last format on a GPU. On a CPU that is always done,
            for networks that run in it: convolutions take a fifth less time there.
        compile: Compile the network with `torch.compile`, which takes a minute or so and makes the steps faster.
        workers: Number of processes that read image files. Images in memory need none.
        memory_gb: Largest split, in gigabytes, that is moved to the device as a whole if it is in memory.
        sync_batchnorm: Compute batch statistics over all processes, if there are several GPUs.

    Raises:
        InputError: If ``processes`` or ``workers`` is out of range.

    Example:
        >>> cpath.training.Hardware(workers=4).device
        device(type='cpu')
    """

    device: torch.device = _CPU
    processes: int = 1
    precision: str = "32-true"
    tf32: bool = True
    channels_last: bool = False
    compile: bool = False
    workers: int = 0
    memory_gb: float = 8.0
    sync_batchnorm: bool = True

    def __post_init__(self) -> None:
        check_count("processes (trainer.processes)", self.processes)
        check_at_least(0, "workers (trainer.workers)", self.workers)
        check_number("memory_gb (trainer.memory_gb)", self.memory_gb)

    def in_channels_last(self, model: nn.Module, shape: tuple[int, int, int]) -> bool:
        """Tell if a network is trained in the channels-last format.

        Args:
            model: The network, which is left as it is.
            shape: (C, H, W) of the images.

        Returns:
            True if so.
        """
        return self.channels_last or (self.device.type == "cpu" and _runs_in_channels_last(model, shape))

    def set_tf32(self) -> None:
        """Allow TF32 on a GPU, or forbid it, for the process as a whole."""
        if self.device.type == "cuda":
            torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = self.tf32

    def place(self, split: Split, device: torch.device) -> Split:
        """Move a split to a device if it is in memory and not too large.

        Args:
            split: The split.
            device: The device.

        Returns:
            The split on ``device``, or itself.
        """
        return split.placed(device, self.memory_gb)

    def check_memory(self, model: nn.Module, data: ImageData, batch_size: int, at_once: int = 1) -> None:
        """Refuse trainings that cannot fit the memory of the device.

        Args:
            model: The network.
            data: Images, with training and validation splits.
            batch_size: Number of images in a step, those of all processes together.
            at_once: Number of trainings on the device at a time.

        Raises:
            InputError: If they need more than there is.
        """
        check_memory(
            model,
            data,
            -(-batch_size // self.processes),
            self.device,
            at_once=at_once,
            memory_gb=self.memory_gb,
            in_16_bits="16" in self.precision,
        )

    def served(self, batches: Batches, device: torch.device) -> Iterable[tuple[Tensor, Tensor]]:
        """Cut batches of a split in memory where it lies; have those of image files read by worker processes.

        Args:
            batches: The batches.
            device: Device that they go to.

        Returns:
            Images (B, C, H, W) and labels (B,) of each batch; those from files are not on the device yet.
        """
        if batches.split.bytes is not None:
            return batches
        on_gpu = device.type == "cuda"
        return DataLoader(batches, batch_size=None, num_workers=self.workers, pin_memory=on_gpu)  # type: ignore[arg-type]


def _runs_in_channels_last(model: nn.Module, shape: tuple[int, int, int]) -> bool:
    """Try a network that has convolutions on two images, as one that calls `Tensor.view` may fail."""
    if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
        return False
    images = torch.zeros(2, *shape).contiguous(memory_format=torch.channels_last)
    with torch.random.fork_rng(devices=()), torch.enable_grad():
        try:
            network = copy.deepcopy(model).cpu().float().train().to(memory_format=torch.channels_last)
            logits_of(network(images)).sum().backward()  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError):
            return False
    return True


class Means:
    """Means over the images of an epoch, added up on the device.

    Logging every step would cost more than the step of a small network, and reading a value would wait for the GPU.

    Example:
        >>> means = cpath.training.Means()
        >>> means.add("loss", torch.tensor(1.0), images=3)
        >>> means.add("loss", torch.tensor(2.0), images=1)
        >>> means.values()["loss"].item()
        1.25
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._images: dict[str, int] = {}

    def add(self, name: str, mean: Tensor, images: int) -> None:
        """Add the mean over a batch.

        Args:
            name: Name of the quantity.
            mean: Its mean over the batch, a number or one for each of several networks.
            images: Number of images in the batch.
        """
        self._sums[name] = self._sums.get(name, 0.0) + mean * images
        self._images[name] = self._images.get(name, 0) + images

    def values(self) -> dict[str, Tensor]:
        """Divide by the number of images.

        Returns:
            Means by name.
        """
        return {name: total / self._images[name] for name, total in self._sums.items()}


def hit_rate(output: object, labels: Tensor) -> Tensor:
    """Compute the accuracy on a batch.

    Args:
        output: Output of a classifier, see `cpath.response`.
        labels: Labels (B,).

    Returns:
        Per cent of the images that are classified correctly.

    Example:
        >>> cpath.training.hit_rate(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.tensor([1, 1])).item()
        50.0
    """
    raw = raw_logits(output)
    assert isinstance(raw, Tensor)  # as the loss needs them
    hits = predicted(raw) == labels
    return 100.0 * hits.to(widest(labels.device)).mean()


class Classifier(pl.LightningModule):
    """Classifier for Lightning that logs its losses, and the accuracy on validation images in per cent.

    The augmentation of an epoch, and all other random draws of the network, depend on nothing but the seed and the
    number of the epoch: a resumed training goes on exactly as it would have done uninterrupted.

    Args:
        model: The network.
        recipe: Settings of the training.
        seed: Seed of all random draws.
        channels_last: Convert images to the channels-last format.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, seed: int = 0, *, channels_last: bool = False) -> None:
        super().__init__()
        self.model = model
        self.recipe, self.seed = recipe, seed
        self.format = torch.channels_last if channels_last else torch.contiguous_format
        self._means = Means()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (B, classes); of a network with one logit z, (−z/2, z/2)."""
        return logits_of(self._output(images))

    def _output(self, images: Tensor) -> object:
        if self.format == torch.channels_last:
            return self.model(images.contiguous(memory_format=torch.channels_last))
        # Of one channel, images in channels-last count as contiguous too, and convolutions would keep that format.
        return self.model(images.contiguous().flatten(1).view(images.shape))

    def on_train_epoch_start(self) -> None:
        """Seed all draws from the seed, the epoch and the rank."""
        seed = epoch_seed(self.seed, self.current_epoch) + 7919 * self.global_rank
        torch.manual_seed(seed)
        self._draws = drawing(seed, self.device)  # not before: processes start by pickling
        self._means = Means()

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        """Compute the loss of a batch."""
        images, labels = batch
        loss = self.recipe.loss(self(self.recipe.augmented(images, self._draws)), labels)
        self._means.add("loss", loss.detach(), len(labels))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        """Add up losses and correct answers."""
        images, labels = batch
        output = self._output(images)
        self._means.add("val_loss", self.recipe.loss(logits_of(output), labels), len(labels))
        self._means.add("val_accuracy", hit_rate(output, labels), len(labels))

    def on_validation_epoch_end(self) -> None:
        """Log the means over the images of the epoch. All processes take those of the first one."""
        figures = {name: value.to(widest(self.device)) for name, value in self._means.values().items()}
        self.log_dict({name: self.trainer.strategy.broadcast(value) for name, value in figures.items()})
        self._means = Means()

    def configure_optimizers(self) -> Any:
        """Make the optimizer, and the scheduler that is stepped after every epoch."""
        optimizer = self.recipe.optimizer(self.parameters())
        if self.recipe.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.recipe.scheduler(optimizer)}


def epoch_seed(seed: int, epoch: int) -> int:
    """Derive the seed of an epoch: of its order, its augmentation and the network's own draws.

    Args:
        seed: Seed of the training.
        epoch: Number of the epoch, from 0.

    Returns:
        The seed.

    Example:
        >>> cpath.training.epoch_seed(2, epoch=5)
        2000011
    """
    return seed * 1_000_003 + epoch


def drawing(seed: int, device: torch.device) -> torch.Generator:
    """Make the generator of an epoch's augmentation, which does not repeat the numbers of its order.

    Args:
        seed: Seed of the epoch.
        device: Device of the images.

    Returns:
        The generator.

    Example:
        >>> cpath.training.drawing(3, torch.device("cpu")).initial_seed()
        4
    """
    return torch.Generator(device).manual_seed(seed + 1)


class ImageModule(pl.LightningDataModule):
    """Training and validation batches of a dataset, original or altered, in an order that changes with the epoch.

    A split in memory is moved to the device as a whole and cut there; files are read by worker processes.

    Args:
        data: The dataset.
        recipe: Settings of the training.
        seed: Seed of the order.
        hardware: Settings of the hardware.

    Raises:
        InputError: If the dataset has no training images.
    """

    def __init__(self, data: ImageData, recipe: Recipe, seed: int, hardware: Hardware) -> None:
        super().__init__()
        self.train, self.val = data.training_splits()
        self.recipe, self.seed, self.hardware = recipe, seed, hardware

    def setup(self, stage: str) -> None:
        """Move splits that are in memory to the device."""
        device = self._trainer.strategy.root_device
        self.train, self.val = (self.hardware.place(split, device) for split in (self.train, self.val))

    def train_dataloader(self) -> Any:
        """Make the batches of the trainer's current epoch."""
        trainer = self._trainer
        seed = epoch_seed(self.seed, trainer.current_epoch)
        return self._served(
            Batches(
                self.train,
                self.recipe.batch_size,
                seed=seed,
                rank=trainer.global_rank,
                ranks=trainer.world_size,
            )
        )

    def val_dataloader(self) -> Any:
        """Make the batches of validation images, in order and all of them in every process."""
        return self._served(Batches(self.val, 4 * self.recipe.batch_size))

    @property
    def _trainer(self) -> pl.Trainer:
        assert self.trainer is not None
        return self.trainer

    def _served(self, batches: Batches) -> Any:
        return self.hardware.served(batches, self._trainer.strategy.root_device)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Keep the usual effect of Ctrl-C: Lightning exits with 1 and has the process ignore any further one."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, handler)
        raise KeyboardInterrupt from None


@contextmanager
def by_itself(hardware: Hardware) -> Iterator[None]:
    """Restore everything that a training sets for the process as a whole, at the end of a ``with`` block.

    Later computations then have the same bits as after loading the finished training.

    Args:
        hardware: Settings of the hardware.

    Returns:
        A context manager.
    """
    on_gpu, cudnn = hardware.device.type == "cuda", torch.backends.cudnn
    benchmark = cudnn.benchmark
    precision, tf32 = (torch.get_float32_matmul_precision(), cudnn.allow_tf32) if on_gpu else ("", False)
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    seeds = {name: os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")}
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    used = on_gpu or torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    gpus = range(torch.cuda.device_count()) if used else ()
    try:
        # Lightning switches gradients on and leaves them so; under no_grad() there would be none to begin with.
        with torch.random.fork_rng(gpus), torch.enable_grad():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        cudnn.benchmark = benchmark
        if on_gpu:  # elsewhere they were not set
            torch.set_float32_matmul_precision(precision)
            cudnn.allow_tf32 = tf32
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for name, seed in seeds.items():
            if seed is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = seed


def train(
    model: nn.Module,
    data: ImageData,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    hardware: Hardware | None = None,
    name: str = "training",
    quiet: bool | None = None,
    position: int = 0,
    callbacks: tuple[pl.Callback, ...] = (),
) -> list[dict[str, float]]:
    """Train a model, and leave it on the CPU with the weights of the best validation epoch.

    Of equally good epochs the first is taken. Random states and settings of the process as a whole are left as
    they were.

    Args:
        model: The network, changed in place.
        data: Images, with training and validation splits.
        recipe: Settings that decide the weights.
        folder: Folder of the checkpoints. An interrupted training that it holds is resumed.
        seed: Seed of order, augmentation and the network's own draws. The initial weights are the model's.
        hardware: Settings of the hardware; None for one process on the CPU.
        name: Text in front of the progress bar.
        quiet: Hide the progress bar; None to log a line every ten seconds instead of it if there is no terminal.
        position: Line of the progress bar.
        callbacks: Further callbacks of Lightning.

    Returns:
        For every epoch its number, the losses and the validation accuracy in per cent.

    Raises:
        InputError: If there is nothing to train on, the processes cannot share a batch evenly, or the memory of the
            device is too small.
        TrainingError: If the loss becomes NaN or infinite.

    Example:
        >>> from functools import partial
        >>> data = cpath.data.digits(size=8)
        >>> recipe = cpath.training.Recipe(epochs=1, batch_size=256, optimizer=partial(torch.optim.Adam, lr=0.01))
        >>> network = cpath.models.resnet8_narrow(10, data.shape, width=2)
        >>> (row,) = cpath.training.train(network, data, recipe, folder, quiet=True)
        >>> sorted(row)
        ['epoch', 'loss', 'val_accuracy', 'val_loss']
    """
    hardware = hardware or Hardware()
    if recipe.batch_size % hardware.processes:
        raise InputError(
            f"a batch of {recipe.batch_size} images cannot be shared evenly by {hardware.processes} processes: "
            "change Recipe.batch_size (recipe.batch_size) or Hardware.processes (trainer.processes)."
        )
    batches = ImageModule(data, recipe, seed, hardware)
    hardware.check_memory(model, data, recipe.batch_size)
    channels_last = hardware.in_channels_last(model, data.shape)
    network = copy.deepcopy(model).train()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    if hardware.compile:
        network.compile()  # in place: the names of the weights stay
    best = ModelCheckpoint(
        folder, filename="best", monitor="val_accuracy", mode="max", enable_version_counter=False
    )
    # After every epoch, behind `best` so that it knows of it; `save_last` would only follow the best epochs.
    latest = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    bar = ProgressBar(Progress(recipe.epochs, name, quiet, position))
    last = folder / "last.ckpt"
    with warnings.catch_warnings(), by_itself(hardware), _interruptible():
        for message in _HINTS:
            warnings.filterwarnings("ignore", message=message)
        for logger in _LOGGERS:  # hints on devices and products would bury the progress bar
            logging.getLogger(logger).setLevel(logging.WARNING)
        pl.seed_everything(seed, workers=True, verbose=False)
        fit = pl.Trainer(
            max_epochs=recipe.epochs,
            callbacks=[History(), bar, *callbacks, best, latest],
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,  # the training order is the epoch's own
            use_distributed_sampler=False,  # `Batches` gives each process its share
            **_trainer_settings(hardware),
        )
        fit.fit(
            Classifier(network, recipe, seed, channels_last=channels_last),
            datamodule=batches,
            ckpt_path=str(last) if last.exists() else None,
            weights_only=True,
        )
    # From files, since the processes of a distributed training have ended.
    state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    model.load_state_dict({key.removeprefix("model."): tensor for key, tensor in state.items()})
    model.cpu().eval()
    history = torch.load(last, map_location="cpu", weights_only=True)["callbacks"][History.state_key]
    rows: list[dict[str, float]] = history["rows"]
    return rows


def _trainer_settings(hardware: Hardware) -> dict[str, Any]:
    on_gpu = hardware.device.type == "cuda"
    hardware.set_tf32()
    settings: dict[str, Any] = {
        "accelerator": "gpu" if on_gpu else "cpu",
        "precision": hardware.precision,
        "benchmark": on_gpu,  # all batches but the last have one shape
        # Lightning must not take its processes from Slurm, inside a Slurm job either.
        "plugins": [LightningEnvironment(), WholeFiles()],
    }
    if hardware.processes == 1:
        return {**settings, "devices": [hardware.device.index or 0] if on_gpu else 1}
    # Spawned, because processes that run the same command again would wait for the lock of the trained model.
    return {
        **settings,
        "devices": hardware.processes,
        "strategy": "ddp_spawn",
        "sync_batchnorm": on_gpu and hardware.sync_batchnorm,
    }
