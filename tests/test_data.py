from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout
from PIL import Image

from cpath.data import Batches, Normalisation, cifar10, crop_and_flip, digits, imagefolder, imagenet, imagenet_wnids
from cpath.errors import InputError


def test_digits_split_every_image_once_with_equal_shares_of_the_classes():
    data = digits(size=16)
    ids = [set(split.ids) for split in (data.train, data.val, data.test)]
    assert [len(split) for split in ids] == [1257, 180, 360]
    assert len(set.union(*ids)) == 1797
    assert data.shape == (1, 16, 16)
    assert torch.bincount(data.test.labels).tolist() == pytest.approx([36] * 10, abs=2)


def test_digits_are_normalised_by_the_training_images():
    data = digits(size=16, channels=3)
    images = data.train.batch(torch.arange(len(data.train)))
    assert images.shape == (1257, 3, 16, 16)
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std().item() == pytest.approx(1, abs=1e-3)
    pixels = data.normalisation.invert(images)
    assert pixels.min() >= -1e-5
    assert pixels.max() <= 1 + 1e-5


def test_digits_show_the_digit_that_the_label_says():
    # A zero has a hole in the middle, a one has ink there.
    data = digits(size=16)
    images = data.normalisation.invert(data.test.batch(torch.arange(360)))
    middle = images[:, 0, 7:9, 7:9].mean((1, 2))
    assert middle[data.test.labels == 0].mean() < 0.2
    assert middle[data.test.labels == 1].mean() > 0.6


def test_sample_is_drawn_by_the_seed_without_replacement():
    split = digits(size=16).test
    first, second = split.sample(50, seed=1), split.sample(50, seed=1)
    assert torch.equal(first, second)
    assert len(set(first.tolist())) == 50
    assert not torch.equal(first, split.sample(50, seed=2))
    assert split.sample(None, seed=0).tolist() == list(range(360))
    with pytest.raises(InputError, match="the split has 360"):
        split.sample(361, seed=0)


def _folder(root: Path, classes: list[str], count: int) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            colour = (40 * number, 100, 10 * index)
            Image.new("RGB", (30, 20), colour).save(root / name / f"{index}.png")
    return root


