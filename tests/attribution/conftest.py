from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests import zoo


@pytest.fixture(params=list(zoo.MODELS))
def model64(request: pytest.FixtureRequest) -> nn.Module:
    return zoo.make(request.param, torch.float64)


@pytest.fixture
def images64() -> Tensor:
    return zoo.images(dtype=torch.float64)
