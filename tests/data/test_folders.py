from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from cpath.data import imagefolder, imagenet, imagenet_wnids
from cpath.errors import InputError, UnknownNameError


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


def test_imagenet_is_read_as_the_network_at_hand_takes_it(tmp_path):
    wnid = imagenet_wnids()[7]
    (tmp_path / "val" / wnid).mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "val" / wnid / "0.png")
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    data = imagenet(str(tmp_path), size=16, resize=18, interpolation="bicubic", **half)
    resized = Image.fromarray(pixels).resize((24, 18), Image.Resampling.BICUBIC).crop((4, 1, 20, 17))
    expected = torch.from_numpy(np.asarray(resized) / 255).permute(2, 0, 1).float() * 2 - 1
    torch.testing.assert_close(data.test.batch(torch.tensor([0]))[0], expected)
    usual = imagenet(str(tmp_path), size=16, resize=18)
    assert not torch.equal(usual.test.read(torch.tensor([0])), data.test.read(torch.tensor([0])))
    assert set(data.settings) - set(usual.settings) == {"mean", "std", "interpolation"}
    assert usual.test.digest(with_size=True) != data.test.digest(with_size=True)
    with pytest.raises(UnknownNameError, match=r"bicubic"):
        imagenet(str(tmp_path), interpolation="cubic")


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


@pytest.mark.parametrize("make", [imagefolder, imagenet])
def test_a_cut_larger_than_the_image_is_refused(make, tmp_path):
    with pytest.raises(InputError, match=r"^resize must be at least size: no centre of 300 .*Pass resize=300"):
        make(str(tmp_path / "nowhere"), size=300, resize=256)
    with pytest.raises(InputError, match=r"no such folder|no ImageNet images"):
        make(str(tmp_path / "nowhere"), size=300, resize=300)


def _values(folder: Path, **settings: object) -> list[int]:
    """Bytes of the first image of a dataset of one class, of its first channel."""
    split = imagefolder(str(folder), **settings).test
    return split.read(torch.tensor([0]))[0, 0].flatten().tolist()


def test_the_images_are_those_of_torchvisions_imagefolder_in_its_order(tmp_path):
    endings = ("jpg", "JPEG", "png", "ppm", "pgm", "bmp", "tif", "tiff", "webp")
    for place in ("cat", "cat/tabby/old", "cat-like", "dog", "dog/a"):
        (tmp_path / place).mkdir(parents=True)
        for number, ending in enumerate(endings):
            mode = "L" if ending == "pgm" else "RGB"
            Image.new(mode, (6, 5), 20 * number).save(tmp_path / place / f"{number % 3}-x.{ending}")
        (tmp_path / place / "notes.txt").write_text("no image")
    theirs = torchvision.datasets.ImageFolder(str(tmp_path))
    ours = imagefolder(str(tmp_path), size=4)
    assert list(ours.classes) == theirs.classes == ["cat", "cat-like", "dog"]
    assert len(theirs.samples) == 45
    assert [(str(file), label) for file, label in zip(ours.test.files, ours.test.labels.tolist(), strict=True)] == (
        theirs.samples
    )
    cut = Compose([Resize(4), CenterCrop(4), PILToTensor()])
    pixels = ours.test.read(torch.arange(45))
    for number, (image, _) in enumerate(theirs):
        assert torch.equal(pixels[number], cut(image))


def test_hidden_folders_are_no_classes_and_hold_no_images(tmp_path):
    _folder(tmp_path / "test", ["cat", "dog"], 1)
    for place in (".ipynb_checkpoints", ".cache", "__MACOSX", "dog/.thumbnails"):
        (tmp_path / "test" / place).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / "test" / place / "0.png")
    data = imagefolder(str(tmp_path), size=8)
    assert data.classes == ("cat", "dog")
    assert data.test.ids == ["cat/0.png", "dog/0.png"]
    assert data.test.labels.tolist() == [0, 1]


def test_a_hidden_folder_in_a_class_called_train_is_no_class(tmp_path):
    _folder(tmp_path, ["plane", "train"], 1)
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    assert imagefolder(str(tmp_path), size=8).classes == ("plane", "train")


