from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from cpath.data import imagefolder, imagenet, imagenet_wnids
from cpath.errors import InputError


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
