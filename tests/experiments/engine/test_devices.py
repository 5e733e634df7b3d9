from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hydra.types import RunMode

from cpath.errors import InputError
from experiments.engine import devices
from experiments.engine.config import parse
from experiments.engine.job import run


def _machine(monkeypatch, gpus: int, number: int | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(devices, "sweep_number", lambda: number)


def test_jobs_of_a_sweep_take_turns_at_the_gpus(configure, monkeypatch):
    config = parse(configure())
    found = []
    for number in range(4):
        _machine(monkeypatch, 3, number)
        found.append(str(devices.device_of(config)))
    assert found == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    _machine(monkeypatch, 1, 5)
    assert str(devices.device_of(config)) == "cuda"
    _machine(monkeypatch, 3, None)
    assert str(devices.device_of(config)) == "cuda"
    assert devices.devices_of(config, 5) == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    assert devices.devices_of(config.changed(device="cuda:1"), 2) == ["cuda:1", "cuda:1"]
    assert devices.devices_of(config.changed(device="cpu"), 2) == ["cpu", "cpu"]


def test_sweep_number_is_that_of_hydra(monkeypatch):
    hydra = SimpleNamespace(mode=RunMode.MULTIRUN, job=SimpleNamespace(num=3))
    monkeypatch.setattr(devices.HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(devices.HydraConfig, "get", lambda: hydra)
    assert devices.sweep_number() == 3
    hydra.mode = RunMode.RUN
    assert devices.sweep_number() is None


def test_a_training_over_several_processes_is_refused_in_a_sweep(configure, monkeypatch, tmp_path):
    cfg = configure("experiment=roar", "attribution=random", "trainer=ddp", "device=cpu")
    _machine(monkeypatch, 0, 0)
    with pytest.raises(InputError, match="inside a sweep"):
        run(cfg)
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "runs").exists()
    _machine(monkeypatch, 1, None)
    cfg.device = "auto"
    with pytest.raises(InputError, match="there are 1 GPUs"):
        run(cfg)
