from __future__ import annotations

import pytest
import torch

from cpath.data import Normalisation, digits
from cpath.errors import InputError
from tests.data.wrong import NO_COUNTS, NO_NUMBERS


def test_sample_is_drawn_by_the_seed_without_replacement():
    split = digits(size=16).test
    first, second = split.sample(50, seed=1), split.sample(50, seed=1)
    assert torch.equal(first, second)
    assert len(set(first.tolist())) == 50
    assert not torch.equal(first, split.sample(50, seed=2))
    assert split.sample(None, seed=0).tolist() == list(range(360))
    with pytest.raises(InputError, match="the split has 360"):
        split.sample(361, seed=0)


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
        (0.5, (0.5,), "mean must be numbers, one per channel, not 0.5"),
        ((0.5,), "1", "std must be numbers, one per channel, not '1'"),
        *(((0.5,), (value,), "std must be a finite number, not") for value in NO_NUMBERS),
        *(((value,), (0.5,), "mean must be a finite number, not") for value in NO_NUMBERS),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(mean, std, told):
    with pytest.raises(InputError, match=told):
        Normalisation(mean, std)
