from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from cpath import training_memory
from cpath.data import ImageData, TensorSplit, digits
from cpath.errors import InputError
from cpath.models import resnet8_narrow
from cpath.stacked import Member, train_stacked
from cpath.training import Hardware, Recipe, train
from cpath.training_memory import check_memory, memory_of, saved_for_backward

CPU = torch.device("cpu")
RECIPE = Recipe(1, 128, torch.optim.Adam)


class Layers(nn.Module):
    """Convolution, batch normalisation and ReLU, of which autograd keeps known tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, images):
        return self.bn(self.conv(images)).relu().flatten(1)


def test_what_the_backward_pass_keeps_is_counted_once():
    model = Layers()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    # The image, the outputs of convolution and ReLU, and mean and deviation of 4 channels for both images together.
    assert saved_for_backward(model, (1, 8, 8)) == 4 * (64 + 4 * 64 + 4 * 64 + 2 * 4 / 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


def test_the_memory_of_a_machine_is_that_of_its_system(monkeypatch):
    monkeypatch.setattr(training_memory.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.get)
    assert memory_of(CPU) == 4_096_000
    assert memory_of(torch.device("meta")) is None


def _data() -> ImageData:
    data = digits(size=8)

    def in_bytes(split: TensorSplit) -> TensorSplit:
        return TensorSplit((255 * split.pixels).byte(), split.labels, split.ids, split.normalisation)

    return replace(data, train=in_bytes(data.train), val=in_bytes(data.val))


@pytest.mark.parametrize(("batch", "at_once", "in_16_bits"), [(128, 1, False), (512, 1, True), (64, 5, False)])
def test_what_needs_just_more_than_there_is_is_refused(monkeypatch, batch, at_once, in_16_bits):
    data, model = _data(), Layers()
    weights = 2 * 4 * (4 * 9 + 4 + 8)
    step = batch * 2320 * (0.5 if in_16_bits else 1)
    needed = at_once * (weights + step + 64 * (1257 + 180))
    settings = {"at_once": at_once, "in_16_bits": in_16_bits}
    monkeypatch.setattr(training_memory, "memory_of", lambda device: needed)
    check_memory(model, data, batch, CPU, **settings)
    monkeypatch.setattr(training_memory, "memory_of", lambda device: needed - 1)
    who = "the training needs" if at_once == 1 else "5 trainings at a time need"
    with pytest.raises(InputError, match=rf"^{who} at least .* GB on cpu, which has .*Lower recipe\.batch_size"):
        check_memory(model, data, batch, CPU, **settings)
    # Images that stay where they are need no memory of the device.
    check_memory(model, data, batch, CPU, memory_gb=1e-6, **settings)


def test_trainings_that_cannot_fit_are_refused_before_they_begin(monkeypatch, tmp_path):
    data, model = _data(), resnet8_narrow(10, (1, 8, 8), width=2)
    monkeypatch.setattr(training_memory, "memory_of", lambda device: 150_000)
    with pytest.raises(InputError, match=r"the training needs at least .* GB for a batch"):
        train(model, data, RECIPE, tmp_path, quiet=True)
    monkeypatch.setattr(training_memory, "memory_of", lambda device: 4_000_000)
    members = [Member(model, data, seed) for seed in range(40)]
    with pytest.raises(InputError, match=r"40 trainings at a time need .*experiment\.stacked"):
        train_stacked(members, RECIPE, tmp_path / "all.ckpt", quiet=True)
    assert not list(tmp_path.iterdir())
    train(model, data, RECIPE, tmp_path, quiet=True)


def test_processes_share_the_batch(monkeypatch):
    data, model = _data(), Layers()
    monkeypatch.setattr(training_memory, "memory_of", lambda device: 2_000_000)
    with pytest.raises(InputError):
        Hardware().check_memory(model, data, 1024)
    Hardware(processes=2).check_memory(model, data, 1024)
