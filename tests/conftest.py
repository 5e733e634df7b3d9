from __future__ import annotations

import gc
import os
from pathlib import Path

import hypothesis
import pytest
import torch
from torch import Tensor, nn

import cpath
from tests import zoo

gc.disable()  # until the tests are collected: nothing of them is garbage

hypothesis.settings.register_profile("cpath", deadline=None, max_examples=40)
hypothesis.settings.load_profile("cpath")


def pytest_collection_finish() -> None:
    """Make the garbage collector rare: it takes a tenth of the time otherwise."""
    gc.set_threshold(50_000, 10, 10)
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # tiny models; the tests themselves run in parallel processes


@pytest.fixture(params=list(zoo.MODELS))
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Each model of the zoo, float32, in eval mode."""
    return zoo.make(request.param)


@pytest.fixture
def images() -> Tensor:
    """(3, 3, 8, 8) float32."""
    return zoo.images()


@pytest.fixture(params=cpath.methods.names())
def method(request: pytest.FixtureRequest) -> cpath.Method:
    """Each registered extraction method, with settings that make it quick."""
    return zoo.quick(request.param)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real weights and images; the test is skipped where it is absent."""
    root = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("CPATH_REAL_DATA", root.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set CPATH_REAL_DATA)")
    return folder
