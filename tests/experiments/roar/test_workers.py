from __future__ import annotations

import pickle

import pytest
import torch
from omegaconf import OmegaConf

from cpath.errors import InputError
from experiments.engine import devices
from experiments.engine.config import Config, parse
from experiments.roar import workers
from experiments.roar.cells import Cell, Retrainings
from tests.experiments.roar.shared import job_of


def _machine(monkeypatch, gpus: int, number: int | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(devices, "sweep_number", lambda: number)
    monkeypatch.setattr(workers, "sweep_number", lambda: number)


def test_how_many_cells_train_side_by_side(configure, monkeypatch):
    cfg = configure("experiment=roar_table")

    def count() -> int:
        config = parse(cfg)
        return workers.process_count(config, config.experiment.side_by_side)

    monkeypatch.setattr(workers.os, "cpu_count", lambda: 64)
    _machine(monkeypatch, 2, None)
    assert count() == 16
    cfg.device = "cuda:1"
    assert count() == 8
    cfg.device = "auto"
    _machine(monkeypatch, 2, 0)
    assert count() == 1
    _machine(monkeypatch, 0, None)
    monkeypatch.setattr(workers.torch, "get_num_threads", lambda: 6)
    assert count() == 6
    cfg.trainer.processes = 2
    assert count() == 1
    cfg.experiment.side_by_side = 3
    with pytest.raises(InputError, match="trainer=ddp trains one cell"):
        count()
    with pytest.raises(InputError, match="trainer=ddp trains one cell"):
        job_of(cfg).check()


def test_what_is_sent_to_a_worker_gives_the_same_cells(table_cfg, quick):
    table_cfg.attribution = {"random": {"seed": "${seed}"}}
    job = job_of(table_cfg)
    experiment = job.config.experiment
    ours = experiment.retrainings(job, experiment.rank(job))
    plain = OmegaConf.to_container(job.config.composed, resolve=False)
    sent = pickle.loads(pickle.dumps(({**plain, "device": "cpu"}, ours.ranks, ours.fill)))
    theirs = workers._Worker(*sent, position=2).retrainings
    assert isinstance(theirs, Retrainings)
    assert isinstance(theirs.config, Config)
    assert theirs.config.device == "cpu"
    for cell in (Cell("random", 30.0, True, 2), Cell.untouched(1)):
        assert theirs.key(cell) == ours.key(cell)
    splits = theirs.ranks["random"].splits
    assert torch.equal(
        splits["val"].read(torch.arange(16)), ours.ranks["random"].splits["val"].read(torch.arange(16))
    )
