"""One progress display over many stages, with the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

_FORMAT = "{desc} {percentage:3.0f} %|{bar}| {unit}"  # a postfix would have a comma in front
_FOUND = 1.0  # seconds; a stage that takes less was finished before, and tells nothing of the pace
_NEARLY = 0.98  # a stage that takes longer than expected stops here until it is done


class Estimate:
    """How far the stages have come and how long the rest will take, from how long each was expected to take.

    ``expected`` are seconds; where stages take longer or shorter, the rest is expected to do so too. Without
    expectations all stages count the same, and nothing is said of the time before the first one is done.
    """

    def __init__(self, expected: Mapping[str, float | None]) -> None:
        self.known = all(seconds is not None for seconds in expected.values())
        self.expected = {
            name: float(seconds) if self.known and seconds else 1.0 for name, seconds in expected.items()
        }
        self.done: list[str] = []
        self._measured: dict[str, float] = {}

    def finish(self, stage: str, seconds: float) -> None:
        """A stage is done, after so many seconds."""
        self.done.append(stage)
        if not self.known or seconds >= _FOUND:
            self._measured[stage] = seconds

    def share(self, stage: str | None, seconds: float) -> float:
        """Share of the whole that is done, ``seconds`` into a stage."""
        whole = sum(self.expected.values())
        done = sum(self.expected[name] for name in self.done)
        return (done + self._within(stage, seconds)) / whole if whole else 1.0

    def left(self, stage: str | None, seconds: float) -> float | None:
        """Seconds left, ``seconds`` into a stage; None while nothing is known of them."""
        pace = self._pace()
        if pace is None:
            return None
        rest = sum(part for name, part in self.expected.items() if name not in self.done)
        return max(0.0, (rest - self._within(stage, seconds)) * pace)

    def _pace(self) -> float | None:
        expected = sum(self.expected[name] for name in self._measured)
        if expected:
            return sum(self._measured.values()) / expected
        return 1.0 if self.known else None

    def _within(self, stage: str | None, seconds: float) -> float:
        pace = self._pace()
        if stage is None or not pace:
            return 0.0
        return min(seconds / pace, _NEARLY * self.expected[stage])


class Overall:
    """The display: a bar on a terminal, below it those of the stage at work; lines in a log elsewhere."""

    def __init__(self, expected: Mapping[str, float | None]) -> None:
        self.estimate = Estimate(expected)
        self._total = len(expected)
        self._stage: str | None = None
        self._since = time.monotonic()
        self._stop = threading.Event()
        self._bar: Any = None
        self._thread = threading.Thread(target=self._refresh, daemon=True)
        self._redirected = logging_redirect_tqdm()

    def __enter__(self) -> Overall:
        self._redirected.__enter__()
        self._bar = tqdm(total=100, bar_format=_FORMAT, disable=None, desc="all")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if kind is None or issubclass(kind, Exception):
            self._show()
        else:  # stopped by hand: nothing is left on the terminal but what the caller says
            self._bar.leave = False
        self._bar.close()
        self._redirected.__exit__(kind, error, at)

    @contextmanager
    def stage(self, name: str) -> Any:
        """A stage is at work in the with block."""
        self._stage, self._since = name, time.monotonic()
        try:
            yield
        finally:
            self.estimate.finish(name, time.monotonic() - self._since)
            self._stage = None

    def words(self) -> str:
        """Number of the stage, and the time left as far as it is known."""
        number = min(len(self.estimate.done) + 1, self._total)
        left = self.estimate.left(self._stage, time.monotonic() - self._since)
        return f"[{number}/{self._total}]" + ("" if left is None else f" about {duration(left)} left")

    def _refresh(self) -> None:
        while not self._stop.wait(1.0):
            self._show()

    def _show(self) -> None:
        self._bar.n = 100 * self.estimate.share(self._stage, time.monotonic() - self._since)
        self._bar.set_description_str(self._stage or "all", refresh=False)
        self._bar.unit = self.words()
        self._bar.refresh()


def duration(seconds: float) -> str:
    """``seconds`` as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
