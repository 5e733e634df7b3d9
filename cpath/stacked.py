"""Training of several networks at once, as one network whose weights have one more dimension.

The steps of a small network leave most of a GPU idle. Trainings that differ in nothing but their images, their seed
and their initial weights are therefore computed together: `torch.vmap` makes one operation of those of all networks
(a convolution in groups, a product of batches of matrices), and one optimizer steps all weights. Each network keeps
its own statistics of batch normalisation, order of images and augmentation, so that it becomes what
`cpath.training.train` makes of it alone, up to rounding.

This needs networks that `torch.vmap` can run and that draw nothing at random, and an optimizer that changes every
weight by its own gradient alone; `check_stackable` says what stands in the way.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from cpath.callbacks import Progress, WholeFiles, check_loss
from cpath.checks import without_vmap_warnings
from cpath.data import Batches, ImageData, Split
from cpath.devices import widest
from cpath.errors import InputError, TrainingError
from cpath.response import logits_of
from cpath.training import Hardware, Means, Recipe, by_itself, drawing, epoch_seed, hit_rate

_LOG = logging.getLogger(__name__)
_EVERY = 30.0  # seconds between two checkpoints: those of many networks are large

# Exactly these classes: one that is derived from them may do anything.
_ELEMENTWISE = (
    *(torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam),
    *(torch.optim.Adamax, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.RMSprop),
    *(torch.optim.Rprop, torch.optim.ASGD),
)
_PRECISIONS = ("32-true", "64-true", "bf16-mixed")


@dataclass(frozen=True)
class Member:
    """One of the trainings that are computed together.

    Args:
        model: The network, which is left on the CPU with the weights of its best validation epoch.
        data: Images, with training and validation splits.
        seed: Seed of order and augmentation.
        name: Name in messages.
    """

    model: nn.Module
    data: ImageData
    seed: int
    name: str = "training"


class _Stack:
    """Networks of one kind, with all weights and buffers stacked along a new first dimension."""

    def __init__(self, models: Sequence[nn.Module], recipe: Recipe, hardware: Hardware) -> None:
        self.recipe, self.hardware = recipe, hardware
        self.channels_last = hardware.channels_last or hardware.device.type == "cpu"
        self.dtype = torch.float64 if hardware.precision == "64-true" else None
        copies = [copy.deepcopy(model).train().to(device=hardware.device, dtype=self.dtype) for model in models]
        self.network = copies[0]
        self.parameters, self.buffers = stack_module_state(copies)

    def losses(self, images: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
        """Training loss of each network on its own batch."""
        self.network.train()
        losses: Tensor = self._run(self._loss, images, labels)
        return losses

    @torch.no_grad()
    def validate(self, images: Sequence[Tensor], labels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and per cent of hits of each network on its own batch."""
        self.network.eval()
        found: tuple[Tensor, Tensor] = self._run(self._loss_and_hits, images, labels)
        return found

    def _run(self, work: Callable[..., Any], images: Sequence[Tensor], labels: Sequence[Tensor]) -> Any:
        of_all = torch.vmap(work, in_dims=(0, 0, 1, 0))
        with self._arithmetic(), without_vmap_warnings():
            return of_all(self.parameters, self.buffers, self._stacked(images), torch.stack(list(labels)))

    def _output(self, parameters: Any, buffers: Any, images: Tensor) -> Any:
        return functional_call(self.network, (parameters, buffers), (images,))

    def _loss(self, parameters: Any, buffers: Any, images: Tensor, labels: Tensor) -> Tensor:
        return self.recipe.loss(logits_of(self._output(parameters, buffers, images)), labels)

    def _loss_and_hits(
        self, parameters: Any, buffers: Any, images: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        output = self._output(parameters, buffers, images)
        return self.recipe.loss(logits_of(output), labels), hit_rate(output, labels)

    def _arithmetic(self) -> AbstractContextManager[object]:
        if self.hardware.precision != "bf16-mixed":
            return nullcontext()
        return torch.autocast(self.hardware.device.type, torch.bfloat16, cache_enabled=False)

    def _stacked(self, images: Sequence[Tensor]) -> Tensor:
        """Batches as (B, networks, C, H, W), laid out as the groups of channels that a convolution will see."""
        if self.channels_last:
            return torch.stack([batch.permute(0, 2, 3, 1) for batch in images], 3).permute(0, 3, 4, 1, 2)
        return torch.stack(list(images), 1)

    def tensors(self) -> dict[str, Tensor]:
        """All weights and buffers by name."""
        return {**self.parameters, **self.buffers}


def _unstack(tensors: dict[str, Tensor], number: int, model: nn.Module) -> None:
    """Give a model its weights and buffers, and leave it on the CPU in eval mode."""
    model.cpu().eval()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            tensor.copy_(tensors[name][number])


def check_stackable(
    model: nn.Module, recipe: Recipe, shape: Sequence[int], hardware: Hardware | None = None
) -> None:
    """Check that several trainings of a network can be computed together, by a step of two of them.

    Args:
        model: The network, which is left as it is.
        recipe: Settings that decide the weights.
        shape: (C, H, W) of the images.
        hardware: Settings of the hardware; None for the CPU.

    Raises:
        InputError: If they cannot, with the reason.

    Example:
        >>> recipe = cpath.training.Recipe(epochs=1, batch_size=64, optimizer=torch.optim.LBFGS)
        >>> try:
        ...     cpath.stacked.check_stackable(cpath.models.resnet8_narrow(10, width=2), recipe, (3, 32, 32))
        ... except cpath.InputError as error:
        ...     print(error)
        trainings cannot be computed together: LBFGS may change a weight by the gradients of others.
    """
    hardware = hardware or Hardware()
    reason = (
        _settings_against(hardware) or _optimizer_against(model, recipe) or _network_against(model, recipe, shape)
    )
    if reason is not None:
        raise InputError(f"trainings cannot be computed together: {reason}.")


def _settings_against(hardware: Hardware) -> str | None:
    if hardware.processes > 1:
        return "each of them is spread over several processes (trainer.processes)"
    if hardware.compile:
        return "their steps are compiled one by one (trainer.compile=true)"
    if hardware.precision not in _PRECISIONS:
        return f"trainer.precision={hardware.precision} is not one of {', '.join(_PRECISIONS)}"
    return None


def _optimizer_against(model: nn.Module, recipe: Recipe) -> str | None:
    """Find what keeps one optimizer from stepping the weights of several networks as their own would."""
    alone = list(model.parameters())
    stacked = [weight.detach()[None].clone().requires_grad_(weight.requires_grad) for weight in alone]
    one, other = (recipe.optimizer(iter(weights)) for weights in (alone, stacked))
    if type(one) not in _ELEMENTWISE:
        return f"{type(one).__name__} may change a weight by the gradients of others"
    if _groups(one, alone) != _groups(other, stacked):
        return "the optimizer's groups of parameters depend on the shapes of these"
    return None


def _groups(optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> list[dict[str, Any]]:
    places = {id(parameter): place for place, parameter in enumerate(parameters)}
    return [
        {**group, "params": [places.get(id(one)) for one in group["params"]]} for group in optimizer.param_groups
    ]


def _network_against(model: nn.Module, recipe: Recipe, shape: Sequence[int]) -> str | None:
    """Find what keeps networks from running as one: try a batch of noise, against the network alone."""
    model = copy.deepcopy(model).cpu().float().train()
    draws = torch.Generator().manual_seed(0)
    images, labels = torch.randn(2, 2, *shape, generator=draws), torch.zeros(2, 2, dtype=torch.long)
    with torch.random.fork_rng(devices=()), torch.enable_grad():
        try:
            stack = _Stack([model, model], recipe, Hardware())
            together = stack.losses(list(images), list(labels))
            together.sum().backward()  # type: ignore[no-untyped-call]
        except Exception as error:  # of vmap, or of any module under it
            return f"torch.vmap cannot run the network ({str(error).strip().splitlines()[0].rstrip('.')})"
        found = [together[0].detach(), *(tensor[0].detach().double() for tensor in stack.tensors().values())]
        loss = recipe.loss(logits_of(model(images[0])), labels[0]).detach()
        expected = [loss, *(tensor.detach().double() for tensor in (*model.parameters(), *model.buffers()))]
    if not all(torch.allclose(*pair, rtol=1e-3, atol=1e-5) for pair in zip(found, expected, strict=True)):
        return "under torch.vmap the network gives other numbers than alone"
    return None


@dataclass
class _State:
    """Everything that a stopped training goes on from, beside the seeds."""

    stack: _Stack
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    best: dict[str, Tensor]
    """Weights and buffers of the best validation epoch of each network."""
    accuracy: Tensor
    """Validation accuracy of that epoch (networks,), per cent."""
    rows: list[list[dict[str, float]]]
    """Losses and validation accuracy of each network, by epoch."""
    errors: dict[int, str] = field(default_factory=dict)
    """Messages of the networks whose training has failed, by their number."""

    @property
    def epoch(self) -> int:
        return max(map(len, self.rows))

    def keep_best(self, accuracy: Tensor) -> None:
        """Take the weights of the networks that were never better. Of equally good epochs the first stays."""
        better = accuracy > self.accuracy
        for name, tensor in self.stack.tensors().items():
            chosen = better.view(-1, *[1] * (tensor.dim() - 1))
            self.best[name] = torch.where(chosen, tensor.detach(), self.best[name])
        self.accuracy = torch.where(better, accuracy, self.accuracy)

    def save(self, file: Path) -> None:
        parts = {"optimizer": self.optimizer.state_dict()}
        if self.scheduler is not None:
            parts["scheduler"] = self.scheduler.state_dict()
        tensors = {name: tensor.detach() for name, tensor in self.stack.tensors().items()}
        progress = {"best": self.best, "accuracy": self.accuracy, "rows": self.rows, "errors": self.errors}
        WholeFiles().save_checkpoint({"tensors": tensors, **progress, **parts}, file)

    def load(self, file: Path) -> None:
        saved = torch.load(file, map_location=self.stack.hardware.device, weights_only=True)
        with torch.no_grad():
            for name, tensor in self.stack.tensors().items():
                tensor.copy_(saved["tensors"][name])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        self.best, self.accuracy = saved["best"], saved["accuracy"]
        self.rows, self.errors = saved["rows"], saved["errors"]


def _start(members: Sequence[Member], recipe: Recipe, hardware: Hardware) -> _State:
    stack = _Stack([member.model for member in members], recipe, hardware)
    optimizer = recipe.optimizer(iter(stack.parameters.values()))
    return _State(
        stack,
        optimizer,
        None if recipe.scheduler is None else recipe.scheduler(optimizer),
        {name: tensor.detach().clone() for name, tensor in stack.tensors().items()},
        torch.full((len(members),), -math.inf, dtype=widest(hardware.device), device=hardware.device),
        [[] for _ in members],
    )


def train_stacked(
    members: Sequence[Member],
    recipe: Recipe,
    checkpoint: Path,
    *,
    hardware: Hardware | None = None,
    name: str = "training",
    quiet: bool | None = None,
    position: int = 0,
) -> list[list[dict[str, float]] | TrainingError]:
    """Train several networks of one kind at once, each as `cpath.training.train` trains it alone, up to rounding.

    A network whose loss becomes NaN leaves the others as they are.

    Args:
        members: The trainings, with equally many images each.
        recipe: Settings that decide the weights, the same for all.
        checkpoint: File that an interrupted training of these members goes on from. It is written after an epoch,
            at most every half a minute.
        hardware: Settings of the hardware; None for the CPU.
        name: Text in front of the progress bar.
        quiet: Hide the progress bar; None to log a line every ten seconds instead of it if there is no terminal.
        position: Line of the progress bar.

    Returns:
        For each member its numbers by epoch, as `cpath.training.train` gives them, or the error that ended it.

    Raises:
        InputError: If the members cannot be trained together, or the memory of the device is too small.

    Example:
        >>> data = cpath.data.digits(size=8)
        >>> recipe = cpath.training.Recipe(epochs=1, batch_size=256, optimizer=torch.optim.Adam)
        >>> networks = [cpath.models.resnet8_narrow(10, data.shape, width=2) for _ in range(2)]
        >>> members = [cpath.stacked.Member(network, data, seed) for seed, network in enumerate(networks)]
        >>> rows = cpath.stacked.train_stacked(members, recipe, folder / "both.ckpt", quiet=True)
        >>> [sorted(row) for (row,) in rows]
        [['epoch', 'loss', 'val_accuracy', 'val_loss'], ['epoch', 'loss', 'val_accuracy', 'val_loss']]
    """
    hardware = hardware or Hardware()
    splits = [[hardware.place(split, hardware.device) for split in one.data.training_splits()] for one in members]
    if len({(one.data.shape, *map(len, both)) for one, both in zip(members, splits, strict=True)}) != 1:
        raise InputError("trainings can be computed together only if all have equally many images of one shape.")
    check_stackable(members[0].model, recipe, members[0].data.shape, hardware)
    hardware.check_memory(members[0].model, members[0].data, recipe.batch_size, len(members))
    bar = Progress(recipe.epochs, name, quiet, position)
    with by_itself(hardware):
        hardware.set_tf32()
        torch.backends.cudnn.benchmark = hardware.device.type == "cuda"  # all batches but the last have one shape
        state = _start(members, recipe, hardware)
        if checkpoint.exists():
            state.load(checkpoint)
        training, validation = zip(*splits, strict=True)
        bar.begin(state.epoch, len(Batches(training[0], recipe.batch_size)))
        saved = time.monotonic()
        while state.epoch < recipe.epochs and len(state.errors) < len(members):
            _train_epoch(state, members, training, validation, bar)
            if time.monotonic() - saved >= _EVERY and state.epoch < recipe.epochs:
                state.save(checkpoint)
                saved = time.monotonic()
        bar.close()
    for number, member in enumerate(members):
        _unstack(state.best, number, member.model)
    return [
        TrainingError(state.errors[number]) if number in state.errors else rows
        for number, rows in enumerate(state.rows)
    ]


def _train_epoch(
    state: _State, members: Sequence[Member], training: Sequence[Split], validation: Sequence[Split], bar: Progress
) -> None:
    """Train all networks for an epoch, validate them, and note what came of it."""
    stack, recipe, epoch, means = state.stack, state.stack.recipe, state.epoch, Means()
    device = stack.hardware.device
    seeds = [epoch_seed(member.seed, epoch) for member in members]
    draws = [drawing(seed, device) for seed in seeds]
    orders = [Batches(one, recipe.batch_size, seed=seed) for one, seed in zip(training, seeds, strict=True)]
    for batch, labels in _together(stack, orders):
        images = [recipe.augmented(one, its) for one, its in zip(batch, draws, strict=True)]
        losses = stack.losses(images, labels)
        state.optimizer.zero_grad()
        losses.sum().backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        means.add("loss", losses.detach(), len(labels[0]))
        bar.step()
    if state.scheduler is not None:
        state.scheduler.step()
    for batch, labels in _together(stack, [Batches(one, 4 * recipe.batch_size) for one in validation]):
        for quantity, values in zip(("val_loss", "val_accuracy"), stack.validate(batch, labels), strict=True):
            means.add(quantity, values, len(labels[0]))
    _note(state, means, members)
    if alive := [rows[-1]["val_accuracy"] for number, rows in enumerate(state.rows) if number not in state.errors]:
        bar.end_epoch(state.epoch, f"{min(alive):.1f} to {max(alive):.1f}")


def _together(stack: _Stack, batches: Sequence[Batches]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Batches of all members at a time, on the device and in the type of the weights."""
    device = stack.hardware.device
    served: list[Iterable[tuple[Tensor, Tensor]]] = [stack.hardware.served(one, device) for one in batches]
    for parts in zip(*served, strict=True):
        images, labels = zip(*parts, strict=True)
        yield (
            [one.to(device=device, dtype=stack.dtype, non_blocking=True) for one in images],
            [one.to(device, non_blocking=True) for one in labels],
        )


def _note(state: _State, means: Means, members: Sequence[Member]) -> None:
    """Write down the numbers of an epoch: the only place where the device is waited for."""
    figures = {name: values.to(widest(values.device)) for name, values in means.values().items()}
    state.keep_best(figures["val_accuracy"])
    by_network = {name: values.tolist() for name, values in figures.items()}
    epoch = state.epoch
    for number, rows in enumerate(state.rows):
        if number in state.errors:
            continue
        row = {name: values[number] for name, values in by_network.items()}
        try:
            check_loss(row["loss"], epoch + 1)
        except TrainingError as error:
            state.errors[number] = f"{members[number].name}: {error}"
            _LOG.warning("%s The others go on.", state.errors[number])
        else:
            rows.append({"epoch": float(epoch), **row})
