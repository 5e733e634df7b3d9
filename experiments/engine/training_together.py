"""Several trainings computed together (`cpath.stacked`), each of which leaves a cache entry of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from torch import nn

from cpath.checks import within_memory
from cpath.data import ImageData
from cpath.errors import InputError
from experiments.engine.cache import Cache, Entry, Key, digest
from experiments.engine.config import Config
from experiments.engine.devices import hardware_of
from experiments.engine.training import leave_results, recipe_of


@dataclass(frozen=True)
class Training:
    """One of several trainings that are computed together, of the same network by the same recipe."""

    key: Key
    """Identity of what it leaves."""
    config: Config
    """Recipe, trainer and seed; only the seed differs from that of the others."""
    data: ImageData
    """Training, validation and test images."""
    keep_model: bool
    """True if the weights are of use later."""


def reason_against(config: Config, data: ImageData, model: nn.Module) -> str | None:
    """Say why trainings cannot be computed together.

    Args:
        config: recipe and trainer.
        data: of any of them.
        model: the untrained network.

    Returns:
        A sentence; None where they can.
    """
    from cpath.stacked import check_stackable

    try:
        check_stackable(model, recipe_of(config), data.shape, hardware_of(config))
    except InputError as error:
        return str(error)
    return None


def train_together(
    trainings: Sequence[Training], cache: Cache, make: Callable[[Config, ImageData], nn.Module], position: int = 0
) -> dict[str, Exception]:
    """Train several networks at once, each into its own entry, as far as that was not done before.

    An interruption loses no finished entry; the others go on from the last checkpoint that they wrote together, if
    the same ones are asked for again.

    Args:
        trainings: which can be computed together (`reason_against`).
        cache: holds the entries.
        make: builds the untrained network of a configuration.
        position: row of the progress bar.

    Returns:
        The errors of those that failed while the others went on, by the name of their key.
    """
    failed: dict[str, Exception] = {}
    with ExitStack() as every:
        missing = []
        # In one order everywhere, so that no two processes wait for each other.
        for training in sorted(trainings, key=lambda one: one.key.name):
            closing = every.enter_context(ExitStack())
            entry = closing.enter_context(cache.entry(training.key))
            if entry.missing:
                entry.scratch = ("*.ckpt",)
                missing.append((training, entry, closing))
        if not missing:
            return failed
        results = _trained_together([(training, entry) for training, entry, _ in missing], make, position)
        for (training, _, closing), leave_its in zip(missing, results, strict=True):
            try:
                with closing.pop_all():  # which marks the entry as finished, or as failed
                    leave_its()
            except Exception as error:  # of this one alone
                failed[training.key.name] = error
    return failed


def _trained_together(
    missing: Sequence[tuple[Training, Entry]], make: Callable[[Config, ImageData], nn.Module], position: int
) -> list[Callable[[], None]]:
    """Train networks at once, and give for each what writes its results, or raises its error."""
    from cpath.stacked import Member, train_stacked

    config = missing[0][0].config
    hardware, recipe = hardware_of(config), recipe_of(config)
    members = [Member(make(one.config, one.data), one.data, one.config.seed, one.key.label) for one, _ in missing]
    # Others of these entries may be finished by the time that this is taken up again: then it begins anew.
    file = missing[0][1].folder / f"together-{digest([one.key.name for one, _ in missing])}.ckpt"
    name = f"{len(members)} cells at once"
    with within_memory("train fewer cells at once (experiment.stacked=…)"):
        results = train_stacked(members, recipe, file, hardware=hardware, name=name, position=position)

    def leave(number: int) -> None:
        (training, entry), result = missing[number], results[number]
        if isinstance(result, Exception):
            raise result
        model = members[number].model
        leave_results(entry, model, training.data, result, hardware.device, keep_model=training.keep_model)

    return [partial(leave, number) for number in range(len(members))]
