from __future__ import annotations

import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file

import cpath
from cpath.errors import InputError, UnknownNameError
from cpath.models import load_checkpoint, resnet8, torchvision_model
from cpath.models.torchvision import names


def test_resnet8_has_eight_weighted_layers_and_seven_sites():
    model = resnet8(10, (3, 32, 32)).eval()
    weighted = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    assert len(weighted) == 8
    with cpath.observe(model) as seen:
        model(torch.randn(2, 3, 32, 32))
    assert list(seen.activations) == [
        "relu",
        "stage1.0.relu",
        "stage1.0.relu#2",
        "stage2.0.relu",
        "stage2.0.relu#2",
        "stage3.0.relu",
        "stage3.0.relu#2",
    ]
    assert [tuple(value.shape[1:]) for value in seen.activations.values()][::2] == [
        (16, 32, 32),
        (16, 32, 32),
        (32, 16, 16),
        (64, 8, 8),
    ]


def test_the_names_are_those_of_torchvision_s_classifiers():
    assert {"alexnet", "vgg16", "squeezenet1_0", "resnet50", "vit_b_16", "swin_v2_t"} <= set(names())
    # What finds objects, cuts out regions, looks at films or computes in whole numbers is none.
    others = {"fasterrcnn_resnet50_fpn", "fcn_resnet50", "r3d_18", "raft_large", "quantized_resnet50"}
    assert not others & set(names())
    assert list(names()) == sorted(names())


def test_without_torchvision_its_models_are_refused_with_what_to_install(monkeypatch):
    names.cache_clear()
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models")
    with pytest.raises(cpath.MissingPackageError, match=r"torchvision.*pip install 'critical-pathways\[exp"):
        torchvision_model("resnet18", classes=10)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 33, 17), (4, 64, 64)])
def test_resnet8_takes_any_size_and_channels(shape):
    assert resnet8(7, shape, width=4).eval()(torch.randn(2, *shape)).shape == (2, 7)


def test_resnet8_refuses_images_that_vanish():
    with pytest.raises(InputError, match="at least 4×4"):
        resnet8(10, (3, 2, 2))


def test_torchvision_models_come_by_name():
    model = torchvision_model("squeezenet1_1", classes=7)
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(UnknownNameError, match="Did you mean"):
        torchvision_model("rensnet18", classes=7)
    with pytest.raises(UnknownNameError, match="IMAGENET1K_V1"):
        torchvision_model("resnet18", classes=1000, weights="IMAGENET")
    with pytest.raises(InputError, match=r"pass weights=None \(model\.weights=null\)"):
        torchvision_model("resnet18", classes=10, weights="DEFAULT")
    with pytest.raises(InputError, match=r"channels=3 \(dataset\.channels=3\)"):
        torchvision_model("resnet18", classes=10, shape=(1, 64, 64))


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_checkpoints_load_with_wrappers_and_prefixes(tmp_path, wrap, prefix):
    trained, fresh = resnet8(5, width=4), resnet8(5, width=4)
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    torch.save({wrap: state} if wrap else state, tmp_path / "model.pth")
    load_checkpoint(fresh, tmp_path / "model.pth")
    for name, tensor in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)


def test_safetensors_load(tmp_path):
    trained, fresh = resnet8(5, width=4), resnet8(5, width=4)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    load_checkpoint(fresh, tmp_path / "model.safetensors")
    assert torch.equal(fresh.fc.weight, trained.fc.weight)


class _Payload:
    def __reduce__(self):
        return (eval, ("1 + 1",))


def test_unusable_checkpoints_say_why(tmp_path):
    model = resnet8(5, width=4)
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(model, tmp_path / "nowhere.pth")
    torch.save(resnet8(6, width=4).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"fc\.weight has shape \(6, 16\), the model needs \(5, 16\)"):
        load_checkpoint(model, tmp_path / "other.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(InputError, match="does not fit the model"):
        load_checkpoint(model, tmp_path / "linear.pth")
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(InputError):
        load_checkpoint(model, tmp_path / "noise.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(InputError, match="no state dict"):
        load_checkpoint(model, tmp_path / "list.pth")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"state_dict": _Payload()}, tmp_path / "evil.pth")
    with pytest.raises(InputError, match="could run code"):
        load_checkpoint(resnet8(5, width=4), tmp_path / "evil.pth")
    (tmp_path / "evil2.pth").write_bytes(pickle.dumps(_Payload()))
    with pytest.raises(InputError):
        load_checkpoint(resnet8(5, width=4), tmp_path / "evil2.pth")
