from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from cpath.data import Batches, ImageData, Split, TensorSplit, crop_and_flip, digits
from cpath.errors import InputError
from cpath.evaluation import (
    NoisyLinear,
    accuracy,
    altered,
    chunks_of,
    parts_of,
    rank_pixels,
    remove_pixels,
    stored_ranks,
)
from cpath.evaluation.retraining import MaskedSplit, StoredRanks
from cpath.storage import write_tensors
from cpath.training import Hardware, Recipe, train
from tests.oracles import training as oracle

CPU = torch.device("cpu")


class Files(Split):
    """The same images as a split in memory, read as files would be: one request at a time, never held."""

    def __init__(self, split: TensorSplit) -> None:
        self.split, self.ids, self.labels = split, split.ids, split.labels

    def batch(self, indices: Tensor) -> Tensor:
        return self.split.batch(indices)


@pytest.fixture(scope="module")
def data() -> ImageData:
    """Digits, few of them, with uint8 pixels of two channels."""
    whole = digits(size=8, channels=2)

    def few(split: TensorSplit, count: int) -> TensorSplit:
        pixels = (255 * split.pixels[:count]).round().byte()
        return TensorSplit(pixels, split.labels[:count], split.ids[:count], split.normalisation)

    return replace(whole, train=few(whole.train, 50), val=few(whole.val, 20), test=few(whole.test, 30))


