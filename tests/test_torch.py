"""Private names of torch and torchvision: one file uses them, and says so when one is gone."""

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import cpath
from cpath import _torch

PACKAGE = Path(cpath.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
LIBRARIES = ("torch", "torchvision")
PYTHON = {"_getframe", "_fields"}  # of the standard library


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


@cache
def own_names() -> set[str]:
    """Every name with an underscore that cpath itself gives to something."""
    found = set(PYTHON)
    for file in FILES:
        found.add(file.stem)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                found.add(node.attr)
    return found


def private_uses(source: str, own: set[str]) -> Iterator[str]:
    """Private names that ``source`` takes from elsewhere: attributes, also those of `getattr`, and imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in own:
            yield node.attr
        elif isinstance(node, ast.ImportFrom | ast.Import):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for path in (*modules, *(name.name for name in node.names)):
                of_library = [*modules, path][0].partition(".")[0] in LIBRARIES
                yield from (part for part in path.split(".") if of_library and private(part))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            asked = node.args[1]
            name = str(asked.value) if isinstance(asked, ast.Constant) else ""  # one that is computed is not seen
            if private(name) and name not in own:
                yield name
        elif isinstance(node, ast.Name) and node.id == "CheckpointFunction":
            yield node.id


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("torch._C._current_graph_task_id()", ["_current_graph_task_id", "_C"]),
        ("from torchvision.models._meta import _IMAGENET_CATEGORIES", ["_meta", "_IMAGENET_CATEGORIES"]),
        ("import torch._dynamo", ["_dynamo"]),
        ("getattr(model, '_orig_mod', None)", ["_orig_mod"]),
        ("output._version", ["_version"]),
        ("CheckpointFunction.forward", ["CheckpointFunction"]),
        ("self._own(nn.Module.__call__)", []),
        ("from cpath._torch import version", []),
    ],
)
def test_the_search_finds_every_way_to_a_private_name(source, found):
    assert list(private_uses(source, {"_own"})) == found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_other_file_uses_a_private_name(file):
    found = list(private_uses(file.read_text(), own_names()))
    assert bool(found) == (file.name == "_torch.py"), found


# A name that is gone


def load() -> None:
    """Runs the file anew, as `import cpath` does in a fresh process."""
    spec = importlib.util.spec_from_file_location("fresh", _torch.__file__)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


REMOVABLE = {
    "torch.nn.Module._call_impl.__code__": (nn.Module, "_call_impl"),
    "torch.utils.checkpoint.CheckpointFunction.forward.__code__": (torch.utils.checkpoint, "CheckpointFunction"),
    "torch._C._autograd._top_saved_tensors_default_hooks": (torch._C, "_autograd"),
    "torch._C._current_graph_task_id": (torch._C, "_current_graph_task_id"),
    "torch.nn.MultiheadAttention._reset_parameters": (nn.MultiheadAttention, "_reset_parameters"),
}


def test_every_name_that_can_be_removed_is_tried():
    assert set(_torch.REQUIRED) - set(REMOVABLE) == {"torch.Tensor._version"}  # it is built into torch


@pytest.mark.parametrize("path", list(REMOVABLE))
def test_a_torch_without_the_name_is_refused_with_what_to_do(monkeypatch, path):
    monkeypatch.delattr(*REMOVABLE[path])
    with pytest.raises(cpath.UnsupportedTorchError) as error:
        load()
    told, purpose = str(error.value), _torch.REQUIRED[path]
    assert told.startswith(f"cpath cannot {purpose} with torch {torch.__version__}, which has no {path}")
    assert "Versions 2.11 to 2.15 are known to work: pip install 'torch>=2.11,<2.16'" in told
    assert isinstance(error.value, ImportError)


def test_a_name_that_is_there_but_no_longer_used_is_refused(monkeypatch):
    monkeypatch.setattr(nn.Module, "__call__", lambda module, *inputs: module.forward(*inputs))
    with pytest.raises(cpath.UnsupportedTorchError, match=r"cannot name a site .*use of Module\._call_impl"):
        load()


def test_the_names_do_what_they_stand_for():
    def look(x: torch.Tensor) -> torch.Tensor:
        seen.append((_torch.saves_with_hooks(), _torch.in_backward_pass()))
        return x.relu()

    seen: list[tuple[bool, bool]] = []
    x = torch.ones(2, requires_grad=True)
    look(x)
    checkpoint(look, x, use_reentrant=False).sum().backward()
    assert [seen[0], seen[1]] == [(False, False), (True, False)]
    assert seen[2][1]  # run again, in the backward pass
    before = _torch.version(y := torch.ones(2))
    assert _torch.version(y.add_(1)) == before + 1
    model = nn.Linear(2, 2)
    for layer in (model, nn.MultiheadAttention(4, 2)):
        weights = [parameter.clone() for parameter in layer.parameters() if parameter.dim() == 2]
        _torch.initialiser(layer)()
        redrawn = [parameter for parameter in layer.parameters() if parameter.dim() == 2]
        assert not torch.equal(weights[0], redrawn[0])
    assert _torch.initialiser(nn.ReLU()) is None
    block = torch.compile(nn.Sequential(nn.ReLU()), backend="eager")
    names = [_torch.plain_name(name) for name, _ in nn.ModuleDict({"block": block}).named_modules()]
    assert names == ["", "block", "block", "block.0"]
