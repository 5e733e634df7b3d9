"""Networks that are trained at once become what each becomes alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cpath import stacked
from cpath.data import Batches, ImageData, TensorSplit, crop_and_flip, digits
from cpath.errors import InputError, TrainingError
from cpath.models import resnet8, resnet8_narrow
from cpath.stacked import Member, check_stackable, train_stacked
from cpath.training import Hardware, Recipe, train
from tests.users_resnet20 import resnet20

SIZE = 8
EXACT = Hardware(precision="64-true")


class UsersSmall(nn.Module):
    """A network of other layers: a group norm, a bias, a functional activation, one logit object."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, stride=2), nn.GroupNorm(2, 4)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("shift", torch.zeros(4, 1, 1))
        self.out = nn.Linear(36, 10)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = torch.nn.functional.gelu(self.norm(self.conv(images)) * self.scale + self.shift)
        return {"logits": self.out(hidden.flatten(1))}


NETWORKS = {
    "resnet8": partial(resnet8, 10, (1, SIZE, SIZE), width=2),
    "resnet8_narrow": partial(resnet8_narrow, 10, (1, SIZE, SIZE), width=2),
    "users_resnet20": partial(resnet20, 10, (1, SIZE, SIZE)),
    "users_small": UsersSmall,
}
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "adam": partial(torch.optim.Adam, lr=1e-2, weight_decay=1e-3),
}


def _recipe(epochs: int = 2, optimizer: str = "adam", **changes: Any) -> Recipe:
    scheduler = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    augmentation = partial(crop_and_flip, crop=1, flip=True)
    return Recipe(**{"augmentation": augmentation, **changes}, **_plain(epochs, optimizer, scheduler))


def _plain(epochs: int, optimizer: str, scheduler: Any) -> dict[str, Any]:
    return {"epochs": epochs, "batch_size": 16, "optimizer": OPTIMIZERS[optimizer], "scheduler": scheduler}


def _data(number: int) -> ImageData:
    """42 and 20 digits, so that a batch has a remainder; some of their pixels are gone, others for each number."""
    whole = digits(size=SIZE)

    def without(split: TensorSplit, count: int) -> TensorSplit:
        gone = torch.rand(count, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(number)) < 0.1 * number
        return TensorSplit(
            split.pixels[:count].masked_fill(gone, 0.5), split.labels[:count], split.ids, split.normalisation
        )

    return replace(whole, train=without(whole.train, 42), val=without(whole.val, 20))


def _members(network: Any, count: int = 3) -> list[Member]:
    """Members of different images, seeds and initial weights."""
    found = []
    for number in range(count):
        torch.manual_seed(number)
        found.append(Member(network(), _data(number), seed=10 + number, name=f"cell {number}"))
    return found


def _alone(
    members: Sequence[Member], recipe: Recipe, folder: Any, hardware: Hardware
) -> list[list[dict[str, float]]]:
    return [
        train(one.model, one.data, recipe, folder / str(number), seed=one.seed, hardware=hardware, quiet=True)
        for number, one in enumerate(members)
    ]


def _assert_same(
    found: Sequence[Any], members: Sequence[Member], expected: Sequence[Any], alone: Sequence[Member], near: float
) -> None:
    for rows, member, wanted, single in zip(found, members, expected, alone, strict=True):
        assert [row.keys() for row in rows] == [row.keys() for row in wanted]
        for row, other in zip(rows, wanted, strict=True):
            assert row == pytest.approx(other, rel=near)
        assert not member.model.training
        for (name, tensor), other in zip(
            member.model.state_dict().items(), single.model.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(tensor, other, rtol=near, atol=near, msg=name)


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [
        ("resnet8", "adam"),
        ("resnet8_narrow", "sgd"),
        pytest.param("users_resnet20", "adam", marks=pytest.mark.slow),
        ("users_small", "sgd"),
    ],
)
def test_networks_trained_at_once_are_those_trained_alone(tmp_path, network, optimizer):
    members, alone = _members(NETWORKS[network]), _members(NETWORKS[network])
    recipe = _recipe(optimizer=optimizer)
    found = train_stacked(members, recipe, tmp_path / "all.ckpt", hardware=EXACT, quiet=True)
    _assert_same(found, members, _alone(alone, recipe, tmp_path, EXACT), alone, 1e-6)
    weights = [torch.cat([tensor.flatten() for tensor in one.model.parameters()]) for one in members]
    assert not torch.allclose(weights[0], weights[1], rtol=1e-2)  # they are different networks
    assert all(len({row["loss"] for row in rows}) == 2 for rows in found)


