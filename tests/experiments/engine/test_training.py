"""Trained models as entries of the cache: what determines them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from safetensors.torch import load_file, save_file

import cpath
from cpath.data import ImageData
from experiments.engine import training
from experiments.engine.cache import Cache, Entry, Key
from experiments.engine.config import parse
from experiments.engine.images import load_data
from experiments.engine.network import build_model
from experiments.engine.provenance import read_manifest
from experiments.engine.training import HISTORY_FILE, MODEL_FILE, pretrained_weights, trained_entry, training_key

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


def test_weights_that_are_chosen_automatically_are_those_of_imagenet(configure, tmp_path):
    def weights(data: ImageData, *overrides: str) -> object:
        return pretrained_weights(parse(configure(*TINY, *overrides, small=False)), data)

    digits = load_data(parse(configure(*TINY)))
    imagenet = replace(digits, name="imagenet")
    assert (weights(digits, "model=squeezenet1_0"), weights(imagenet, "model=squeezenet1_0")) == (None, "DEFAULT")
    assert weights(imagenet, "model=squeezenet1_0", f"checkpoint={tmp_path}/mine.safetensors") is None
    assert weights(digits, "model=squeezenet1_0", "model.weights=IMAGENET1K_V1") == "IMAGENET1K_V1"
    assert weights(imagenet) is None


def test_a_stopped_training_continues_and_leaves_what_an_undisturbed_one_does(configure, tmp_path, monkeypatch):
    import cpath.training

    whole = _trained(configure(*TINY))
    outputs = f"outputs={tmp_path / 'other'}"
    train = cpath.training.train

    def stops_behind_it(*args, **kwargs):
        train(*args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(cpath.training, "train", stops_behind_it)
        _trained(configure(*TINY, outputs))
    (stopped,) = (tmp_path / "other").glob("artifacts/models/[!.]*")
    assert read_manifest(stopped)["status"] == "stopped"
    assert list(stopped.glob("*.ckpt")), "to continue from"
    assert _trained(configure(*TINY, outputs)) == stopped
    assert not list(stopped.glob("*.ckpt"))
    assert read_manifest(stopped)["files"] == read_manifest(whole)["files"]


def test_a_training_that_was_stopped_after_its_last_epoch_repeats_none(configure, tmp_path, monkeypatch):
    from cpath.training import Classifier

    whole = _trained(configure(*TINY))
    write, finish = training.write_json, Entry.finish
    stops = iter(["behind the history", "before the manifest"])

    def stops_behind_it(path, content):
        write(path, content)
        if next(stops, None):
            raise KeyboardInterrupt

    def stops_before_it(entry, status, error=None):
        if status == "finished" and next(stops, None):
            raise KeyboardInterrupt
        finish(entry, status, error)

    outputs = f"outputs={tmp_path / 'other'}"
    monkeypatch.setattr(training, "write_json", stops_behind_it)
    with pytest.raises(KeyboardInterrupt):
        _trained(configure(*TINY, outputs))
    monkeypatch.setattr(training, "write_json", write)
    monkeypatch.setattr(Entry, "finish", stops_before_it)
    monkeypatch.setattr(Classifier, "training_step", lambda *_: pytest.fail("all epochs are trained"))
    with pytest.raises(KeyboardInterrupt):
        _trained(configure(*TINY, outputs))
    folder = _trained(configure(*TINY, outputs))
    assert next(stops, None) is None
    assert not list(folder.glob("*.ckpt"))
    assert read_manifest(folder)["files"] == read_manifest(whole)["files"]


@pytest.mark.parametrize(("damaged", "trained_again"), [(MODEL_FILE, True), (HISTORY_FILE, True), (None, False)])
def test_a_damaged_training_is_made_again(configure, monkeypatch, damaged, trained_again):
    import cpath.training

    folder = _trained(configure(*TINY))
    before = read_manifest(folder)["files"]
    calls, train = [], cpath.training.train
    monkeypatch.setattr(cpath.training, "train", lambda *args, **more: calls.append(1) or train(*args, **more))
    if damaged is not None:
        (folder / damaged).write_bytes((folder / damaged).read_bytes()[:-9])
    assert _trained(configure(*TINY)) == folder
    assert bool(calls) == trained_again
    assert read_manifest(folder)["files"] == before


def test_the_accuracy_of_a_network_is_said_with_a_warning_near_chance(configure, caplog):
    with caplog.at_level("INFO"):
        folder = _trained(configure(*TINY))
    hits = training.read_history(folder)["test_hits"]
    said = f"model: test accuracy {100 * sum(hits) / len(hits):.1f} % ({sum(hits)} of {len(hits)} images)"
    assert said in caplog.messages


@pytest.mark.parametrize(
    ("labels", "right", "warned"),
    [
        ([0, 1] * 50, 50, True),
        ([0, 1] * 50, 64, True),  # within three standard errors of one half
        ([0, 1] * 50, 66, False),
        ([0] * 90 + [1] * 10, 90, True),  # what always saying 0 achieves
        ([0] * 90 + [1] * 10, 100, False),
        (list(range(10)) * 10, 18, True),
        (list(range(10)) * 10, 98, False),
    ],
)
def test_chance_is_the_share_of_the_most_frequent_class(labels, right, warned, caplog):
    scale = cpath.data.Normalisation((0.5,), (0.5,))
    split = cpath.data.TensorSplit(torch.zeros(100, 1, 2, 2), torch.tensor(labels), ["x"] * 100, scale)
    data = ImageData("mine", ("a",) * 10, (1, 2, 2), scale, split)
    with caplog.at_level("INFO"):
        training._say_accuracy([1] * right + [0] * (100 - right), data)
    assert caplog.messages[0] == f"model: test accuracy {right:.1f} % ({right} of 100 images)"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [("near chance" in text, "recipe.epochs" in text) for text in warnings] == [(True, True)] * warned
