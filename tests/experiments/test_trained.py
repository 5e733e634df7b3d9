"""Trained models as artifacts: what determines them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from experiments.framework.store import ArtifactStore
from experiments.framework.subject import build_model, load_data
from experiments.framework.trained import MODEL_FILE, train_artifact

TINY = ["dataset._target_=tests.experiments.tiny.digits", "dataset.size=8", "dataset.recipe.epochs=1"]


def _trained(cfg) -> Path:
    data = load_data(cfg)
    return train_artifact(cfg, data, ArtifactStore(Path(cfg.outputs) / "artifacts"), build_model(cfg, data))


def test_a_training_from_given_weights_is_another_one_than_from_scratch(configure, tmp_path):
    scratch = _trained(configure(*TINY))
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    weights = load_file(scratch / MODEL_FILE)
    save_file(weights, first)
    save_file({name: tensor + (tensor.dim() > 1) for name, tensor in weights.items()}, second)
    folders = [scratch, *(_trained(configure(*TINY, f"checkpoint={file}")) for file in (first, second))]
    assert len(set(folders)) == 3
    results = [load_file(folder / MODEL_FILE)["fc.weight"] for folder in folders]
    assert not torch.equal(results[0], results[1])
    assert (results[2] - results[1]).mean() > 0.9  # an epoch moves weights by less than what they started with
    # The content of the file counts, not its name.
    renamed = tmp_path / "renamed.safetensors"
    first.rename(renamed)
    assert _trained(configure(*TINY, f"checkpoint={renamed}")) == folders[1]