@pytest.mark.parametrize(("ending", "byte_order"), [("png", "<"), ("tif", "<"), ("tif", ">"), ("pgm", ">")])
def test_images_of_16_bits_are_scaled(tmp_path, ending, byte_order):
    (tmp_path / "cat").mkdir()
    file = tmp_path / "cat" / f"0.{ending}"
    values = np.array([[0, 257, 128 * 257], [255 * 257, 1000, 60000]], dtype=f"{byte_order}u2").repeat(2, 0)[:3]
    if ending == "pgm":
        file.write_bytes(b"P5 3 3 65535 " + values.tobytes())
    else:
        mode = "I;16" if byte_order == "<" else "I;16B"
        Image.frombytes(mode, (3, 3), values.tobytes()).save(file)
    assert _values(tmp_path, size=3) == [0, 1, 128, 0, 1, 128, 255, 4, 233]  # 1000 / 257 = 3.9, 60000 / 257 = 233.5


def test_images_of_floats_are_scaled_and_others_refused(tmp_path):
    (tmp_path / "cat").mkdir()
    values = np.array([[0.0, 0.5], [1.0, 0.2]], dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "cat" / "0.tif")
    assert _values(tmp_path, size=2) == [0, 128, 255, 51]
    for wrong, message in (
        (values * 3, r"cat/0\.tif .*floats from 0 to 3; they must lie in \[0, 1\]"),
        (values + float("nan"), "from nan to nan"),
        (
            np.full((2, 2), 70_000, dtype=np.int32),
            r"whole numbers from 70000 to 70000; they must lie in \[0, 65535\]",
        ),
    ):
        Image.fromarray(wrong).save(tmp_path / "cat" / "0.tif")
        with pytest.raises(InputError, match=message):
            _values(tmp_path, size=2)


def test_an_orientation_tag_is_not_applied(tmp_path):
    (tmp_path / "cat").mkdir()
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:4] = 255
    tag = Image.Exif()
    tag[0x0112] = 6  # to be shown turned by 90°
    Image.fromarray(pixels).save(tmp_path / "cat" / "0.png", exif=tag)
    assert _values(tmp_path, size=8) == [255] * 32 + [0] * 32


def test_an_empty_class_is_named(tmp_path):
    _folder(tmp_path / "test", ["cat", "dog"], 1)
    (tmp_path / "test" / "bird" / "young").mkdir(parents=True)
    (tmp_path / "test" / "bird" / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"class 'bird' is empty: no image in .*test/bird\."):
        imagefolder(str(tmp_path), size=8)


def test_a_broken_link_is_named_before_any_work(tmp_path):
    _folder(tmp_path / "test", ["cat", "dog"], 1)
    (tmp_path / "test" / "dog" / "1.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"dog/1\.png is a broken link"):
        imagefolder(str(tmp_path), size=8)


def test_an_image_too_large_to_decode_is_named(tmp_path, monkeypatch):
    _folder(tmp_path / "test", ["cat", "dog"], 1)
    data = imagefolder(str(tmp_path), size=8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)  # PIL refuses twice as many; these have 600
    with pytest.raises(InputError, match=r"dog/0\.png is too large to be decoded safely.*MAX_IMAGE_PIXELS"):
        data.test.read(torch.tensor([1]))


def test_a_file_of_apple_double_is_named(tmp_path):
    _folder(tmp_path / "test", ["cat", "dog"], 1)
    beside = tmp_path / "test" / "dog" / "._0.png"
    Image.new("RGB", (8, 8)).save(beside)  # an image may have such a name
    assert imagefolder(str(tmp_path), size=8).test.ids == ["cat/0.png", "dog/._0.png", "dog/0.png"]
    beside.write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    with pytest.raises(InputError, match=r"dog/\._0\.png is no image but what macOS noted"):
        imagefolder(str(tmp_path), size=8)


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif", "ppm"])
def test_damaged_images_of_every_format_are_named(tmp_path, ending):
    (tmp_path / "cat").mkdir()
    file = tmp_path / "cat" / f"0.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 30, 3), dtype=np.uint8)).save(file)
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", bytes(4) + whole[4:]):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"cat/0\.{ending} is not a readable image"):
            _values(tmp_path, size=2)


def test_images_of_formats_that_are_left_out_are_told(tmp_path):
    _folder(tmp_path / "test", ["cat", "dog"], 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "cat" / "1.gif")
    Image.new("RGB", (8, 8)).save(tmp_path / "test" / "dog" / "2.jfif", format="JPEG")
    with pytest.warns(UserWarning, match=r"left out 2 images .* such as .*cat/1\.gif") as seen:
        data = imagefolder(str(tmp_path), size=8)
    assert [warning.filename for warning in seen] == [__file__]
    assert data.test.ids == ["cat/0.png", "dog/0.png"]