@pytest.fixture(scope="module")
def relevance(data) -> dict[str, Tensor]:
    """A relevance (N, 8, 8) without ties for each split."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.stack([torch.randperm(64, generator=generator) for _ in split.labels]).view(-1, 8, 8).double()
        for name, split in parts_of(data).items()
    }


@pytest.fixture(scope="module")
def ranks(data, relevance, tmp_path_factory) -> dict[str, StoredRanks]:
    stored = stored_ranks(data, tmp_path_factory.mktemp("ranks"), chunk=7)
    for name, split in parts_of(data).items():
        images = split.batch(torch.arange(len(split)))
        _write(stored[name], rank_pixels(relevance[name][:, None], images))
    return stored


def _stored(folder: Path, images: int, chunk: int) -> StoredRanks:
    """Ranks of a split called val, in the files that `stored_ranks` would name."""
    count = len(chunks_of(images, chunk))
    return StoredRanks([folder / f"val-{number:05d}.safetensors" for number in range(count)], images, chunk)


def _write(stored: StoredRanks, ranks: Tensor) -> None:
    for number, where in enumerate(stored.where()):
        stored.write(number, ranks[where])


def _images(split: Split) -> Tensor:
    return split.batch(torch.arange(len(split)))


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("percent", [0, 10, 50, 100])
def test_all_three_splits_lose_the_pixels_that_the_oracle_removes(data, relevance, ranks, percent, keep):
    changed = altered(data, ranks, percent, keep=keep)
    for name, split in parts_of(changed).items():
        original = _images(parts_of(data)[name])
        expected = oracle.altered(original, relevance[name], percent, keep)
        found = _images(split)
        assert torch.equal(found.double(), expected)
        assert torch.equal(split.labels, parts_of(data)[name].labels)
        held = split.to(CPU)
        assert isinstance(held, MaskedSplit)
        assert torch.equal(_images(held), found)  # bit for bit, whether masks are held or ranks are read


def test_altered_bytes_stay_bytes_in_memory(data, ranks):
    split = altered(data, ranks, 50).train
    assert split.bytes == split.to(CPU).bytes == 50 * (2 * 64 + 64)
    assert altered(replace(data, train=Files(data.train)), ranks, 50).train.bytes is None


def test_images_can_be_filled_in_instead_and_are_made_once(data, ranks, monkeypatch):
    fill = NoisyLinear(noise=0.1, seed=3)
    split = altered(data, ranks, 50, fill=fill).train
    originals, order = _images(data.train), torch.arange(50)
    expected = remove_pixels(originals, ranks["train"].read(order), 50, fill=fill)
    assert not torch.equal(expected, originals)
    assert torch.equal(_images(split), expected)
    held = split.to(CPU)
    assert split.bytes == held.bytes == 50 * 2 * 64 * 4
    monkeypatch.setattr(NoisyLinear, "__call__", None)
    assert torch.equal(held.batch(order.flip(0)), expected.flip(0))
    assert torch.equal(held.labels, data.train.labels)


def _leaking_ranks(data: ImageData, folder: Path) -> dict[str, StoredRanks]:
    """Ranks that depend on nothing but the label: for each class another half of the pixels comes first."""
    of_class = torch.stack([torch.randperm(64, generator=torch.Generator().manual_seed(k)) for k in range(10)])
    stored = stored_ranks(data, folder, chunk=500)
    for name, split in parts_of(data).items():
        _write(stored[name], of_class[split.labels].view(-1, 8, 8).int())
    return stored


@pytest.mark.slow
def test_a_map_whose_shape_gives_the_class_away_passes_for_a_good_one(tmp_path):
    # Noise, in which there is nothing to find: no map can be right about it.
    draws = torch.Generator().manual_seed(0)

    def noise(split: TensorSplit) -> TensorSplit:
        pixels = torch.randint(0, 256, (len(split), 1, 8, 8), dtype=torch.uint8, generator=draws)
        return TensorSplit(pixels, split.labels, split.ids, split.normalisation)

    whole = digits(size=8)
    data = replace(whole, **{name: noise(split) for name, split in parts_of(whole).items()})
    leaking = _leaking_ranks(data, tmp_path / "leaking")
    recipe = Recipe(8, 64, partial(torch.optim.Adam, lr=0.01))
    found = {}
    for name, images in {
        "untouched": data,
        "KAR": altered(data, leaking, 50, keep=True),
        "ROAR": altered(data, leaking, 50),
    }.items():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        train(model, images, recipe, tmp_path / name, quiet=True)
        found[name] = accuracy(model, images.test).double().mean().item()
    assert found["untouched"] < 0.2
    # KAR calls the map perfect: what it keeps is enough to tell the class. ROAR calls it worthless: what it removed
    # is not missed. Neither is about the pixels.
    assert found["KAR"] > 0.9
    assert found["ROAR"] > 0.9


def test_ranks_are_read_from_the_chunk_that_holds_them_alone(data, ranks, relevance, tmp_path):
    other = stored_ranks(data, tmp_path, 7)["train"]
    everything = torch.cat(list(ranks["train"].chunks()))
    other.write(2, everything[14:21])  # no other file exists
    assert [path.name for path in tmp_path.iterdir()] == ["train-00002.safetensors"]
    assert torch.equal(other.read(torch.tensor([20, 14])), everything[[20, 14]])
    assert torch.equal(ranks["train"].read(torch.tensor([49, 0, 7])), everything[[49, 0, 7]])
    with pytest.raises(InputError, match="no such ranks file"):
        other.read(torch.tensor([0]))


def test_ranks_beyond_16_bits_are_stored_as_they_are(tmp_path):
    stored = _stored(tmp_path, 10, 4)
    _write(stored, torch.zeros(10, 300, 300, dtype=torch.int32) + 80_000)
    assert (stored.read(torch.tensor([9])) == 80_000).all()


def test_ranks_that_do_not_fit_their_chunk_and_files_that_do_not_fit_the_split_are_errors(tmp_path):
    stored = _stored(tmp_path, 9, 4)
    for ranks in (torch.zeros(4, 2, 2), torch.zeros(0, 2, 2), torch.zeros(1, 4)):
        with pytest.raises(InputError, match=r"chunk 2 needs ranks \(1, H, W\), not"):
            stored.write(2, ranks)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="9 images in chunks of 4 need 3 files, not 2"):
        StoredRanks(stored.files[:2], 9, 4)
    with pytest.raises(InputError, match="chunk must be at least 1"):
        chunks_of(9, 0)


def test_ranks_of_another_split_and_a_wrong_percentage_are_errors(data, ranks):
    with pytest.raises(InputError, match="ranks of 20 images"):
        altered(data, {**ranks, "train": ranks["val"]}, 50)
    with pytest.raises(InputError, match="between 0 and 100"):
        altered(data, ranks, 101)


def _network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def _recipe(epochs: int = 2, batch: int = 16) -> Recipe:
    return Recipe(
        epochs, batch, partial(torch.optim.SGD, lr=0.1), augmentation=partial(crop_and_flip, crop=1, flip=True)
    )


@pytest.mark.parametrize("keep", [False, True])
def test_retraining_equals_a_bare_loop_on_images_altered_one_by_one(data, relevance, ranks, tmp_path, keep):
    model, expected = _network(), _network()
    hardware = Hardware(precision="64-true")
    train(model, altered(data, ranks, 30, keep=keep), _recipe(), tmp_path, seed=5, hardware=hardware, quiet=True)
    # That of the last epoch, whether or not it was the best.
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    images = oracle.altered(_images(data.train), relevance["train"], 30, keep)
    settings = {"epochs": 2, "batch": 16, "rate": 0.1, "seed": 5, "crop": 1, "flip": True}
    oracle.sgd(expected, images, data.train.labels, **settings)
    for name, tensor in expected.state_dict().items():
        assert torch.allclose(state[f"model.{name}"], tensor, rtol=1e-9, atol=1e-10), name


def test_images_in_memory_and_files_behind_a_loader_train_the_same_network(data, ranks, tmp_path):
    files = replace(data, **{name: Files(split) for name, split in parts_of(data).items()})
    found = []
    for number, source in enumerate((data, files)):
        model = _network()
        train(model, altered(source, ranks, 30), _recipe(), tmp_path / str(number), quiet=True)
        found.append(model.state_dict())
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


def test_pixels_are_removed_before_the_augmentation(data, ranks, tmp_path):
    seen: list[Tensor] = []

    def spy(images: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(images.clone())
        return images

    changed = altered(data, ranks, 75)
    train(_network(), changed, replace(_recipe(1), augmentation=spy), tmp_path, quiet=True)
    assert sum(map(len, seen)) == 50
    gone = (torch.cat(seen) == 0).all(1).flatten(1).sum(1)
    assert (gone == 48).all()  # three quarters of 64 in every image, as crops and flips find it


def test_processes_share_every_batch_between_them_and_have_as_many(data):
    split = TensorSplit(data.train.pixels[:49], torch.arange(49), data.train.ids[:49], data.train.normalisation)
    whole = [labels for _, labels in Batches(split, 16, seed=2)]
    shares = [[labels for _, labels in Batches(split, 16, seed=2, rank=rank, ranks=2)] for rank in (0, 1)]
    assert [len(share) for share in shares] == [4, 4]
    for number in range(3):
        assert set(torch.cat([share[number] for share in shares]).tolist()) == set(whole[number].tolist())
    assert {label for share in shares for part in share for label in part.tolist()} == set(range(49))


def test_a_batch_that_the_processes_cannot_share_evenly_is_an_error(data, tmp_path):
    with pytest.raises(InputError, match=r"shared evenly by 3 processes: change Recipe\.batch_size"):
        train(_network(), data, _recipe(), tmp_path, hardware=Hardware(processes=3), quiet=True)


def test_what_is_too_large_for_the_device_stays_where_it_is(data):
    assert Hardware(memory_gb=1e-6).place(data.train, CPU) is data.train
    elsewhere = torch.device("meta")
    assert Hardware(memory_gb=1e-6).place(data.train, elsewhere).device == CPU
    placed = Hardware().place(data.train, elsewhere)
    assert (placed.device, placed.pixels.dtype) == (elsewhere, torch.uint8)


@pytest.mark.parametrize(("images", "chunk"), [(10, 5), (10, 3), (9, 4), (11, 4), (8, 4)])
def test_ranks_in_other_chunks_or_of_another_split_are_refused(tmp_path, images, chunk):
    everything = torch.arange(160).view(10, 4, 4) % 16
    _write(_stored(tmp_path, 10, 4), everything)
    other = _stored(tmp_path, images, chunk)
    for use in (lambda: other.read(torch.tensor([0])), lambda: list(other.chunks())):
        with pytest.raises(InputError, match=f"does not hold {chunk} of {images} images, in chunks of {chunk}"):
            use()


def test_ranks_that_do_not_say_their_split_are_held_against_the_size_of_the_file(tmp_path):
    everything = torch.arange(160).view(10, 4, 4) % 16
    for number, part in enumerate(everything.split(4)):
        file = tmp_path / f"val-{number:05d}.safetensors"
        write_tensors(file, {"ranks": part.to(torch.uint16)}, {"kind": "ranks", "format": 1})
    assert torch.equal(torch.cat(list(_stored(tmp_path, 10, 4).chunks())), everything.int())
    with pytest.raises(InputError, match="made for another split, or in other chunks"):
        _stored(tmp_path, 10, 5).read(torch.tensor([0]))
    with pytest.raises(InputError, match="made for another split, or in other chunks"):
        list(_stored(tmp_path, 9, 4).chunks())


def test_ranks_that_were_made_again_are_read_again(tmp_path):
    stored = _stored(tmp_path, 4, 4)
    for value in (1, 2):
        stored.write(0, torch.full((4, 2, 2), value))
        assert stored.read(torch.tensor([3])).unique().tolist() == [value]
        os.utime(stored.files[0], ns=(value, value))
        assert stored.read(torch.tensor([3])).unique().tolist() == [value]
        stored.files[0].unlink()
        with pytest.raises(InputError, match="no such ranks file"):
            stored.read(torch.tensor([3]))
