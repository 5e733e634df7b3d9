"""Image files decoded once and held in memory: the pixels of the files, the training images' moments, the cache."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cpath.data import FileSplit, ImageData, imagefolder
from cpath.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 3)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "images"


def _held(root: Path, **settings: object) -> ImageData:
    return imagefolder(str(root), size=8, mean=None, std=None, in_memory=True, val_share=0.25, **settings)


def _pixels(root: Path, ids: tuple[str, ...], part: str = "train") -> np.ndarray:
    """(N, 3, 8, 8) in [0, 1], read file by file."""
    return np.stack([np.asarray(Image.open(root / part / name)).transpose(2, 0, 1) / 255 for name in ids])


def test_images_in_memory_are_those_of_the_files_normalised_by_the_training_images(root):
    data = _held(root)
    assert (len(data.train), len(data.val), len(data.test)) == (12, 4, 6)
    train = _pixels(root, data.train.ids)
    mean, std = train.mean((0, 2, 3)), train.std((0, 2, 3))
    assert data.normalisation.mean == pytest.approx(mean.tolist())
    assert data.normalisation.std == pytest.approx(std.tolist())
    for split, part in ((data.train, "train"), (data.val, "train"), (data.test, "test")):
        expected = (_pixels(root, split.ids, part) - mean[:, None, None]) / std[:, None, None]
        found = split.batch(torch.arange(len(split)))
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)


def test_they_are_the_images_that_are_read_one_by_one(root):
    settings = {"size": 6, "resize": 7, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
    held, read = (imagefolder(str(root), in_memory=in_memory, **settings) for in_memory in (True, False))
    assert held.settings == read.settings  # a model trained on one serves the other
    indices = torch.tensor([5, 0, 2])
    torch.testing.assert_close(held.test.batch(indices), read.test.batch(indices))
    assert held.test.ids == read.test.ids
    assert torch.equal(held.train.labels, read.train.labels)


def test_digests_stay_what_they_were_and_follow_files_and_cut(root):
    """Trained models are kept under the one, decoded images under the other."""
    split = imagefolder(str(root), size=6, resize=7).test
    lines = [f"{name}:{(root / 'test' / name).stat().st_size}" for name in split.ids]
    short = [
        hashlib.sha256(text.encode()).hexdigest()[:16]
        for text in ("\n".join(lines), "7 6" + "".join(f"{line}\n" for line in lines))
    ]
    assert [split.digest(), split.digest(with_size=True)] == short
    other = imagefolder(str(root), size=6, resize=8).test
    assert other.digest() == split.digest()
    assert other.digest(with_size=True) != split.digest(with_size=True)
    assert imagefolder(str(root), size=6, resize=7).settings["files"]["test"] == short[0]


def test_images_are_decoded_once(root, tmp_path, monkeypatch):
    first = _held(root, cache=str(tmp_path / "cache"))
    monkeypatch.setattr(FileSplit, "read", lambda *_: pytest.fail("decoded again"))
    again = _held(root, cache=str(tmp_path / "cache"))
    assert again.settings == first.settings
    indices = torch.arange(12)
    assert torch.equal(again.train.batch(indices), first.train.batch(indices))


def test_other_files_are_decoded_anew(root, tmp_path):
    first = _held(root, cache=str(tmp_path / "cache"))
    Image.new("RGB", (8, 8), (255, 0, 0)).save(root / "test" / "cat" / "0.png")
    again = _held(root, cache=str(tmp_path / "cache"))
    assert again.settings["files"]["test"] != first.settings["files"]["test"]
    red = again.normalisation.invert(again.test.batch(torch.tensor([0])))
    torch.testing.assert_close(red[0, :, 0, 0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-5, rtol=0)


def test_the_first_so_many_of_each_class_train(root):
    data = _held(root, per_class=4)
    assert len(data.train) + len(data.val) == 8
    assert {int(name.split("/")[1][0]) for name in (*data.train.ids, *data.val.ids)} == {0, 1, 2, 3}
    assert len(data.test) == 6
    assert data.settings != _held(root).settings


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"in_memory": False, "mean": None}, r"in_memory=True \(dataset\.in_memory=true\)"),
        ({"in_memory": True, "val_share": 1.0}, "val_share must be between 0 and 1"),
    ],
)
def test_settings_without_sense_are_errors(root, settings, part):
    with pytest.raises(InputError, match=part):
        imagefolder(str(root), **settings)


def test_more_than_memory_should_hold_is_an_error(root, monkeypatch):
    monkeypatch.setattr("cpath.data.memory._MOST_GB", 1e-6)
    with pytest.raises(InputError, match=r"too many to hold: pass in_memory=False"):
        _held(root)


def test_moments_need_training_images(root):
    with pytest.raises(InputError, match="mean and std of the pixels must be given"):
        _held(root / "test")


def test_images_are_decoded_without_a_bar_where_tqdm_is_absent(root, monkeypatch):
    expected = _held(root)
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert torch.equal(_held(root).train.pixels, expected.train.pixels)
