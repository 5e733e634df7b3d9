"""Timing of work beside other work: rounds in which everything runs once, their medians, and the memory it took."""

from __future__ import annotations

import gc
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import torch

from experiments.engine.devices import give_back_memory
from experiments.engine.progress import progress
from experiments.engine.table import Row

FLOOR, CAPTUM, NAIVE = "floor", "captum", "naive"
"""Kinds of what work is compared with: passes that it must contain; Captum; the loop that one would write first."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Rival:
    """Other work for the same purpose."""

    label: str
    """Description in tables."""
    work: Work
    """Runs the work once."""
    times: float = 1.0
    """Factor of its time: the images of a batch where ``work`` takes one of them."""


@dataclass(frozen=True)
class Case:
    """One thing to time, and what it is compared with."""

    what: str
    """Name in the column ``method``."""
    x: str
    """Name of the model, or the number of ``x_name``."""
    work: Work
    """Runs cpath's work once."""
    rivals: Mapping[str, Rival] = field(default_factory=dict)
    """Other work for the same purpose, by its kind: `FLOOR`, `CAPTUM` or `NAIVE`."""
    x_name: str = "model"
    """Name of the quantity that ``x`` is a value of."""
    start: Work | None = None
    """Start-up of ``work``, whose time is taken off."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """Largest ratio that cpath allows itself, by kind of rival."""


@dataclass
class _Times:
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    megabytes: float = 0.0


def measure(case: Case, repeats: int, device: torch.device) -> list[Row]:
    """Time a case and what it is compared with.

    Args:
        case: the work.
        repeats: rounds, after one that warms up; in each everything runs once.
        device: that the work runs on.

    Returns:
        Seconds (medians over the rounds, with the least and the largest), megabytes at the peak, and ratios.
    """
    works: dict[str, tuple[Work, float]] = {"": (case.work, 1.0)}
    works |= {kind: (rival.work, rival.times) for kind, rival in case.rivals.items()}
    times = {kind: _Times() for kind in works}
    gc.collect()
    runs = [(turn, kind) for turn in range(repeats + 1) for kind in works]
    for turn, kind in progress(runs, f"{case.what}, {case.x}", "run", leave=False):
        warming_up = turn == 0  # this round is for the memory, the others for the time
        work, count = works[kind]
        if warming_up:  # kept memory would hide the peak; in timed rounds, fetching it anew would cost time
            give_back_memory()
        wall, processor, megabytes = _timed(work, device)
        if case.start is not None and not kind:
            start_wall, start_processor, _ = _timed(case.start, device)
            wall, processor = wall - start_wall, processor - start_processor
        if warming_up or device.type == "cuda":
            times[kind].megabytes = max(times[kind].megabytes, megabytes)
        if not warming_up:
            times[kind].wall.append(count * wall)
            times[kind].processor.append(count * processor)
    return _rows(case, times, repeats, device)


def _rows(case: Case, times: Mapping[str, _Times], repeats: int, device: torch.device) -> list[Row]:
    ours = times[""]
    rows = [
        _row(case, "seconds", statistics.median(ours.wall), repeats, min(ours.wall), max(ours.wall)),
        _row(case, "peak_megabytes", ours.megabytes, repeats),
    ]
    for kind, rival in case.rivals.items():
        theirs = times[kind]
        rows.append(_ratio(case, f"ratio_to_{kind}", ours.wall, theirs.wall))
        if device.type == "cpu":  # hardly changes where other processes use the cores too
            rows.append(_ratio(case, f"processor_ratio_to_{kind}", ours.processor, theirs.processor))
        if kind in case.limits:
            rows.append(_row(case, f"limit_to_{kind}", case.limits[kind], repeats))
        label, seconds = f"{rival.label} (beside {case.what})", statistics.median(theirs.wall)
        rows.append(_row(case, "seconds", seconds, repeats, min(theirs.wall), max(theirs.wall), label=label))
        rows.append(_row(case, "peak_megabytes", theirs.megabytes, repeats, label=label))
    return rows


def _row(
    case: Case,
    metric: str,
    value: float,
    n: int,
    low: float = float("nan"),
    high: float = float("nan"),
    *,
    label: str | None = None,
) -> Row:
    model = case.x if case.x_name == "model" else ""
    return Row(label or case.what, metric, value, case.x_name, case.x, low, high, n, dataset="noise", model=model)


def _ratio(case: Case, metric: str, ours: list[float], theirs: list[float]) -> Row:
    """Ratio of the medians, between the least and the largest ratio of a round."""
    rounds = [one / other for one, other in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ours) / statistics.median(theirs)
    return _row(case, metric, ratio, len(rounds), min(rounds), max(rounds))


def _timed(work: Work, device: torch.device) -> tuple[float, float, float]:
    """Seconds on the clock, seconds of the processor, and megabytes at the peak, beyond what there was before."""
    with _peak_memory(device) as peak:
        begin, begin_processor = time.perf_counter(), time.process_time()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        wall, processor = time.perf_counter() - begin, time.process_time() - begin_processor
    return wall, processor, peak[0]


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[list[float]]:
    peak = [0.0]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        yield peak
        peak[0] = (torch.cuda.max_memory_allocated(device) - before) / 1e6
        return
    process, done = psutil.Process(), threading.Event()
    before = process.memory_info().rss
    highest = before

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.005):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        peak[0] = (highest - before) / 1e6
