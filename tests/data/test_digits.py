from __future__ import annotations

import pytest
import torch

from cpath.data import digits
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


def test_digits_are_no_smaller_than_their_scans():
    with pytest.raises(InputError, match="size ≥ 8, the size of the scans; got 7"):
        digits(size=7)
    assert digits(size=8).shape == (1, 8, 8)
