"""Cells that are trained at once: the table of cells trained one by one, whatever happens to one of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from cpath import stacked
from cpath.data import Batches
from cpath.errors import CpathError, InputError, TrainingError
from experiments.engine.job import run
from experiments.engine.training import read_history
from experiments.roar.cells import Cell, Retrainings
from experiments.roar.workers import _groups
from tests.experiments.roar.shared import TINY, cells_of, job_of, notes_of

EXACT = [*TINY, "trainer.precision=64-true", "percent=[50]", "experiment.side_by_side=1", "model.width=2"]


@pytest.fixture
def tables(configure, tmp_path):
    """Makes the configuration of a table with so many cells at once, in a folder of its own."""

    def make(at_once: int, *overrides: str) -> DictConfig:
        cfg = configure(
            *("experiment=roar_table", *EXACT, f"experiment.stacked={at_once}", "experiment.seeds=[0,1]"),
            *(f"outputs={tmp_path / str(at_once)}", "recipe.batch_size=24", *overrides),
        )
        cfg.attribution = {"gradients": {}, "random": {"seed": 0}}
        return cfg

    return make


def _finished(cfg: DictConfig) -> dict[str, dict[str, object]]:
    """Histories of the trained networks by the names of their entries."""
    files = [
        file for kind in ("cells", "models") for file in (Path(cfg.outputs) / "artifacts" / kind).glob("*/h*.json")
    ]
    return {file.parent.name: read_history(file.parent) for file in files}


def test_a_table_of_cells_at_once_is_that_of_cells_one_by_one(tables):
    one, other = tables(1), tables(4)
    assert job_of(one).key == job_of(other).key  # the same entries, whichever way they were trained
    for cfg in (one, other):
        run(cfg)
    cells = cells_of(one)
    assert len(cells) == 6
    np.testing.assert_allclose(cells_of(other).test_accuracy, cells.test_accuracy, rtol=1e-9)
    singles, together = _finished(one), _finished(other)
    assert singles.keys() == together.keys()
    for name, history in singles.items():
        assert together[name]["test_hits"] == history["test_hits"]
        for row, expected in zip(together[name]["epochs"], history["epochs"], strict=True):
            assert row == pytest.approx(expected, rel=1e-6)
    assert notes_of(other)["stacked"] == 4
    assert not list(Path(other.outputs).rglob("*.ckpt"))


def _ones(retrainings: Retrainings, cells: list[Cell], processes: int, at_once: int) -> list[int]:
    return [len(group) for group in _groups(retrainings, cells, processes, at_once)]


def test_groups_leave_no_process_without_work(tables):
    job = job_of(tables(4))
    retrainings = Retrainings(job.config, job.data, job.cache, {}, 0.0)
    cells = [Cell("random", 50.0, False, seed) for seed in range(10)]
    assert _ones(retrainings, cells, 1, 4) == [4, 4, 2]
    assert _ones(retrainings, cells, 5, 4) == [2] * 5
    assert _ones(retrainings, cells[:3], 4, 8) == [1] * 3
    assert _ones(retrainings, [], 4, 8) == []


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_cell_that_diverges_leaves_the_others_and_is_tried_again(tables, monkeypatch, at_once):
    cfg = tables(at_once, "recipe.epochs=1")
    job = job_of(cfg)
    retrainings = job.config.experiment.retrainings(job, job.config.experiment.rank(job_of(cfg)))
    removed = retrainings._images(Cell("gradients", 50.0, False, 1)).train.to("cpu").removed
    batch = Batches.__getitem__

    def broken(self: Batches, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """NaN for the training images of both cells of this attribution."""
        images, labels = batch(self, number)
        is_theirs = getattr(self.split, "removed", torch.empty(0)).equal(removed)
        return (images * math.nan if is_theirs else images), labels

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__getitem__", broken)
        with pytest.raises(CpathError, match=r"2 of the cells could not be trained; the others .*again") as caught:
            run(cfg)
    assert str(caught.value).count("the training has diverged: its loss is nan after epoch 1") == 2
    assert "gradients-50-roar-s1: " in str(caught.value)
    assert isinstance(caught.value.__cause__, TrainingError)
    assert len(_finished(cfg)) == 4, "two untouched networks, and both seeds of random"
    run(cfg)
    assert len(cells_of(cfg)) == len(_finished(cfg)) == 6


@pytest.mark.slow
def test_an_interrupted_group_loses_no_finished_one_and_goes_on_from_its_last_epoch(tables, monkeypatch):
    monkeypatch.setattr(stacked, "_EVERY", 0.0)
    cfg, whole = tables(3), tables(1)
    begun: list[int] = []
    served = stacked._train_epoch

    def stops(state, *others):
        begun.append(state.epoch)
        if len(begun) == 4:
            raise KeyboardInterrupt
        served(state, *others)

    monkeypatch.setattr(stacked, "_train_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    assert begun == [0, 1, 0, 1]  # two groups of two epochs
    # The explained network is one of the cells; the other five are two groups.
    assert len(_finished(cfg)) == 1 + 3
    assert len(list(Path(cfg.outputs).rglob("together-*.ckpt"))) == 1
    run(cfg)
    assert begun == [0, 1, 0, 1, 1]
    run(whole)
    assert cells_of(cfg).test_accuracy.tolist() == pytest.approx(cells_of(whole).test_accuracy.tolist())


def test_where_cells_cannot_be_trained_at_once_it_is_said_and_each_is_trained_alone(tables, caplog, quick):
    cfg = tables(4)
    optimizer = {"_target_": "torch.optim.Adafactor", "_partial_": True, "lr": 0.01}
    OmegaConf.update(cfg, "recipe.optimizer", optimizer, merge=False)
    run(cfg)
    said = [message for message in caplog.messages if "experiment.stacked=1" in message]
    assert len(said) == 1
    assert "Adafactor may change a weight by the gradients of others. Cells are trained one by one" in said[0]
    assert len(quick) == 6


def test_more_cells_at_a_time_than_fit_are_refused_before_any_is_trained(tables, quick, monkeypatch):
    cfg = tables(4)
    monkeypatch.setattr("cpath.training_memory.memory_of", lambda device: 400_000)
    with pytest.raises(
        InputError, match=r"4 trainings at a time need at least .*experiment\.stacked, experiment\.side"
    ):
        run(cfg)
    assert len(quick) == 1, "the explained network alone"
    run(tables(1))