@pytest.mark.parametrize(
    ("hardware", "near"),
    [(Hardware(), 1e-3), (Hardware(precision="bf16-mixed"), 0.2)],
    ids=["float32", "bf16"],
)
def test_switches_of_speed_change_the_numbers_by_rounding_alone(tmp_path, hardware, near):
    members, alone = (_members(NETWORKS["resnet8_narrow"], 2) for _ in range(2))
    found = train_stacked(members, _recipe(1), tmp_path / "all.ckpt", hardware=hardware, quiet=True)
    for (row,), (other,) in zip(found, _alone(alone, _recipe(1), tmp_path, Hardware()), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=near)


def test_a_network_whose_loss_is_nan_leaves_the_others(tmp_path, caplog):
    members, alone = (_members(NETWORKS["resnet8_narrow"]) for _ in range(2))
    broken = members[1].data.train
    broken.pixels[7] = math.nan
    found = train_stacked(members, _recipe(), tmp_path / "all.ckpt", hardware=EXACT, quiet=True)
    assert isinstance(found[1], TrainingError)
    said = "cell 1: the training has diverged: its loss is nan after epoch 1. Lower the learning rate"
    assert str(found[1]).startswith(said)
    assert [message.startswith(said) for message in caplog.messages] == [True]
    kept = [0, 2]
    expected = _alone([alone[number] for number in kept], _recipe(), tmp_path, EXACT)
    _assert_same(
        [found[number] for number in kept],
        [members[number] for number in kept],
        expected,
        [alone[number] for number in kept],
        1e-6,
    )


def test_where_every_loss_is_nan_the_training_ends(tmp_path):
    members = _members(NETWORKS["resnet8_narrow"], 2)
    for member in members:
        member.data.train.pixels[0] = math.nan
    found = train_stacked(members, _recipe(50), tmp_path / "all.ckpt", quiet=True)
    assert all(isinstance(one, TrainingError) for one in found)


