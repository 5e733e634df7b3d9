from __future__ import annotations

import pickle

import pytest
import torch
from safetensors.torch import save_file

from cpath.errors import InputError
from cpath.models import load_checkpoint, resnet8_narrow


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_checkpoints_load_with_wrappers_and_prefixes(tmp_path, wrap, prefix):
    trained, fresh = resnet8_narrow(5, width=4), resnet8_narrow(5, width=4)
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()}
    torch.save({wrap: state} if wrap else state, tmp_path / "model.pth")
    load_checkpoint(fresh, tmp_path / "model.pth")
    for name, tensor in trained.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], tensor)


def test_safetensors_load(tmp_path):
    trained, fresh = resnet8_narrow(5, width=4), resnet8_narrow(5, width=4)
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    load_checkpoint(fresh, tmp_path / "model.safetensors")
    assert torch.equal(fresh.fc.weight, trained.fc.weight)


class _Payload:
    def __reduce__(self):
        return (eval, ("1 + 1",))


def test_unusable_checkpoints_say_why(tmp_path):
    model = resnet8_narrow(5, width=4)
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(model, tmp_path / "nowhere.pth")
    torch.save(resnet8_narrow(6, width=4).state_dict(), tmp_path / "other.pth")
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
        load_checkpoint(resnet8_narrow(5, width=4), tmp_path / "evil.pth")
    (tmp_path / "evil2.pth").write_bytes(pickle.dumps(_Payload()))
    with pytest.raises(InputError):
        load_checkpoint(resnet8_narrow(5, width=4), tmp_path / "evil2.pth")


def _assert_equal(one, other):
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    ("prefix", "beside"),
    [
        ("_orig_mod.", {}),  # torch.compile
        ("module._orig_mod.", {}),
        ("net.", {"criterion.weight": torch.ones(10)}),  # a LightningModule
        ("net._orig_mod.", {"criterion.weight": torch.ones(10)}),
        ("model.backbone.", {"model.head.fc.weight": torch.ones(5, 16), "loss.scale": torch.ones(())}),
        ("module.", {"n_averaged": torch.ones((), dtype=torch.long)}),  # torch.optim.swa_utils.AveragedModel
        ("_fsdp_wrapped_module.", {}),
    ],
)
def test_the_part_of_a_checkpoint_that_is_the_network_is_found(tmp_path, prefix, beside):
    trained, fresh = resnet8_narrow(5, width=4), resnet8_narrow(5, width=4)
    state = {prefix + name: tensor for name, tensor in trained.state_dict().items()} | beside
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    load_checkpoint(fresh, tmp_path / "model.pth")
    _assert_equal(trained, fresh)


def test_wrappers_of_parts_of_a_network_are_understood(tmp_path):
    def network():
        return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))

    trained, fresh = network(), network()
    names = {"0.weight": "0.module.weight", "0.bias": "0.module.bias", "2.weight": "2._orig_mod.weight"}
    state = {names.get(name, name): tensor for name, tensor in trained.state_dict().items()}
    torch.save(state, tmp_path / "model.pth")
    load_checkpoint(fresh, tmp_path / "model.pth")
    _assert_equal(trained, fresh)


@pytest.mark.parametrize("wrap", [torch.compile, torch.nn.DataParallel])
def test_plain_weights_load_into_a_wrapped_model(tmp_path, wrap):
    trained, fresh = resnet8_narrow(5, width=4), resnet8_narrow(5, width=4)
    torch.save(trained.state_dict(), tmp_path / "model.pth")
    load_checkpoint(wrap(fresh), tmp_path / "model.pth")
    _assert_equal(trained, fresh)


def test_several_fitting_parts_are_named_and_one_can_be_chosen(tmp_path):
    student, teacher, fresh = (resnet8_narrow(5, width=4) for _ in range(3))
    both = torch.nn.ModuleDict({"student": student, "teacher": teacher})
    torch.save({"state_dict": both.state_dict()}, tmp_path / "both.pth")
    with pytest.raises(InputError, match=r"'student\.', 'teacher\.'.*prefix='student\.'"):
        load_checkpoint(fresh, tmp_path / "both.pth")
    load_checkpoint(fresh, tmp_path / "both.pth", prefix="teacher.")
    _assert_equal(teacher, fresh)
    with pytest.raises(InputError, match=r"does not fit the model: .* is missing"):
        load_checkpoint(fresh, tmp_path / "both.pth", prefix="assistant.")


def test_a_module_of_the_network_may_be_called_module(tmp_path):
    class Both(torch.nn.Module):  # names that are alike without "module."
        def __init__(self):
            super().__init__()
            self.fc = torch.nn.Linear(2, 2)
            self.module = torch.nn.ModuleDict({"fc": torch.nn.Linear(2, 2)})

    trained, fresh = Both(), Both()
    torch.save(trained.state_dict(), tmp_path / "model.pth")
    load_checkpoint(fresh, tmp_path / "model.pth")
    _assert_equal(trained, fresh)


def test_the_part_that_fits_best_is_what_an_error_speaks_of(tmp_path):
    state = {f"net.{name}": tensor for name, tensor in resnet8_narrow(6, width=4).state_dict().items()}
    torch.save({"state_dict": state | {"criterion.weight": torch.ones(6)}}, tmp_path / "model.pth")
    with pytest.raises(InputError, match=r"model: fc\.bias has shape \(6,\), the model needs \(5,\); fc\.weight"):
        load_checkpoint(resnet8_narrow(5, width=4), tmp_path / "model.pth")
    whole = resnet8_narrow(5, width=4).state_dict() | {"aux.weight": torch.ones(3)}
    torch.save(whole, tmp_path / "more.pth")
    with pytest.raises(InputError, match=r"aux\.weight is unknown to the model"):
        load_checkpoint(resnet8_narrow(5, width=4), tmp_path / "more.pth")


def test_what_modules_keep_beside_their_tensors_is_left_out(tmp_path):
    trained, fresh = resnet8_narrow(5, width=4), resnet8_narrow(5, width=4)
    torch.save(trained.state_dict() | {"metric._extra_state": {"count": 3}}, tmp_path / "model.pth")
    load_checkpoint(fresh, tmp_path / "model.pth")
    _assert_equal(trained, fresh)
