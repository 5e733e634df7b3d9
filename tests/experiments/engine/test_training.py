"""Trained models as entries of the cache: what determines them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

from experiments.engine.cache import Cache, Key
from experiments.engine.config import parse
from experiments.engine.images import load_data
from experiments.engine.network import build_model
from experiments.engine.training import MODEL_FILE, pretrained_weights, trained_entry, training_key
from experiments.roar.cells import cell_config

TINY = ["dataset._target_=tests.experiments.tiny.digits", "dataset.size=8", "recipe.epochs=1"]


def _trained(cfg: DictConfig) -> Path:
    config = parse(cfg)
    data = load_data(config)
    return trained_entry(config, data, Cache(Path(config.outputs) / "artifacts"), build_model(config, data))


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


def _key(cfg: DictConfig) -> Key:
    config = parse(cfg)
    return training_key(config, load_data(config))


@pytest.mark.parametrize(
    "override",
    [
        "trainer.precision=bf16-mixed",
        "trainer.tf32=false",
        "trainer.channels_last=true",
        "trainer.compile=true",
        "trainer.processes=2",
        "recipe.batch_size=8",
        "model.width=5",
        "seed=1",
    ],
)
def test_what_changes_the_numbers_of_a_training_makes_another_one(configure, override):
    assert _key(configure(*TINY, override)) != _key(configure(*TINY))


@pytest.mark.parametrize(
    "override",
    ["trainer.workers=2", "trainer.memory_gb=1", "trainer.sync_batchnorm=false", "device=cuda", "threads=1"],
)
def test_what_does_not_change_the_numbers_makes_no_other_training(configure, override):
    assert _key(configure(*TINY, override)) == _key(configure(*TINY))


def test_several_processes_share_their_batch_statistics_or_not(configure):
    two = [*TINY, "trainer.processes=2"]
    assert _key(configure(*two, "trainer.sync_batchnorm=false")) != _key(configure(*two))


@pytest.mark.parametrize("node", ["model", "recipe.loss", "recipe.optimizer"])
def test_an_edit_of_a_users_code_makes_another_training(configure, users, node):
    cfg = configure(*TINY, f"{node}._target_=my_module.mine")
    keys = []
    for power in (1, 1, 2):
        users.write("my_helpers", f"power = {power}")
        users.write("my_module", "from my_helpers import power")
        keys.append(_key(cfg))
    assert keys[0] == keys[1] != keys[2]


def test_a_retraining_of_untouched_images_is_the_training_of_any_other_experiment(configure):
    cfg = configure(*TINY, "model=squeezenet1_0", small=False)
    assert cfg.model.weights == "auto"
    assert _key(cell_config(cfg, cfg.seed)) == _key(cfg)
    # Of ImageNet the pretrained weights are meant, and a retraining is from scratch.
    data = replace(load_data(cfg), name="imagenet")
    assert training_key(cell_config(cfg, cfg.seed), data) != training_key(cfg, data)


def test_weights_that_are_chosen_automatically_are_those_of_imagenet(configure, tmp_path):
    cfg = configure(*TINY, "model=squeezenet1_0", small=False)
    digits = load_data(cfg)
    imagenet = replace(digits, name="imagenet")
    assert (weights_of(cfg, digits), weights_of(cfg, imagenet)) == (None, "DEFAULT")
    cfg.checkpoint = str(tmp_path / "mine.safetensors")
    assert weights_of(cfg, imagenet) is None
    cfg.model.weights = "IMAGENET1K_V1"
    assert weights_of(cfg, digits) == "IMAGENET1K_V1"
    assert weights_of(configure(*TINY), imagenet) is None