@pytest.mark.parametrize("nan", [False, True])
def test_a_stopped_training_goes_on_from_its_last_checkpoint(tmp_path, monkeypatch, nan):
    monkeypatch.setattr(stacked, "_EVERY", 0.0)
    whole, resumed = (_members(NETWORKS["resnet8_narrow"]) for _ in range(2))
    if nan:
        for members in (whole, resumed):
            members[0].data.train.pixels[0] = math.nan
    expected = train_stacked(whole, _recipe(4), tmp_path / "whole.ckpt", hardware=EXACT, quiet=True)
    batches, begun = Batches.__iter__, []

    def dies(self: Batches) -> Any:
        begun.append(len(self.split) == 42)
        if sum(begun) == 3 * 3:  # in the third epoch
            raise KeyboardInterrupt
        return batches(self)

    file = tmp_path / "resumed.ckpt"
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "__iter__", dies)
        with pytest.raises(KeyboardInterrupt):
            train_stacked(resumed, _recipe(4), file, hardware=EXACT, quiet=True)
    assert file.exists()
    found = train_stacked(resumed, _recipe(4), file, hardware=EXACT, quiet=True)
    for one, other in zip(found, expected, strict=True):
        assert str(one) == str(other) if isinstance(other, TrainingError) else one == other
    for one, other in zip(resumed, whole, strict=True):
        for name, tensor in other.model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_a_training_at_once_leaves_the_process_as_it_was(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    members = _members(NETWORKS["resnet8_narrow"], 2)
    torch.set_rng_state(before)
    with torch.no_grad():
        train_stacked(members, _recipe(1), tmp_path / "all.ckpt", quiet=True)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


class _Mine(torch.optim.SGD):
    """An optimizer of a user's, which may do anything."""


def _by_shape(parameters: Any) -> torch.optim.Optimizer:
    """No weight decay for what is no matrix: a stack of vectors would be taken for one."""
    decayed: dict[bool, list[Any]] = {True: [], False: []}
    for one in parameters:
        decayed[one.dim() > 1].append(one)
    groups = [{"params": ones, "weight_decay": 0.1 * matrix} for matrix, ones in decayed.items()]
    return torch.optim.SGD(groups, lr=0.1)


@pytest.mark.parametrize(
    ("optimizer", "told"),
    [
        (torch.optim.LBFGS, "LBFGS may change a weight by the gradients of others"),
        (partial(torch.optim.Adafactor, lr=0.1), "Adafactor may change a weight by the gradients of others"),
        (partial(_Mine, lr=0.1), "_Mine may change a weight"),
        (_by_shape, "groups of parameters depend on the shapes"),
    ],
)
def test_an_optimizer_that_mixes_weights_is_refused(optimizer, told):
    recipe = replace(_recipe(), optimizer=optimizer)
    with pytest.raises(InputError, match=f"trainings cannot be computed together: .*{told}"):
        check_stackable(NETWORKS["resnet8_narrow"](), recipe, (1, SIZE, SIZE))


def test_groups_of_parameters_that_do_not_look_at_shapes_are_fine(tmp_path):
    def halves(parameters: Any) -> torch.optim.Optimizer:
        ones = list(parameters)
        groups = [{"params": ones[:5], "lr": 0.1}, {"params": ones[5:], "lr": 0.01}]
        return torch.optim.SGD(groups, momentum=0.9)

    members, alone = (_members(NETWORKS["resnet8_narrow"], 2) for _ in range(2))
    recipe = replace(_recipe(), optimizer=halves)
    found = train_stacked(members, recipe, tmp_path / "all.ckpt", hardware=EXACT, quiet=True)
    _assert_same(found, members, _alone(alone, recipe, tmp_path, EXACT), alone, 1e-6)


class _Reads(nn.Module):
    """Looks at values, which have no single one for several networks."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(SIZE * SIZE, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.out(images.flatten(1))
        return logits if logits.sum() > 0 else -logits


class _Draws(_Reads):
    """Draws where torch does not see it."""

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = random.random() * self.out(images.flatten(1))
        return logits


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(SIZE * SIZE, 10)), "cannot run the network .*random"),
        (_Reads(), "cannot run the network"),
        (_Draws(), "gives other numbers than alone"),
    ],
)
def test_a_network_that_cannot_be_one_of_several_is_refused_and_left_as_it_was(network, told, tmp_path):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    data = digits(size=SIZE)
    with pytest.raises(InputError, match=told):
        train_stacked([Member(network, data, 0), Member(network, data, 1)], _recipe(), tmp_path / "all.ckpt")
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training


@pytest.mark.parametrize(
    ("hardware", "told"),
    [
        (Hardware(processes=2), r"several processes \(trainer\.processes\)"),
        (Hardware(compile=True), r"trainer\.compile=true"),
        (Hardware(precision="16-mixed"), r"trainer\.precision=16-mixed is not one of 32-true, 64-true, bf16-mixed"),
    ],
)
def test_hardware_that_several_cannot_share_is_refused(hardware, told):
    with pytest.raises(InputError, match=told):
        check_stackable(NETWORKS["resnet8_narrow"](), _recipe(), (1, SIZE, SIZE), hardware)


def test_different_numbers_of_images_are_refused(tmp_path):
    members = _members(NETWORKS["resnet8_narrow"], 2)
    fewer = replace(members[0].data, train=members[0].data.val)
    with pytest.raises(InputError, match="equally many images of one shape"):
        train_stacked([replace(members[0], data=fewer), members[1]], _recipe(), tmp_path / "all.ckpt")
