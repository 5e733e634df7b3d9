"""The mode that sees and edits the calls of functions; see `cpath.sites` for the names that they get."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import ExitStack
from types import FrameType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from cpath._torch import MODULE_CALL, REENTRANT_CHECKPOINT, eagerly, in_backward_pass, plain_name, saves_with_hooks
from cpath.errors import SiteError
from cpath.sites.choice import Choice
from cpath.sites.functions import ATTENTION, TABLE, Function
from cpath.sites.model import own_calls

Visitor = Callable[[str, Tensor], Tensor | None]
"""Function of a site's name and output that returns the value that takes the output's place, or None."""

Inputs = Callable[[str, Tensor, tuple[float, ...] | None], object]
"""Function of a site's name, its pre-activation, and where its slope changes (see `Function.kinks`)."""


class _Everything:
    """Container of every name."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY_SITE = _Everything()
"""Value of ``edits`` that stands for every site."""


class SiteMode(TorchFunctionMode):
    """Mode that calls ``visit`` at every call of a function that is a site. Made by `intercept`, which tells more.

    Args:
        modules: The modules of the model by name.
        choice: The calls that are sites.
        visit: Function of a site's name and output.
        edits: Names of the sites whose outputs ``visit`` replaces.
        write_back: Write the new output of an in-place activation to its input too.
        in_place: ``visit`` itself changes outputs in place.
        inputs: Function of a site's name, its pre-activation, and where its slope changes (see `Function.kinks`).
        left_out: Names of calls that are no sites after all.

    Attributes:
        choice: The calls that are sites.
        met: Entries of the choice that have chosen a site or taken one out so far, activation functions apart.
        named: Names of the sites so far that the choice names explicitly, by a module, a class or a pattern.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        choice: Choice,
        visit: Visitor,
        *,
        edits: Container[str] = (),
        write_back: bool = True,
        in_place: bool = False,
        inputs: Inputs | None = None,
        left_out: Container[str] = (),
    ) -> None:
        super().__init__()
        self.met: set[str] = set()
        self.named: set[str] = set()
        self.choice = choice
        self._kinds = choice.functions
        self._names = {id(module): plain_name(name) for name, module in modules.items()}
        self._calls = {MODULE_CALL: "self", **own_calls(modules.values())}
        self._visit = visit
        self._edits = edits
        self._changes = bool(edits) or in_place
        self._write_back = write_back
        self._inputs = inputs
        self._left_out = left_out
        self._counts: dict[str, int] = {}
        # The frame of the outermost call into the model. Holding it keeps its identity unique, so that a
        # new forward pass is told from the current one; dropped when the mode ends.
        self._root: FrameType | None = None
        self._eager = ExitStack()

    def __enter__(self) -> Self:
        self._eager.enter_context(eagerly())
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._changes and saves_with_hooks():
            # Activation checkpointing drops the tensors that an operation saves for its backward pass, and runs the
            # model again then, but without our changes. So they are kept here. They are detached, because an output
            # that its own operation holds would never be freed.
            _check_no_own_function(args)
            with saved_tensors_hooks(Tensor.detach, _itself):
                return self._call(func, args, kwargs or {})
        return self._call(func, args, kwargs or {})

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entry = TABLE.get(func)
        kind = entry.kind(args, kwargs) if entry is not None else None
        name = self._site_name(kind) if kind in self._kinds else None
        if entry is None or name is None or name in self._left_out:
            output = func(*args, **kwargs)
            return _with_ordered_gradient(output) if func in _NORMALISATIONS else output
        if self._inputs is not None:
            self._inputs(name, args[0] if args else kwargs["input"], entry.kinks(args, kwargs))
        if name not in self._edits:
            output = func(*args, **kwargs)
            self._visit(name, output)
            return output
        return self._edited(entry, name, args, kwargs)

    def _edited(self, entry: Function, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        # torch.nn.functional passes `inplace` on by name, also if the model passed it by position.
        inplace = entry.always_inplace or bool(kwargs.get("inplace", False))
        kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        # A model may go on with the tensor it passed in, or as `out`, rather than with what the call returned.
        source: Tensor = args[0] if args else kwargs["input"]
        goal = kwargs.pop("out", source if inplace else None)
        if inplace and self._write_back and entry.keeps_input and torch.is_grad_enabled():
            # What the model's tensor held is overwritten below, but autograd needs it for the backward pass.
            args, kwargs = (source.clone(), *args[1:]), {key: v for key, v in kwargs.items() if key != "input"}
        # Never in place: autograd keeps the activation's output for its backward pass.
        output = entry.compute(*args, **kwargs)
        replacement = self._visit(name, output)
        result = output if replacement is None else replacement
        return result if goal is None or not self._write_back else goal.copy_(result)

    def _site_name(self, kind: str) -> str | None:
        """Name the function call that is being made; None if it is no site."""
        inner = self._running()
        return None if inner is None else self._counted(self._call_name(inner, kind))

    def _call_name(self, inner: nn.Module, kind: str) -> str:
        """Name a call without its number; an activation module's own call bears the module's name alone."""
        name = self._names[id(inner)]
        of_its_own = kind != ATTENTION and type(inner).__module__ == "torch.nn.modules.activation"
        return name if of_its_own else f"{name}:{kind}"

    def _counted(self, name: str) -> str:
        """Add the number of the call to a name."""
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"

    def _running(self) -> nn.Module | None:
        """Find the innermost module that is running; None outside the model's forward pass."""
        if in_backward_pass():  # checkpointing runs a part again
            return None
        inner: nn.Module | None = None
        outermost: FrameType | None = None
        checkpoint: FrameType | None = None
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            called = self._calls.get(frame.f_code)
            if called is not None:
                name = self._names.get(id(frame.f_locals.get(called)))
                if name is not None:
                    inner = frame.f_locals[called] if inner is None else inner
                    outermost = frame
                    if not name:
                        break
            elif frame.f_code is REENTRANT_CHECKPOINT:
                checkpoint = frame
            frame = frame.f_back
        if inner is None:
            return None
        if self._changes and checkpoint is not None:
            _check_no_gradient(checkpoint.f_locals["args"])
        if outermost is not self._root:
            self._root = outermost
            self._counts = {}
        return inner

    def __exit__(self, *exc: Any) -> None:
        self._root = None
        super().__exit__(*exc)  # type: ignore[no-untyped-call]
        self._eager.close()


class RightGradients(TorchFunctionMode):
    """Mode in which the gradients of normalisations are right, as they are inside `intercept`.

    torch 2.15 takes a gradient of one image whose channels lie next to each other in memory, as
    ``flatten(2).transpose(1, 2)`` hands it back, for one in another order, on a CPU.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        return _with_ordered_gradient(output) if func in _NORMALISATIONS else output


_NORMALISATIONS = frozenset({F.batch_norm, F.instance_norm, torch.batch_norm, torch.instance_norm})


def _with_ordered_gradient(output: Tensor) -> Tensor:
    if output.requires_grad and output.device.type == "cpu" and output.dim() > 3 and len(output) == 1:
        output.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
    return output


def _itself(saved: Tensor) -> Tensor:
    return saved


def _check_no_own_function(args: Iterable[object]) -> None:
    """Raise `SiteError` if an argument comes from an autograd function of the model's own, which no mode sees."""
    for value in args:
        if isinstance(value, Tensor) and isinstance(value.grad_fn, BackwardCFunction):
            raise SiteError(
                f"the model checkpoints activations around an autograd function of its own, "
                f"{type(value.grad_fn).__name__.removesuffix('Backward')}: what that saves would be taken from the "
                "network without the change, and gives wrong gradients. Turn checkpointing off."
            )


def _check_no_gradient(inputs: Iterable[object]) -> None:
    """Raise `SiteError` if gradients are to pass a checkpointed part of the model that has the given ``inputs``."""
    if any(isinstance(value, Tensor) and value.requires_grad for value in inputs):
        raise SiteError(
            "the model checkpoints activations with use_reentrant=True: its backward pass runs it again, "
            "unchanged, and gives gradients of another network. Turn checkpointing off, pass use_reentrant=False, "
            "or run the model under torch.no_grad() if no gradients are needed."
        )
