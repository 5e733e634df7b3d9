"""Progress: bars with the time left, one for the work at hand and one over the stages of a whole."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

T = TypeVar("T")
EVERY = 10.0
"""Seconds between two lines on the progress of a work, where there is no terminal for a bar."""
_LOG = logging.getLogger(__name__)


def progress(items: Iterable[T], doing: str, unit: str, **settings: Any) -> Iterator[T]:
    """Iterate with a progress bar; where the output is no terminal, a line is logged every ten seconds.

    Args:
        items: to iterate over.
        doing: description of the work.
        unit: of the items.
        settings: further settings of `tqdm`.

    Returns:
        The items in turn.
    """
    if sys.stderr.isatty():
        return iter(tqdm(items, desc=doing, unit=unit, **settings))
    total = settings.get("total") or (len(items) if isinstance(items, Sized) else None)
    return _logged(items, doing, unit, total)


def _logged(items: Iterable[T], doing: str, unit: str, total: int | None) -> Iterator[T]:
    began = said = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if done > 0 and now - said >= EVERY:
            said = now
            left = f", {duration((now - began) / done * (total - done))} left" if total else ""
            things = unit if (total or done) == 1 else f"{unit}{'es' if unit.endswith('ch') else 's'}"
            _LOG.info("%s: %d%s %s done%s", doing, done, f" of {total}" if total else "", things, left)
        yield item


class Stages:
    """A progress bar over the stages of a whole, each weighed with the seconds that it is expected to take.

    Args:
        expected: seconds by stage, 0 for one that is finished already; a stage without a number counts as much as
            the mean of those that are not finished.
    """

    def __init__(self, expected: Mapping[str, float | None]) -> None:
        known = [seconds for seconds in expected.values() if seconds]
        usual = sum(known) / len(known) if known else 1.0
        self.expected = {name: usual if seconds is None else seconds for name, seconds in expected.items()}
        self._done = 0
        self._bar: Any = None
        self._redirected = logging_redirect_tqdm()

    def __enter__(self) -> Stages:
        self._redirected.__enter__()
        total = sum(self.expected.values())
        form = "{desc} {percentage:3.0f} %|{bar}| {elapsed} so far, {remaining} left"
        # The pace is that of all stages so far: the last one alone says little of the others.
        self._bar = tqdm(total=total, bar_format=form, disable=None, desc="all", smoothing=0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._bar.leave = False  # stopped by hand: nothing stays on the terminal but the caller's last word
        self._bar.close()
        self._redirected.__exit__(kind, error, at)

    @contextmanager
    def stage(self, name: str) -> Iterator[str]:
        """Count a stage while the body of the ``with`` runs.

        Args:
            name: of the stage, a key of ``expected``.

        Yields:
            Its place among the stages, such as ``[2/7]``.
        """
        self._bar.set_description_str(name)
        try:
            yield f"[{self._done + 1}/{len(self.expected)}]"
        finally:
            self._done += 1
            self._bar.update(self.expected[name])


def duration(seconds: float) -> str:
    """Write a time in words: ``45 s``, ``12 min``, ``1.5 h``.

    Args:
        seconds: the time.

    Returns:
        Number and unit.
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{seconds / 3600:.1f} h"
