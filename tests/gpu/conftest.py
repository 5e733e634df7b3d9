from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture
def gpu() -> torch.device:
    """The GPU; or the device that CPATH_GPU names in its place, as ``CPATH_GPU=cpu`` does for a dry run."""
    device = torch.device(os.environ.get("CPATH_GPU", "cuda"))
    if device.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return device
