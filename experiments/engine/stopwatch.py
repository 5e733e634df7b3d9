"""Seconds that the steps of a computation take."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from cpath.sites import unwrap


class Stopwatch:
    """Measures the seconds that named steps take; a step that is measured several times adds up.

    Args:
        device: device that computes. A GPU's queue is awaited before and after each step, so that a step is charged
            with its own work.

    Example:
        >>> from experiments.engine.stopwatch import Stopwatch
        >>> watch = Stopwatch(torch.device("cpu"))
        >>> with watch.measuring("sum"):
        ...     total = torch.ones(10).sum()
        >>> list(watch.seconds)
        ['sum']
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Seconds by step."""

    @contextmanager
    def measuring(self, step: str) -> Iterator[None]:
        """Measure the body of the ``with`` as a step.

        Args:
            step: name of the step.

        Yields:
            Nothing.
        """
        started = self._now()
        yield
        self.seconds[step] += self._now() - started

    @contextmanager
    def measuring_forward(self, model: nn.Module, step: str) -> Iterator[None]:
        """Measure the forward passes of a model in the body of the ``with``, together, as a step.

        Args:
            model: network that the body calls; a compiled or parallel one is unwrapped.
            step: name of the step.

        Yields:
            Nothing.
        """
        started = 0.0

        def start(*_: object) -> None:
            nonlocal started
            started = self._now()

        def stop(*_: object) -> None:
            self.seconds[step] += self._now() - started

        inner = unwrap(model)  # the module that cpath calls of a compiled or parallel model
        hooks = [inner.register_forward_pre_hook(start, prepend=True), inner.register_forward_hook(stop)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
