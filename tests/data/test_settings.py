from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import pytest

from cpath.data import cifar10, digits, imagefolder, imagenet
from cpath.errors import InputError
from tests.data.wrong import NO_COLOURS, NO_COUNTS, NO_FLAGS, NO_NUMBERS


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
