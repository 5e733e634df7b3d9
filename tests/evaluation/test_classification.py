from __future__ import annotations

import torch
from torch import Tensor, nn

from cpath.data import Normalisation, TensorSplit
from cpath.evaluation import accuracy

UNCHANGED = Normalisation((0.0,), (1.0,))


class Counting(nn.Module):
    """Its class is the number of lit pixels; drops all of them while it trains. Notes how many images pass."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(1.0)
        self.passed: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passed.append(len(x))
        return torch.nn.functional.one_hot(self.drop(x).flatten(1).sum(1).long(), 5).float()


def _split() -> TensorSplit:
    pixels = torch.zeros(7, 1, 2, 2)
    for image, lit in enumerate([0, 1, 2, 3, 4, 0, 1]):
        pixels[image].view(-1)[:lit] = 1
    return TensorSplit(pixels, torch.tensor([0, 1, 2, 3, 0, 1, 1]), list("abcdefg"), UNCHANGED)


def test_accuracy_tells_image_by_image_and_leaves_the_model_in_eval_mode() -> None:
    model = Counting().train()
    hits = accuracy(model, _split(), batch_size=3)
    assert hits.tolist() == [True, True, True, True, False, False, True]
    assert not model.training
    assert model.passed == [3, 3, 1]


def test_a_device_may_be_named_in_words() -> None:
    split = _split()
    assert split.to("cpu") is split
    moved = split.to("meta")
    assert (moved.device.type, moved.pixels.device.type) == ("meta", "meta")
    assert moved.ids == split.ids
    assert moved.to(torch.device("meta")) is moved


def test_a_split_is_placed_where_it_has_room() -> None:
    split = _split()
    assert split.bytes == 112
    assert split.placed("meta", memory_gb=112e-9).device.type == "meta"
    assert split.placed("meta", memory_gb=111e-9) is split
