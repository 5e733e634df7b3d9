from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from cpath.errors import InputError
from cpath.models import load_checkpoint, resnet8


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
