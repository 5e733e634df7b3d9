from __future__ import annotations

import pytest
from omegaconf import DictConfig
from safetensors.torch import save_file

from experiments.engine import training
from experiments.engine.cache import write_json
from experiments.roar import cells
from tests.experiments.roar.shared import METHODS, TINY, made_up_hits


@pytest.fixture
def quick(monkeypatch) -> list[str]:
    """Trainings are noted, and have made-up results: for tests of all that surrounds them."""
    names: list[str] = []

    def fake(entry, config, data, model, *, name, position=0, keep_model=True):
        names.append(name)
        hits = made_up_hits(f"{name}{config.seed}")
        write_json(
            entry.folder / "history.json",
            {
                "epochs": [{"epoch": 0.0, "loss": 2.0, "val_loss": 1.0, "val_accuracy": 50.0}],
                "test_hits": [int(k < hits) for k in range(len(data.test))],
            },
        )
        if keep_model:
            save_file(model.state_dict(), entry.folder / "model.safetensors")

    monkeypatch.setattr(cells, "train_in", fake)
    monkeypatch.setattr(training, "train_in", fake)
    return names


@pytest.fixture
def table_cfg(configure) -> DictConfig:
    cfg = configure("experiment=roar_table", *TINY, "percent=[30,90]", "experiment.side_by_side=1")
    cfg.attribution = METHODS
    return cfg
