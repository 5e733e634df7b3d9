"""Cells that are trained side by side, in worker processes that share a GPU, several GPUs, or the cores of a CPU.

A small network leaves most of a GPU idle, and its steps wait for Python; several processes fill it. Each cell is a
cache entry of its own, so that whatever ends a process loses no more than the epoch that it was in.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from omegaconf import OmegaConf
from tqdm.auto import tqdm

from cpath.errors import CpathError, InputError
from experiments.engine.config import Config, parse
from experiments.engine.devices import device_of, devices_of, sweep_number
from experiments.engine.job import Job
from experiments.roar.cells import Cell, Fill, History, Retrainings
from experiments.roar.ranks import Ranks

_LOG = logging.getLogger(__name__)
_A_GPU, _AT_MOST = 8, 16  # processes that fill one GPU; most that ``auto`` starts on a CPU


def process_count(config: Config, asked: int | Literal["auto"]) -> int:
    """Number of processes that train cells.

    Args:
        config: names the device and the trainer.
        asked: a number, or ``auto``: eight for each GPU, one for each core of a CPU, and one alone within a sweep.

    Returns:
        The number, at least 1.

    Raises:
        InputError: if several are asked for, and one training takes several processes already.
    """
    if config.trainer.processes > 1:
        if asked not in ("auto", 1):
            raise InputError("trainer=ddp trains one cell over all devices: leave out experiment.side_by_side.")
        return 1
    if asked != "auto":
        return asked
    if sweep_number() is not None:
        return 1
    if device_of(config).type == "cuda":
        gpus = torch.cuda.device_count() if config.device == "auto" else 1
        return max(1, min(_A_GPU * gpus, (os.cpu_count() or 1)))
    return min(_AT_MOST, torch.get_num_threads())


@dataclass(frozen=True)
class Speed:
    """Work that was done now, all processes together."""

    cells_trained: int
    """Cells that were not trained before."""
    seconds: float
    """Time on the clock, also of what was only read."""
    images: int
    """Training images, counted in every epoch."""

    @classmethod
    def of(cls, parts: Sequence[Speed]) -> Speed:
        """Add up what was done one after the other.

        Args:
            parts: of several tables.

        Returns:
            The whole.
        """
        return cls(
            sum(part.cells_trained for part in parts),
            sum(part.seconds for part in parts),
            sum(part.images for part in parts),
        )

    @property
    def images_per_second(self) -> float:
        """Training images a second."""
        return self.images / self.seconds

    @property
    def noted(self) -> dict[str, float]:
        """Numbers for a manifest."""
        return {
            "cells_trained": self.cells_trained,
            "seconds": round(self.seconds, 3),
            "training_images_per_second": round(self.images_per_second, 1),
        }


def train_cells(
    retrainings: Retrainings, cells: Sequence[Cell], processes: int, stacked: int = 1
) -> tuple[dict[Cell, History], Speed]:
    """Train cells, as far as that was not done before.

    A cell that fails leaves the others. Settings that are unusable, and a full disk, stop all at once; finished
    cells stay.

    Args:
        retrainings: trains cells.
        cells: all cells of a table.
        processes: number of worker processes; 1 for this process alone.
        stacked: number of cells that a process trains at once, where nothing is against it.

    Returns:
        The result of every cell, and the speed.

    Raises:
        InputError: if the cells that are trained at a time cannot fit the memory of a device.
        CpathError: if cells have failed, when all others are done.
    """
    begin = time.perf_counter()
    missing = [cell for cell in cells if not retrainings.is_trained(cell)]
    groups = _groups(retrainings, missing, processes, stacked)
    processes = min(processes, len(groups))
    if missing:
        on_one = max(Counter(devices_of(retrainings.config, processes)).values())
        retrainings.check_memory(missing[0], on_one * len(groups[0]))
    with tqdm(total=len(cells), initial=len(cells) - len(missing), desc="table", unit="cell", disable=None) as bar:
        if processes > 1:
            failed = _train_in_workers(retrainings, groups, processes, bar)
        else:
            failed = {}
            for group in groups:
                failed |= retrainings.train(group, position=1)
                bar.update(len(group))
    if failed:
        raise _error_of(failed) from next(iter(failed.values()))
    found = {cell: retrainings.history(cell) for cell in cells}
    seconds = time.perf_counter() - begin
    images = len(retrainings.data.training_splits()[0]) * sum(len(found[cell].epochs) for cell in missing)
    return found, Speed(len(missing), seconds, images)


def _groups(retrainings: Retrainings, cells: Sequence[Cell], processes: int, stacked: int) -> list[Sequence[Cell]]:
    """Cells that are trained at once. No process is left without a group for the sake of larger ones."""
    size = min(stacked, -(-len(cells) // processes))
    if size > 1 and (reason := retrainings.reason_against_several(cells)) is not None:
        _LOG.warning("%s Cells are trained one by one, as with experiment.stacked=1.", reason)
        size = 1
    return [cells[start : start + size] for start in range(0, len(cells), max(1, size))]


def _error_of(failed: Mapping[Cell, Exception]) -> CpathError:
    """One error for several cells."""
    told = [f"{cell.label}: {error}" for cell, error in failed.items()]
    return CpathError(
        f"{len(failed)} of the cells could not be trained; the others are finished, and stay. The same command "
        "tries again:\n" + "\n".join(told)
    )


def _train_in_workers(
    retrainings: Retrainings, groups: Sequence[Sequence[Cell]], processes: int, bar: tqdm[Any]
) -> dict[Cell, Exception]:
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for position, device in enumerate(devices_of(retrainings.config, processes), 1):
        places.put((device, position))
    threads = max(1, torch.get_num_threads() // processes)
    # References in the configuration stay references: another seed changes what refers to it.
    config: Any = OmegaConf.to_container(retrainings.config.composed, resolve=False)
    settings = (config, retrainings.ranks, retrainings.fill, places, threads)
    pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=settings)
    failed: dict[Cell, Exception] = {}
    with _ended_with_us(pool):
        begun = {pool.submit(_train_in_worker, group): group for group in groups}
        for done in as_completed(begun):
            try:
                failed |= done.result()
            except BrokenProcessPool as error:
                raise CpathError(
                    "a process that trained cells was ended from outside (out of memory?): ask for fewer with "
                    "experiment.side_by_side=…; the same command continues from here."
                ) from error
            bar.update(len(begun[done]))
    return failed


@contextmanager
def _ended_with_us(pool: ProcessPoolExecutor) -> Iterator[None]:
    """End the workers at once where the work is not to be finished."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    pool.shutdown()


class _Worker:
    """Configuration and ranks of a worker process, sent as plain containers.

    Data and model are made from them when the first cell arrives.
    """

    def __init__(self, config: dict[str, Any], ranks: Mapping[str, Ranks], fill: Fill, position: int) -> None:
        self.config, self.ranks, self.fill, self.position = config, ranks, fill, position

    @cached_property
    def retrainings(self) -> Retrainings:
        job = Job(parse(OmegaConf.create(self.config)))
        return Retrainings(job.config, job.data, job.cache, self.ranks, self.fill)


_worker: _Worker | None = None


def _start_worker(
    config: dict[str, Any], ranks: Mapping[str, Ranks], fill: Fill, places: Any, threads: int
) -> None:
    """Make a worker ready, on a device of its own."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    device, position = places.get()
    _worker = _Worker({**config, "device": device}, ranks, fill, position)


def _end_with_parent() -> None:
    """End this process with its parent: a killed one cannot do it, and its workers would wait for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train_in_worker(cells: Sequence[Cell]) -> dict[Cell, Exception]:
    assert _worker is not None
    return _worker.retrainings.train(cells, position=_worker.position)
