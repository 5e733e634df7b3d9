from __future__ import annotations

import pytest
import torch

from cpath.data import crop_and_flip
from cpath.errors import InputError


@pytest.mark.parametrize("crop", [-1, True, 1.5, "2", None])
def test_a_crop_that_cannot_be_is_refused(crop):
    with pytest.raises(InputError, match="crop must be at least 0, a whole number, not"):
        crop_and_flip(torch.zeros(2, 3, 8, 8), torch.Generator(), crop=crop)