def test_imagefolder_reads_resizes_and_crops(tmp_path):
    _folder(tmp_path / "test", ["cat", "dog"], 2)
    _folder(tmp_path / "train", ["cat", "dog"], 10)
    data = imagefolder(str(tmp_path), size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert data.classes == ("cat", "dog")
    assert (len(data.train), len(data.val), len(data.test)) == (18, 2, 4)
    image = data.test.batch(torch.tensor([3]))[0]
    assert image.shape == (3, 8, 8)
    assert torch.allclose(image[:, 0, 0] * 255, torch.tensor([40.0, 100.0, 10.0]), atol=0.5)
    assert data.test.ids[3] == "dog/1.png"
    assert not set(data.train.ids) & set(data.val.ids)


def test_imagefolder_without_training_images_evaluates_only(tmp_path):
    _folder(tmp_path, ["cat", "dog"], 1)
    data = imagefolder(str(tmp_path), size=8)
    assert data.train is None
    with pytest.raises(InputError, match="no training images"):
        data.training_splits()


def test_imagefolder_names_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        imagefolder(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no images"):
        imagefolder(str(tmp_path))
    _folder(tmp_path / "train", ["cat"], 2)
    _folder(tmp_path / "test", ["horse"], 1)
    with pytest.raises(InputError, match="horse is no class"):
        imagefolder(str(tmp_path))
    broken = _folder(tmp_path / "other", ["cat"], 1)
    (broken / "cat" / "0.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match="not a readable image"):
        imagefolder(str(broken)).test.batch(torch.tensor([0]))


def test_imagenet_takes_some_of_the_classes_in_the_order_of_the_logits(tmp_path):
    wnids = imagenet_wnids()
    assert len(wnids) == 1000
    assert list(wnids) == sorted(set(wnids))
    _folder(tmp_path / "val", [wnids[7], wnids[999]], 1)
    data = imagenet(str(tmp_path), size=8, resize=9)
    assert data.test.labels.tolist() == [7, 999]
    assert len(data.classes) == 1000
    assert data.classes[0] == "tench"
    with pytest.raises(InputError, match=r"root \(dataset\.root=FOLDER\) names the folder"):
        imagenet(str(tmp_path / "nowhere"))


@pytest.fixture
def downloads(monkeypatch) -> list[bool]:
    """Stands for torchvision's CIFAR-10; notes of each download whether it had the folder to itself."""
    import torchvision.datasets

    alone: list[bool] = []

    class Few:
        classes = ("cat", "dog")

        def __init__(self, root: str, train: bool, download: bool) -> None:
            there = Path(root) / "cifar-10-batches-py"
            if not there.exists() and download:
                with pytest.raises(Timeout), FileLock(Path(root) / ".cifar-10-batches-py.lock", timeout=0):
                    alone.append(False)
                alone.append(True)
                there.mkdir()
            if not there.exists():
                raise RuntimeError("Dataset not found or corrupted.")
            self.data, self.targets = np.full((4, 32, 32, 3), 7 + train, np.uint8), [0, 1, 0, 1]
            self.data[0] += train  # a training set of one colour cannot be normalised

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Few)
    return alone


def test_one_process_downloads_cifar10_while_others_wait(tmp_path, downloads):
    for _ in range(2):
        data = cifar10(str(tmp_path / "data"))
        assert len(data.test) == 4
        assert data.test.pixels.unique().tolist() == [7]
    assert downloads == [True]


def test_cifar10_that_is_there_is_read_without_a_lock(tmp_path, downloads):
    (tmp_path / "cifar-10-batches-py").mkdir()
    cifar10(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


def test_cifar10_is_not_downloaded_unless_asked_for(tmp_path, downloads):
    with pytest.raises(InputError, match="CIFAR-10 is not in"):
        cifar10(str(tmp_path / "data"), download=False)
    assert downloads == []
    assert not (tmp_path / "data").exists()


def test_imagefolder_tests_on_the_validation_folder_where_there_is_no_other(tmp_path):
    _folder(tmp_path / "val", ["cat", "dog"], 3)
    alone = imagefolder(str(tmp_path), size=8)
    assert (alone.train, alone.val, len(alone.test)) == (None, None, 6)
    _folder(tmp_path / "train", ["cat", "dog"], 10)
    data = imagefolder(str(tmp_path), size=8, val_share=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (15, 5, 6)
    assert data.test.root == tmp_path / "val"
    assert data.train.root == data.val.root == tmp_path / "train"
    _folder(tmp_path / "test", ["cat", "dog"], 1)
    data = imagefolder(str(tmp_path), size=8, val_share=0.25)
    assert (len(data.train), len(data.val), len(data.test)) == (20, 6, 2)


def test_imagefolder_with_training_images_alone_is_refused(tmp_path):
    _folder(tmp_path / "train", ["cat", "dog"], 2)
    with pytest.raises(InputError, match=r"training images, but none to evaluate on: root"):
        imagefolder(str(tmp_path), size=8)


def test_a_class_may_be_called_train(tmp_path):
    _folder(tmp_path, ["plane", "train"], 2)
    data = imagefolder(str(tmp_path), size=8)
    assert data.classes == ("plane", "train")
    assert data.test.labels.tolist() == [0, 0, 1, 1]


# Settings that cannot be


NO_COUNTS = [0, -1, True, False, 1.5, "8", float("nan"), 2**63]
NO_FLAGS = [1, 0, "yes", None]
NO_NUMBERS = [float("nan"), float("inf"), "0.5", None, True, 1j]
NO_COLOURS = [0.5, "abc", (), (0.5,), (0.5, 0.5), (0.5,) * 4]


def settings_of(make: Callable[..., object]) -> Iterator[tuple[str, object, str]]:
    """Settings of a dataset that cannot be, and what is said of each."""
    for name, wrong, told in [
        ("size", [*NO_COUNTS, None], "size must be at least 1, a whole number, not"),
        ("resize", NO_COUNTS, "resize must be at least 1, a whole number, not"),
        ("channels", [*NO_COUNTS, None], "channels must be at least 1, a whole number, not"),
        ("per_class", NO_COUNTS, "per_class must be at least 1, a whole number, not"),
        ("download", NO_FLAGS, "download must be true or false, not"),
        ("in_memory", NO_FLAGS, "in_memory must be true or false, not"),
        ("val_share", NO_NUMBERS, "val_share must be a finite number, not"),
        ("val_share", [0, 1, -0.1, 1.1], "val_share must be between 0 and 1, not"),
        ("mean", NO_COLOURS, "mean must be three numbers, for red, green and blue"),
        ("std", NO_COLOURS, "std must be three numbers, for red, green and blue"),
        ("mean", [(0.5, 0.5, value) for value in NO_NUMBERS], "mean must be a finite number, not"),
        ("std", [(0.5, 0.5, value) for value in NO_NUMBERS], "std must be a finite number, not"),
        ("std", [(0.5, 0, 0.5), (0.5, 0.5, -1)], "std must be above 0 in every channel"),
    ]:
        if name in inspect.signature(make).parameters:
            yield from ((name, value, told) for value in wrong)


WRONG = [
    pytest.param(make, *wrong, id=f"{make.__name__}-{wrong[0]}={wrong[1]!r}")
    for make in (cifar10, digits, imagefolder, imagenet)
    for wrong in settings_of(make)
]


@pytest.mark.parametrize(("make", "name", "value", "told"), WRONG)
def test_settings_that_cannot_be_are_refused_before_any_file_is_read(make, name, value, told):
    root = {} if make is digits else {"root": "nowhere"}  # which is said only where the settings can be
    with pytest.raises(InputError, match=f"^{told}"):
        make(**root, **{name: value})


@pytest.mark.parametrize("make", [imagefolder, imagenet])
def test_a_cut_larger_than_the_image_is_refused(make, tmp_path):
    with pytest.raises(InputError, match=r"^resize must be at least size: .* no centre of 300 .*Pass resize=300"):
        make(str(tmp_path / "nowhere"), size=300, resize=256)
    with pytest.raises(InputError, match=r"no such folder|no ImageNet images"):
        make(str(tmp_path / "nowhere"), size=300, resize=300)


def test_digits_are_no_smaller_than_their_scans():
    with pytest.raises(InputError, match="size ≥ 8, the size of the scans; got 7"):
        digits(size=7)
    assert digits(size=8).shape == (1, 8, 8)


@pytest.mark.parametrize("value", NO_COUNTS)
def test_a_sample_of_no_images_is_refused(value):
    with pytest.raises(InputError, match="the number of images must be at least 1, a whole number, not"):
        digits(size=8).test.sample(value, seed=0)


@pytest.mark.parametrize(
    ("mean", "std", "told"),
    [
        ((), (), "a number for each channel; got 0 and 0"),
        ((0.5,), (0.5, 0.5), "a number for each channel; got 1 and 2"),
        ((0.5,), (0.0,), r"std must be above 0 in every channel.*got \(0\.0,\)"),
        ((0.5,), (-1,), "std must be above 0"),
        (0.5, (0.5,), "mean must be numbers, one a channel, not 0.5"),
        ((0.5,), "1", "std must be numbers, one a channel, not '1'"),
        *(((0.5,), (value,), "std must be a finite number, not") for value in NO_NUMBERS),
        *(((value,), (0.5,), "mean must be a finite number, not") for value in NO_NUMBERS),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(mean, std, told):
    with pytest.raises(InputError, match=told):
        Normalisation(mean, std)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        *(({"batch_size": value}, "batch_size must be at least 1, a whole number") for value in NO_COUNTS),
        *(({"ranks": value}, "ranks must be at least 1, a whole number") for value in NO_COUNTS),
        *(({"rank": value}, "rank must be at least 0, a whole number") for value in (-1, False, 0.5, None)),
        ({"rank": 2, "ranks": 2}, "rank must be below the number of ranks, 2, not 2"),
    ],
)
def test_batches_that_cannot_be_are_refused(settings, told):
    with pytest.raises(InputError, match=told):
        Batches(digits(size=8).val, **{"batch_size": 8} | settings)


@pytest.mark.parametrize("crop", [-1, True, 1.5, "2", None])
def test_a_crop_that_cannot_be_is_refused(crop):
    with pytest.raises(InputError, match="crop must be at least 0, a whole number, not"):
        crop_and_flip(torch.zeros(2, 3, 8, 8), torch.Generator(), crop=crop)
