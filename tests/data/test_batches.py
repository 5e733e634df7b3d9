from __future__ import annotations

import pytest

from cpath.data import Batches, digits
from cpath.errors import InputError
from tests.data.wrong import NO_COUNTS


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
