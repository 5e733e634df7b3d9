from __future__ import annotations

import logging
import os
import random
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cpath.data import Batches, TensorSplit, crop_and_flip, digits
from cpath.errors import InputError, TrainingError
from cpath.evaluation import accuracy
from cpath.models import resnet8_narrow
from cpath.stacked import Member, train_stacked
from cpath.training import Hardware, Recipe, _trainer_settings, by_itself, train

DATA = digits(size=16)


def _recipe(epochs: int) -> Recipe:
    scheduler = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=6)
    optimizer = partial(torch.optim.AdamW, lr=1e-2)
    return Recipe(epochs, 128, optimizer, scheduler, augmentation=partial(crop_and_flip, crop=1))


def _train(folder, epochs: int):
    torch.manual_seed(0)
    model = resnet8_narrow(10, DATA.shape, width=4)
    history = train(model, DATA, _recipe(epochs), folder, quiet=True)
    return model, history


def test_training_learns_and_keeps_the_best_validation_epoch(tmp_path):
    model, history = _train(tmp_path, 6)
    assert [row["epoch"] for row in history] == [0, 1, 2, 3, 4, 5]
    best = max(row["val_accuracy"] for row in history)
    assert 100 * accuracy(model, DATA.val).double().mean().item() == pytest.approx(best, abs=1e-9)
    assert accuracy(model, DATA.test).double().mean() > 0.8
    assert not model.training


@pytest.mark.parametrize(
    ("hardware", "near"),
    [
        (Hardware(precision="bf16-mixed"), 0.2),
        pytest.param(Hardware(compile=True), 1e-3, marks=pytest.mark.slow),
    ],
    ids=["bf16", "compile"],
)
def test_switches_of_speed_change_the_numbers_by_rounding_alone(tmp_path, hardware, near):
    losses = []
    for name, used in (("plain", Hardware()), ("fast", hardware)):
        torch.manual_seed(0)
        model = resnet8_narrow(10, DATA.shape, width=4)
        history = train(model, DATA, _recipe(1), tmp_path / name, hardware=used, quiet=True)
        losses.append(history[0]["loss"])
        assert all(not key.startswith("_orig_mod") for key in model.state_dict())
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses[1] == pytest.approx(losses[0], rel=near)
    assert losses[1] < 2.3  # ln 10: chance
    if used.precision != "32-true":
        assert losses[1] != losses[0]


class Flattens(nn.Module):
    """Notes the format of its features, and may need the usual one."""

    def __init__(self, needs_usual):
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3))  # of one channel, both formats are one
        self.out = nn.Linear(2 * 12 * 12, 10)
        self.needs_usual, self.seen = needs_usual, set()

    def __deepcopy__(self, memo):
        copied = Flattens(self.needs_usual)
        copied.load_state_dict(self.state_dict())
        copied.seen = self.seen
        return copied

    def forward(self, images):
        features = self.convs(images)
        self.seen.add((len(images), features.is_contiguous(memory_format=torch.channels_last)))
        return self.out(features.view(len(images), -1) if self.needs_usual else features.flatten(1))


@pytest.mark.parametrize("needs_usual", [False, True])
def test_a_cpu_trains_in_channels_last_where_the_network_can_and_learns_the_same(
    tmp_path, monkeypatch, needs_usual
):
    torch.manual_seed(0)
    model, usual = Flattens(needs_usual), Flattens(False)
    usual.load_state_dict(model.state_dict())
    history = train(model, DATA, _recipe(1), tmp_path / "one", quiet=True)
    assert {last for images, last in model.seen if images > 2} == {not needs_usual}
    monkeypatch.setattr(Hardware, "in_channels_last", lambda *_: False)
    expected = train(usual, DATA, _recipe(1), tmp_path / "other", quiet=True)
    assert {last for images, last in usual.seen if images > 2} == {False}
    assert history[0] == pytest.approx(expected[0], rel=1e-4)


