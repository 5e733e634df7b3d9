"""Everything private that cpath uses of torch: names that torch may change without notice.

No other file of cpath touches one. They are looked up when this file is imported, so that a torch without them is
refused at once, by `UnsupportedTorchError`, instead of giving wrong results later.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType, FunctionType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils import checkpoint

from cpath.errors import UnsupportedTorchError

KNOWN_TO_WORK = "2.11 to 2.15"
"""Versions of torch that all names below were seen in, and cpath's tests seen to pass with."""

REQUIRED = {
    "torch.nn.Module._call_impl.__code__": "name a site after the module that calls it",
    "torch.utils.checkpoint.CheckpointFunction.forward.__code__": "refuse checkpointing with use_reentrant=True",
    "torch._C._autograd._top_saved_tensors_default_hooks": "change a network that checkpoints its activations",
    "torch._C._current_graph_task_id": "tell a forward pass from what a backward pass runs again",
    "torch.Tensor._version": "notice a model that changes its activations in place",
    "torch.nn.MultiheadAttention._reset_parameters": "give an attention layer new weights",
}
"""The private names, and what cpath could not do without each."""


def _missing(path: str) -> bool:
    found: object = torch
    for name in path.split(".")[1:]:
        found = getattr(found, name, None)
    return found is None


def _refuse(name: str, purpose: str) -> None:
    raise UnsupportedTorchError(
        f"cpath cannot {purpose} with torch {torch.__version__}, which has no {name} as older versions have. "
        f"Versions {KNOWN_TO_WORK} are known to work: pip install 'torch>=2.11,<2.16', or use a newer cpath."
    )


for _name, _purpose in REQUIRED.items():
    if _missing(_name):
        _refuse(_name, _purpose)


# Stands for `nn.Module.__call__`, behind which it is the function that runs a module: a frame of this code on the
# Python call stack tells which module is running, without a hook on any. Without it sites have no names.
MODULE_CALL: CodeType = nn.Module._call_impl.__code__

# Stands for `torch.utils.checkpoint.checkpoint(…, use_reentrant=True)`: a frame of this code tells that a module is
# inside one. Without it such a model would get gradients of the unchanged network, without an error.
REENTRANT_CHECKPOINT: CodeType = checkpoint.CheckpointFunction.forward.__code__


# Attributes that every module has from the start: parameters, children, hooks and the like. Buffers are not among
# them, because a model may keep a result in one. Nothing public tells. Without it a hook that the user registers in
# the meantime would be lost.
MODULE_ATTRIBUTES = frozenset(vars(nn.Module())) - {"_buffers", "_non_persistent_buffers_set"}


def running(module: nn.Module) -> bool:
    """True if this thread is inside a call of ``module``.

    Nothing public tells. Without it a pass of the user's in another thread would be taken for a part of ours.
    """
    frame = cast(FrameType | None, sys._getframe(1))
    while frame is not None:
        if frame.f_code is MODULE_CALL and frame.f_locals["self"] is module:
            return True
        frame = frame.f_back
    return False


def saves_with_hooks() -> bool:
    """True inside a `torch.autograd.graph.saved_tensors_hooks`, as activation checkpointing uses it.

    Nothing public tells. Without it a changed network that checkpoints its activations would be run again in the
    backward pass as it was before the change.
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def in_backward_pass() -> bool:
    """True while this thread runs a backward pass.

    Nothing public tells. Without it the part that activation checkpointing runs again in the backward pass would
    count as a forward pass, and its sites would be seen twice.
    """
    return torch._C._current_graph_task_id() != -1


def version(tensor: Tensor) -> int:
    """Number of changes in place to a tensor's memory so far.

    Autograd raises publicly for a changed tensor, but only for those it keeps for a backward pass. Without it an
    activation that the model changes after its site would be recorded as it is then.
    """
    return tensor._version


def compiled_from(model: nn.Module) -> object:
    """The module that `torch.compile` was given, if ``model`` is what it returned; None otherwise.

    Stands for ``torch.compile(module)``, which does not give its module back publicly. It is not in `REQUIRED`,
    because importing the compiler takes seconds. Without it a compiled model's sites would be those of a module in
    a wrapper, under names of their own.
    """
    return getattr(model, "_orig_mod", None)


def plain_name(name: str) -> str:
    """Remove what `torch.compile` adds to the names of the modules behind a compiled one.

    Stands for the name that the module has in the model that is not compiled. Without it a pathway of the plain
    model would not fit the compiled one.
    """
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


def under_modes(function: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a function of `torch.nn.functional` so that a mode sees what it calls, and not the whole alone.

    Nothing public does this: under a mode such a function hands itself over before it begins. Without it attention
    inside ``nn.MultiheadAttention`` would be no site; a choice of sites by ``"attention"`` would be refused then.
    """
    names = {**vars(nn.functional), "has_torch_function": lambda _: False}
    copy = FunctionType(function.__code__, names, function.__name__, function.__defaults__)
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


class _Eager:
    """Number of blocks, in all threads, inside which nothing compiled runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stance: Any = None

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._stance = torch.compiler.set_stance("force_eager")
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._stance.__exit__(None, None, None)
                self._stance = None


_EAGER = _Eager()


@contextmanager
def eagerly() -> Iterator[None]:
    """Run compiled modules and functions as plain Python inside a ``with`` block.

    Their activation functions are no calls of Python otherwise, and the compiler cannot trace cpath. The first
    `torch.compile` loads the compiler, which is told by a private name: loading it here would take seconds.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    _EAGER.enter()
    try:
        yield
    finally:
        _EAGER.leave()


def initialiser(module: nn.Module) -> Any:
    """The method that gives ``module`` the weights of a new one; None where it has none.

    Stands for ``reset_parameters``, which torch's attention and Transformer layers have under a private name.
    Without it these layers could not be drawn anew.
    """
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


class _Stack(nn.Module):
    """Notes whether `MODULE_CALL` is what runs a module: a name may stay and no longer be used."""

    seen = False

    def forward(self, nothing: Tensor) -> Tensor:
        frame = cast(FrameType | None, sys._getframe(1))
        while frame is not None and not self.seen:
            self.seen, frame = frame.f_code is MODULE_CALL, frame.f_back
        return nothing


def _check_module_call() -> None:
    stack = _Stack()
    stack(torch.empty(0))
    if not stack.seen:
        _refuse("use of Module._call_impl", REQUIRED["torch.nn.Module._call_impl.__code__"])


_check_module_call()
