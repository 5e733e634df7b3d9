from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments.engine import stopwatch
from experiments.engine.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch):
    """A clock that shows one second more whenever it is read."""
    ticks = iter(range(1000))
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: float(next(ticks)))


def test_steps_add_up_and_contain_each_other(clock):
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch.measuring("outer"), watch.measuring("inner"):
            pass
    assert watch.seconds == {"outer": 2 * 3, "inner": 2 * 1}


def test_forward_passes_are_measured_and_leave_no_hook(clock):
    model, watch = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), Stopwatch(torch.device("cpu"))
    with watch.measuring_forward(model, "forward"):
        model(torch.zeros(1, 2))
        model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))
    assert watch.seconds == {"forward": 2}
    assert not model._forward_hooks
    assert not model._forward_pre_hooks


def test_a_step_that_fails_leaves_no_hook():
    model, watch = nn.Linear(2, 2), Stopwatch(torch.device("cpu"))
    with pytest.raises(RuntimeError), watch.measuring_forward(model, "forward"):
        model(torch.zeros(1, 3))
    assert not model._forward_hooks
    assert not model._forward_pre_hooks
    assert watch.seconds == {}