class Reads(TorchDispatchMode):
    """Counts the values that are read off tensors, for each of which a GPU would be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.count += func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("at_once", [1, 2])
def test_no_step_reads_a_value(tmp_path, at_once):
    counts = {}
    for batch in (64, 320):
        recipe = Recipe(2, batch, partial(torch.optim.SGD, lr=0.1), augmentation=partial(crop_and_flip, crop=1))
        models = [nn.Sequential(nn.Conv2d(1, 2, 3, 4), nn.Flatten(), nn.Linear(32, 10)) for _ in range(at_once)]
        with Reads() as reads:
            if at_once == 1:
                train(models[0], DATA, recipe, tmp_path / str(batch), quiet=True)
            else:
                members = [Member(model, DATA, seed) for seed, model in enumerate(models)]
                train_stacked(members, recipe, tmp_path / f"{batch}.ckpt", quiet=True)
        counts[batch] = reads.count
    # As many with 20 steps an epoch as with 4: those of its end.
    assert counts[64] == counts[320]
    with Reads() as reads:
        torch.ones(1).item()
    assert reads.count == 1


def test_every_epoch_is_in_the_history_whether_or_not_it_was_a_good_one(tmp_path):
    torch.manual_seed(0)
    model = resnet8_narrow(10, DATA.shape, width=2)
    recipe = Recipe(3, 512, partial(torch.optim.SGD, lr=0.0))
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    history = train(model, DATA, recipe, tmp_path, quiet=True)
    assert [row["epoch"] for row in history] == [0, 1, 2]
    for name, tensor in model.named_parameters():  # a rate of zero
        assert torch.equal(tensor, before[name])
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["epoch"] == 2


def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(tmp_path, monkeypatch):
    whole, history = _train(tmp_path / "whole", 4)
    calls = 0
    batches = Batches.__iter__

    def dies(self):
        nonlocal calls
        calls += len(self.split) == len(DATA.train)
        if calls == 3:
            raise KeyboardInterrupt
        return batches(self)

    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__iter__", dies)
        with pytest.raises(BaseException):  # noqa: B017
            _train(tmp_path / "resumed", 4)
    assert (tmp_path / "resumed" / "last.ckpt").exists()
    resumed, rows = _train(tmp_path / "resumed", 4)
    assert [row["epoch"] for row in rows] == [row["epoch"] for row in history]
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_batches_hold_every_image_once_in_an_order_of_the_seed():
    labels = [torch.cat([labels for _, labels in Batches(DATA.train, 100, seed=seed)]) for seed in (1, 1, 2)]
    assert torch.equal(labels[0], labels[1])
    assert not torch.equal(labels[0], labels[2])
    assert torch.equal(labels[0].sort().values, DATA.train.labels.sort().values)
    ordered = torch.cat([labels for _, labels in Batches(DATA.train, 100)])
    assert torch.equal(ordered, DATA.train.labels)
    assert len(Batches(DATA.train, 100)) == 13


def test_augmentation_moves_and_flips_each_image_on_its_own():
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(1.0, 26).view(1, 1, 5, 5).expand(400, 2, 5, 5)
    moved = crop_and_flip(images, generator, crop=1)
    corners = {tuple(image[0, 2, 1:4].tolist()) for image in moved}
    assert len(corners) == 9  # three places each way
    assert torch.equal(moved[:, 0], moved[:, 1])
    flipped = crop_and_flip(images, generator, flip=True)
    share = (flipped[:, 0, 0, 0] == 5).double().mean().item()
    assert share == pytest.approx(0.5, abs=0.1)
    assert torch.equal(crop_and_flip(images, generator), images)


def test_a_training_whose_loss_is_nan_ends_with_a_message_and_no_result(tmp_path):
    pixels = DATA.train.pixels.clone()
    pixels[5] = float("nan")
    data = replace(DATA, train=TensorSplit(pixels, DATA.train.labels, DATA.train.ids, DATA.train.normalisation))
    model = resnet8_narrow(10, DATA.shape, width=2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(TrainingError, match=r"diverged: its loss is nan after epoch 1\. Lower the learning rate"):
        train(model, data, _recipe(3), tmp_path, quiet=True)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not list(tmp_path.glob("best*"))


class Meddling(pl.Callback):
    """Sets what belongs to the process as a whole, as Lightning does."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.backends.cudnn.benchmark = not torch.backends.cudnn.benchmark
        logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.CRITICAL)


