"""Cells of a table trained side by side: worker processes that share a GPU, several GPUs, or the cores of a CPU.

A small network leaves most of a GPU idle, and its steps wait for Python; several processes fill it. Each cell is an
artifact of its own, so that whatever ends a process loses no more than the epoch that it was in.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from tqdm.auto import tqdm

from cpath.data import ImageData
from cpath.errors import CpathError, InputError
from experiments.framework.devices import device_of, devices_of, sweep_number
from experiments.framework.retraining import Cell, Ranks, cell_artifact, is_trained, plain
from experiments.framework.store import ArtifactStore
from experiments.framework.subject import load_data

_LOG = logging.getLogger(__name__)
_A_GPU, _AT_MOST = 8, 16  # processes that fill a GPU; that one machine is asked for by itself


def how_many(cfg: DictConfig) -> int:
    """Processes for ``experiment.side_by_side``; ``auto`` is one a core, or eight a GPU, and one in a sweep."""
    asked = cfg.experiment.side_by_side
    if asked != "auto" and (not isinstance(asked, int) or asked < 1):
        raise InputError(f"experiment.side_by_side must be auto or a number from 1, not {asked!r}.")
    if cfg.trainer.processes > 1:
        if asked not in ("auto", 1):
            raise InputError("trainer=ddp trains one cell over all devices: leave out experiment.side_by_side.")
        return 1
    if asked != "auto":
        return int(asked)
    if sweep_number() is not None:
        return 1
    if device_of(cfg).type == "cuda":
        gpus = torch.cuda.device_count() if cfg.device == "auto" else 1
        return max(1, min(_A_GPU * gpus, (os.cpu_count() or 1)))
    return min(_AT_MOST, torch.get_num_threads())


def train_cells(
    cfg: DictConfig,
    data: ImageData,
    store: ArtifactStore,
    cells: Sequence[Cell],
    ranks: Mapping[str, Ranks],
    processes: int,
) -> tuple[dict[Cell, dict[str, Any]], dict[str, float]]:
    """History and test hits of every cell, those of earlier jobs included; and how fast the others were trained.

    In ``processes`` processes; in this one for 1. The first error stops the others: finished cells stay. Of the
    speed: cells trained now, seconds, and training images a second, all processes together.
    """
    begin = time.perf_counter()
    missing = [cell for cell in cells if not is_trained(cfg, data, store, cell, ranks)]
    processes = min(processes, len(missing))
    with tqdm(total=len(cells), initial=len(cells) - len(missing), desc="table", unit="cell", disable=None) as bar:
        if processes > 1:
            _in_workers(cfg, missing, ranks, processes, bar)
        found = {}
        for cell in cells:
            found[cell] = cell_artifact(cfg, data, store, cell, ranks.get(cell.attribution), position=1)
            if processes <= 1 and cell in missing:
                bar.update()
    seconds = time.perf_counter() - begin
    images = len(data.training_splits()[0]) * sum(len(found[cell]["epochs"]) for cell in missing)
    return found, {
        "cells_trained": len(missing),
        "seconds": round(seconds, 3),
        "training_images_per_second": round(images / seconds, 1),
    }


def _in_workers(
    cfg: DictConfig, cells: Sequence[Cell], ranks: Mapping[str, Ranks], processes: int, bar: tqdm[Any]
) -> None:
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for position, device in enumerate(devices_of(cfg, processes), 1):
        places.put((device, position))
    threads = max(1, torch.get_num_threads() // processes)
    pool = ProcessPoolExecutor(processes, context, _start, (plain(cfg), places, threads))
    with _ended_with_us(pool):
        jobs = {pool.submit(_train, cell, ranks.get(cell.attribution)): cell for cell in cells}
        for job in as_completed(jobs):
            try:
                job.result()
            except BrokenProcessPool as error:
                raise CpathError(
                    "a process that trained cells was ended from outside (out of memory?): ask for fewer with "
                    "experiment.side_by_side=…; the same command goes on from here."
                ) from error
            bar.update()


@contextmanager
def _ended_with_us(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Ends the workers at once where the work is not to be finished."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    pool.shutdown()


_worker: dict[str, Any] = {}


def _start(cfg: Any, places: Any, threads: int) -> None:
    """Makes a worker ready: its configuration, its device, its data."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    device, position = places.get()
    _worker.update(cfg=OmegaConf.create({**cfg, "device": device}), position=position)


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, and they would wait for it for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _train(cell: Cell, ranks: Ranks | None) -> None:
    cfg = _worker["cfg"]
    if "data" not in _worker:
        _worker["data"] = load_data(cfg)
    store = ArtifactStore(Path(cfg.outputs) / "artifacts")
    cell_artifact(cfg, _worker["data"], store, cell, ranks, position=_worker["position"])
