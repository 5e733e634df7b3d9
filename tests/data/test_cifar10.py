from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock, Timeout

from cpath.data import cifar10
from cpath.errors import InputError


@pytest.fixture
def downloads(monkeypatch) -> list[bool]:
    """Stands for torchvision's CIFAR-10; notes of each download whether it had the folder to itself."""
    import torchvision.datasets

    alone: list[bool] = []

    class Few:
        classes = ("cat", "dog")

        def __init__(self, root: str, train: bool, download: bool) -> None:
            there = Path(root) / "cifar-10-batches-py"
            if not there.exists() and download:
                with pytest.raises(Timeout), FileLock(Path(root) / ".cifar-10-batches-py.lock", timeout=0):
                    alone.append(False)
                alone.append(True)
                there.mkdir()
            if not there.exists():
                raise RuntimeError("Dataset not found or corrupted.")
            self.data, self.targets = np.full((4, 32, 32, 3), 7 + train, np.uint8), [0, 1, 0, 1]
            self.data[0] += train  # a training set of one colour cannot be normalised

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Few)
    return alone


def test_one_process_downloads_cifar10_while_others_wait(tmp_path, downloads):
    for _ in range(2):
        data = cifar10(str(tmp_path / "data"))
        assert len(data.test) == 4
        assert data.test.pixels.unique().tolist() == [7]
    assert downloads == [True]


def test_cifar10_that_is_there_is_read_without_a_lock(tmp_path, downloads):
    (tmp_path / "cifar-10-batches-py").mkdir()
    cifar10(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-10-batches-py"]


def test_cifar10_is_not_downloaded_unless_asked_for(tmp_path, downloads):
    with pytest.raises(InputError, match="CIFAR-10 is not in"):
        cifar10(str(tmp_path / "data"), download=False)
    assert downloads == []
    assert not (tmp_path / "data").exists()