def _process() -> dict[str, object]:
    loggers = ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero")
    return {
        "random": (torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()),  # noqa: NPY002
        "benchmark": torch.backends.cudnn.benchmark,
        "loggers": [logging.getLogger(name).level for name in loggers],
        "seeds": [os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")],
    }


@pytest.mark.parametrize("fails", [False, True])
def test_a_training_leaves_the_process_as_it_was(tmp_path, monkeypatch, fails):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    monkeypatch.delenv("PL_SEED_WORKERS", raising=False)
    model, recipe = resnet8_narrow(10, DATA.shape, width=2), _recipe(1)
    if fails:
        recipe = replace(recipe, loss=lambda logits, labels: 1 / 0)
    before = _process()
    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        train(model, DATA, recipe, tmp_path, seed=3, quiet=True, callbacks=(Meddling(),))
    assert _process() == before


def test_a_training_inside_no_grad_is_the_same_and_leaves_gradients_off(tmp_path):
    usual, inside = (resnet8_narrow(10, DATA.shape, width=2) for _ in range(2))
    inside.load_state_dict(usual.state_dict())
    train(usual, DATA, _recipe(1), tmp_path / "usual", quiet=True)
    with torch.no_grad():
        train(inside, DATA, _recipe(1), tmp_path / "inside", quiet=True)
        assert not torch.is_grad_enabled()
    for name, tensor in usual.state_dict().items():
        assert torch.equal(tensor, inside.state_dict()[name]), name


def test_precision_on_a_gpu_is_that_of_the_training_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    before = torch.get_float32_matmul_precision()
    with pytest.raises(ZeroDivisionError), by_itself(Hardware(device=torch.device("cuda"))):
        _trainer_settings(Hardware(device=torch.device("cuda"), tf32=True))
        assert torch.get_float32_matmul_precision() == "high" != before
        assert torch.backends.cudnn.allow_tf32
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == before
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        *(("processes", value, "at least 1, a whole number") for value in (0, -1, True, 1.5, "2", None)),
        *(("workers", value, "at least 0, a whole number") for value in (-1, False, 0.5, "2", None)),
        *(("memory_gb", value, "a finite number") for value in (float("nan"), float("inf"), True, "8", None)),
    ],
)
def test_hardware_that_cannot_be_is_an_error(name, value, told):
    with pytest.raises(InputError, match=rf"^{name} \(trainer\.{name}\) must be {told}, not {value!r}"):
        Hardware(**{name: value})


@pytest.mark.parametrize("name", ["epochs", "batch_size"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2", None])
def test_a_recipe_that_cannot_be_is_an_error(name, value):
    settings = {"epochs": 1, "batch_size": 8, "optimizer": torch.optim.SGD}
    with pytest.raises(InputError, match=rf"^{name} must be at least 1, a whole number, not {value!r}"):
        Recipe(**settings | {name: value})


class OneLogit(nn.Module):
    """A linear classifier of two classes with one logit, as (B, 1) or (B,)."""

    def __init__(self, flat):
        super().__init__()
        self.flat, self.out = flat, nn.Linear(64, 1)

    def forward(self, images):
        logit = self.out(images.flatten(1))
        return logit.squeeze(1) if self.flat else logit


@pytest.mark.parametrize("flat", [False, True])
def test_one_logit_is_trained_by_its_binary_cross_entropy(flat, tmp_path):
    data = digits(size=8)
    pairs = {
        name: TensorSplit(split.pixels, (split.labels >= 5).long(), split.ids, split.normalisation)
        for name, split in (("train", data.train), ("val", data.val))
    }
    data = replace(data, classes=("low", "high"), **pairs)
    torch.manual_seed(0)
    model = OneLogit(flat)
    weight, bias = model.out.weight.detach().clone(), model.out.bias.detach().clone()
    recipe = Recipe(epochs=1, batch_size=len(data.train), optimizer=partial(torch.optim.SGD, lr=0.1))
    (row,) = train(model, data, recipe, tmp_path, quiet=True)
    images, labels = data.train.batch(torch.arange(len(data.train))).flatten(1), pairs["train"].labels
    z = (images @ weight.T + bias).squeeze(1).double()
    assert row["loss"] == pytest.approx(float(torch.log1p(torch.exp(-z * (2 * labels - 1))).mean()), rel=1e-5)
    slope = (z.sigmoid() - labels) / len(labels)
    torch.testing.assert_close(
        model.out.weight.detach(), weight - 0.1 * (slope.float() @ images), rtol=1e-4, atol=1e-6
    )
    images, labels = data.val.batch(torch.arange(len(data.val))), pairs["val"].labels
    hits = ((model(images).reshape(-1) >= 0).long() == labels).double()
    assert row["val_accuracy"] == pytest.approx(100 * float(hits.mean()))
    assert accuracy(model, data.val).tolist() == hits.bool().tolist()


def test_without_a_terminal_the_training_says_where_it_is(tmp_path, monkeypatch, caplog):
    now = [0.0]

    def monotonic() -> float:
        now[0] += 6  # is asked once an epoch, and at the start
        return now[0]

    monkeypatch.setattr("cpath.callbacks.time", SimpleNamespace(monotonic=monotonic))
    model = resnet8_narrow(10, DATA.shape, width=2)
    with caplog.at_level("INFO"):
        history = train(model, DATA, _recipe(4), tmp_path, name="my training")
    said = [message for message in caplog.messages if message.startswith("my training")]
    # After 6, 12, 18 and 24 seconds; a line needs ten since the last one, and the last epoch says itself.
    accuracy_then = history[1]["val_accuracy"]
    assert said == [f"my training: epoch 2 of 4, validation {accuracy_then:.1f} %, 12 s left"]
