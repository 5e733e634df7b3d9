"""Where the time of a run goes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class Clock(nn.Module):
    """``model`` with a clock: calls go to it and their seconds are counted as ``forward``, other parts as named."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seconds: dict[str, float] = defaultdict(float)
        self._part = ""
        self._on_gpu = any(parameter.is_cuda for parameter in model.parameters())

    def forward(self, *args: Any) -> Any:
        """What the model answers."""
        with self._counting(f"{self._part}_forward"):
            return self.model(*args)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Counts the time of a with block as ``name``, and of forward passes inside as ``name``_forward."""
        before, self._part = self._part, name
        try:
            with self._counting(name):
                yield
        finally:
            self._part = before

    @contextmanager
    def _counting(self, name: str) -> Iterator[None]:
        started = self._now()
        yield
        self.seconds[name] += self._now() - started

    def _now(self) -> float:
        if self._on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()
