"""Sites: every call of an activation function in a forward pass, seen without touching the model.

A ``TorchFunctionMode`` sees the call of the activation function itself, whichever module made it, so in-place,
functional and reused activations are all the same case. No hook is set and no module is changed. A site is
named after the innermost module of the model on the Python call stack; from the second call of that name in a
forward pass on, the number of the call follows:

====================  ==================================================
``layer1.0.relu``     the first call of the activation module of that name
``layer1.0.relu#2``   the second call of the same module (torchvision ResNets)
``layer1.0:relu``     a functional call inside module ``layer1.0``
====================  ==================================================

Worked example. This block calls one ReLU module twice, and a functional ReLU between:

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.conv1 = nn.Conv2d(3, 3, 3, padding=1)
    ...         self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
    ...         self.relu = nn.ReLU(inplace=True)
    ...
    ...     def forward(self, x):
    ...         out = self.relu(self.conv1(x))
    ...         out = torch.nn.functional.relu(self.conv2(out))
    ...         return self.relu(out - x)
    >>> network = nn.Sequential(OrderedDict(block=Block(), flatten=nn.Flatten(), fc=nn.Linear(192, 5)))
    >>> with cpath.observe(network) as seen, torch.no_grad():
    ...     _ = network(images)
    >>> for name, z in seen.activations.items():
    ...     print(name, tuple(z.shape))
    block.relu (2, 3, 8, 8)
    block:relu (2, 3, 8, 8)
    block.relu#2 (2, 3, 8, 8)
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from cpath._torch import (
    MODULE_CALL,
    REENTRANT_CHECKPOINT,
    compiled_from,
    eagerly,
    in_backward_pass,
    plain_name,
    saves_with_hooks,
)
from cpath.errors import InputError, SiteError, described, unknown_name
from cpath.keeping import Keeping

Visitor = Callable[[str, Tensor], Tensor | None]
"""Function of a site's name and output that returns the value that takes the output's place, or None."""

DEFAULT_SITES = ("relu",)


# Functions of torch.nn.functional that can be sites.
_FUNCTIONS = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardtanh"),
    *("hardsigmoid", "softplus", "sigmoid", "tanh", "logsigmoid", "softsign", "tanhshrink"),
)


@dataclass(frozen=True)
class _Activation:
    """One callable of torch that computes an activation function."""

    name: str
    compute: Callable[..., Tensor]  # never in place
    always_inplace: bool = False

    @property
    def keeps_input(self) -> bool:
        """True if the backward pass needs the input; False if the output is enough."""
        return self.name not in ("relu", "sigmoid", "tanh")


def _activation_table() -> dict[Callable[..., Any], _Activation]:
    table: dict[Callable[..., Any], _Activation] = {}
    for name in _FUNCTIONS:
        function = getattr(F, name)
        table[function] = _Activation(name, function)
    # The same functions under torch and as tensor methods, with their in-place twins.
    for name in ("relu", "sigmoid", "tanh", "selu", "celu"):
        for space in (torch, Tensor):
            plain, inplace = getattr(space, name, None), getattr(space, name + "_", None)
            if plain is not None:
                table.setdefault(plain, _Activation(name, plain))
            if inplace is not None:
                compute = plain or getattr(torch, name)
                table.setdefault(inplace, _Activation(name, compute, always_inplace=True))
    for name in ("leaky_relu", "elu", "hardtanh"):
        table.setdefault(getattr(F, name + "_"), _Activation(name, getattr(F, name), always_inplace=True))
    return table


def _kind(entry: _Activation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Name the activation function that a call computes: ``nn.ReLU6`` calls `hardtanh` from 0 to 6."""
    if entry.name != "hardtanh":
        return entry.name
    low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
    high = args[2] if len(args) > 2 else kwargs.get("max_val", 1.0)
    return "relu6" if (low, high) == (0, 6) else "hardtanh"


_TABLE = _activation_table()
ACTIVATIONS = tuple(dict.fromkeys(activation.name for activation in _TABLE.values()))
"""Names of the activation functions that can be sites."""


def check_model(model: object) -> nn.Module:
    """Check that a model is a module.

    Args:
        model: The model.

    Returns:
        ``model``.

    Raises:
        InputError: If it is none.
    """
    if not isinstance(model, nn.Module):
        if isinstance(getattr(model, "graph_module", None), nn.Module):  # of torch.export
            raise InputError(
                f"model is of class {type(model).__name__}, a graph of operators without sites: pass the nn.Module "
                "that was exported."
            )
        raise InputError(f"model must be a torch.nn.Module, not {described(model)}. Wrap a function in one.")
    return model


def check_sites(sites: object) -> tuple[str, ...]:
    """Check names of activation functions.

    Args:
        sites: One name, or several.

    Returns:
        The names.

    Raises:
        InputError: If ``activations`` are no names.
        UnknownNameError: If a name is unknown.
    """
    if isinstance(sites, str):
        sites = (sites,)
    if not isinstance(sites, Iterable):
        raise InputError(f"sites must be names of activation functions, not {described(sites)}.")
    names = tuple(sites)
    for name in names:
        if name not in ACTIVATIONS:
            raise unknown_name("activation function", name, ACTIVATIONS)
    return names


# A neuron is dead if its output is zero, and active otherwise. The sign does not matter: a GELU of −0.1 is active.


def is_dead(output: Tensor) -> Tensor:
    """Mark the dead neurons of a site.

    Args:
        output: Output (B, *site).

    Returns:
        Booleans (B, *site), True where the output is 0.
    """
    return output == 0


def is_active(output: Tensor, out: Tensor | None = None) -> Tensor:
    """Mark the active neurons of a site.

    Args:
        output: Output (B, *site).
        out: Booleans (B, *site) to write the result to, if any.

    Returns:
        Booleans (B, *site), True where the output is not 0.
    """
    if out is not None and output.device.type == "cpu" and output.dtype != torch.bfloat16:
        np.not_equal(output.numpy(), 0, out=out.numpy())  # three times as fast
        return out
    return torch.ne(output, 0, out=out)


def unwrap(model: nn.Module) -> nn.Module:
    """Get the plain module behind ``torch.compile`` and data parallelism.

    Args:
        model: The model.

    Returns:
        The module.

    Raises:
        InputError: If ``model`` is no module.
        SiteError: If it is a scripted model, which has no sites.
    """
    model = check_model(model)
    while True:
        parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
        inner = model.module if parallel else compiled_from(model)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    if isinstance(model, torch.jit.ScriptModule):
        raise SiteError(
            "a scripted model has no sites: its activation functions run outside Python. "
            "Pass the nn.Module that it was made from."
        )
    return model


class _SiteMode(TorchFunctionMode):
    """Mode that calls ``visit`` at every site of ``model``. See `intercept`."""

    def __init__(
        self,
        model: nn.Module,
        visit: Visitor,
        edits: Container[str],
        sites: Iterable[str],
        write_back: bool,
        in_place: bool,
        inputs: Callable[[str, Tensor], object] | None = None,
        left_out: Container[str] = (),
    ) -> None:
        super().__init__()
        self._kinds = frozenset(check_sites(sites))
        modules = dict(_same_thread(model).named_modules())
        self._names = {id(module): plain_name(name) for name, module in modules.items()}
        self._calls = {MODULE_CALL: "self", **_own_calls(modules.values())}
        _check_not_scripted(modules, self._kinds)
        _check_not_exported(modules, self._kinds)
        _check_not_quantised(modules)
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
            with saved_tensors_hooks(Tensor.detach, _itself):
                return self._call(func, args, kwargs or {})
        return self._call(func, args, kwargs or {})

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        entry = _TABLE.get(func)
        kind = _kind(entry, args, kwargs) if entry is not None else None
        name = self._site_name(kind) if kind in self._kinds else None
        if entry is None or name is None or name in self._left_out:
            output = func(*args, **kwargs)
            return _with_ordered_gradient(output) if func in _NORMALISATIONS else output
        if self._inputs is not None:
            self._inputs(name, args[0] if args else kwargs["input"])
        if name not in self._edits:
            output = func(*args, **kwargs)
            self._visit(name, output)
            return output
        return self._edited(entry, name, args, kwargs)

    def _edited(self, entry: _Activation, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
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
        """Name the site that is being called; None outside the model's forward pass."""
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
        name = self._names[id(inner)]
        if type(inner).__module__ != "torch.nn.modules.activation":
            name = f"{name}:{kind}"
        count = self._counts[name] = self._counts.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"

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


def _own_calls(modules: Iterable[nn.Module]) -> dict[CodeType, str]:
    """Find the functions that run modules of classes with their own ``__call__``, and the name of each ``self``."""
    found = {}
    for kind in {type(module) for module in modules}:
        call: Any = kind.__call__
        while call is not None and call is not nn.Module.__call__:
            code = getattr(call, "__code__", None)
            if code is not None and code.co_argcount:
                found[code] = code.co_varnames[0]
            call = getattr(call, "__wrapped__", None)  # behind a decorator
    return found


def _itself(saved: Tensor) -> Tensor:
    return saved


def _check_no_gradient(inputs: Iterable[object]) -> None:
    """Raise `SiteError` if gradients are to pass a checkpointed part of the model that has the given ``inputs``."""
    if any(isinstance(value, Tensor) and value.requires_grad for value in inputs):
        raise SiteError(
            "the model checkpoints activations with use_reentrant=True: its backward pass runs it again, "
            "unchanged, and gives gradients of another network. Turn checkpointing off, pass use_reentrant=False, "
            "or run the model under torch.no_grad() if no gradients are needed."
        )


def _same_thread(model: nn.Module) -> nn.Module:
    """Get the module behind ``model``; raise `SiteError` if it runs copies of it in threads of their own."""
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        raise SiteError(
            "a DataParallel model runs copies of itself in other threads, where no site is seen: "
            "pass model.module, and run that."
        )
    return unwrap(model)


def _check_not_scripted(modules: dict[str, nn.Module], kinds: Iterable[str]) -> None:
    """Raise `SiteError` for a scripted part of a model that hides a site."""
    for name, module in modules.items():
        if not isinstance(module, torch.jit.ScriptModule):
            continue
        graph = str(getattr(module, "inlined_graph", ""))
        operations = {operation.replace("_", "") for operation in re.findall(r"aten::(\w+)", graph)}
        hidden = [kind for kind in kinds if _operator(kind) in operations]
        if hidden:
            raise SiteError(
                f"the part '{name}' of the model is scripted, so that its {', '.join(sorted(hidden))} runs outside "
                "Python and is no site: put the nn.Module that it was made from in its place."
            )


def _check_not_exported(modules: dict[str, nn.Module], kinds: Iterable[str]) -> None:
    """Raise `SiteError` for a part made by `torch.export` that hides a site: it calls no function but operators."""
    for name, module in modules.items():
        graph = getattr(module, "graph", None)
        if not isinstance(graph, torch.fx.Graph):
            continue
        operators = [str(node.target).split(".") for node in graph.nodes]
        called = {path[1].replace("_", "") for path in operators if path[0] == "aten" and len(path) > 1}
        hidden = sorted(kind for kind in kinds if {kind.replace("_", ""), _operator(kind)} & called)
        if hidden:
            raise SiteError(
                f"the part '{name}' of the model comes from torch.export: its {', '.join(hidden)} is an operator "
                "of a graph, and no call that can be a site. Pass the nn.Module that was exported."
            )


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _check_not_quantised(modules: dict[str, nn.Module]) -> None:
    """Raise `SiteError` for a quantised part, which has no gradient and whose activations have no plain values."""
    for name, module in modules.items():
        path = type(module).__module__.split(".")
        packed = path[0] == "torch" and "quantized" in path
        if packed or any(tensor.is_quantized for tensor in _own_tensors(module)):
            raise SiteError(
                f"the part '{name}' of the model is quantised ({type(module).__name__}), so that no gradient "
                "passes it: pass the model in floating point that it was made from."
            )


def _operator(kind: str) -> str:
    """Name of the operator that computes an activation function, without underscores."""
    return kind.replace("relu6", "hardtanh").replace("_", "")


def intercept(
    model: nn.Module,
    visit: Visitor,
    *,
    edits: Container[str] = (),
    sites: Iterable[str] = DEFAULT_SITES,
    write_back: bool = True,
    in_place: bool = False,
    inputs: Callable[[str, Tensor], object] | None = None,
    left_out: Container[str] = (),
) -> TorchFunctionMode:
    """Call a function at every site of a model, in call order, inside a ``with`` block.

    Only the thread that entered the block is seen. Call the model itself, not its ``forward``. A changed network
    keeps what its backward pass needs, with or without activation checkpointing.

    Args:
        model: The model.
        visit: Called as ``visit(name, output)``. At the sites in ``edits``, its return value takes the output's
            place, unless it is None.
        edits: Names of these sites. `EVERY_SITE` contains all.
        sites: Names of the activation functions whose calls are sites.
        write_back: Write the new output of an in-place activation to its input too, as the model expects. Without
            it a model that ignores the return value of an in-place activation goes on with the wrong values.
        in_place: Set if ``visit`` itself changes outputs in place.
        inputs: Called as ``inputs(name, value)`` with each site's pre-activation, before the activation runs.
        left_out: Names of calls that are no sites after all, as those that do not depend on the input.

    Returns:
        A context manager.

    Raises:
        SiteError: If sites are hidden, in a scripted model or part, or in a DataParallel model on several GPUs; or
            if gradients of a changed network pass a checkpoint with ``use_reentrant=True``.
    """
    return _SiteMode(model, visit, edits, sites, write_back, in_place, inputs, left_out)


@contextmanager
def evaluating(model: nn.Module, *, keeping: bool = True) -> Iterator[None]:
    """Put every module of a model into eval mode inside a ``with`` block, and leave the model as it was afterwards.

    Each module gets its mode back and, with ``keeping``, whatever it keeps on itself: features, maps, counters.
    Both are the model's own: two threads that use one model at once restore each other's too early.

    Args:
        model: The model.
        keeping: Restore what the modules keep. Without it that of the last pass in the block stays, as is right
            where the caller runs the model.

    Returns:
        A context manager.

    Raises:
        InputError: If ``model`` is no module.
    """
    training = [module for module in check_model(model).modules() if module.training]
    kept = Keeping(model) if keeping else None
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
        if kept is not None:
            kept.restore()


@contextmanager
def differentiating() -> Iterator[None]:
    """Compute gradients inside a ``with`` block, even if the caller is under ``no_grad`` or ``inference_mode``.

    Returns:
        A context manager.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


@dataclass
class Observation:
    """Outputs of the sites in the last forward pass. Made by `observe`.

    Attributes:
        activations: Output (B, *site) of every site, in call order; detached copies.
    """

    activations: dict[str, Tensor] = field(default_factory=dict)


class _Everything:
    """Container of every name."""

    def __contains__(self, name: object) -> bool:
        return True


EVERY_SITE = _Everything()
"""Value of ``edits`` that stands for every site."""


@contextmanager
def observe(model: nn.Module, *, sites: Iterable[str] = DEFAULT_SITES) -> Iterator[Observation]:
    """Record the output of every site while a model runs in eval mode, inside a ``with`` block.

    A second forward pass replaces the outputs of the first one. Only the thread that entered the block is seen.
    Call the model itself, not its ``forward``. Calls whose output does not depend on the input (tables of
    positions) are recorded too, though no pathway has them.

    Args:
        model: The model.
        sites: Names of the activation functions whose calls are sites (see `ACTIVATIONS`).

    Returns:
        A context manager, which gives an `Observation`.

    Raises:
        SiteError: If the model or a part of it is scripted, or it is a DataParallel model on several GPUs, which
            runs in threads of its own.
        UnknownNameError: If there is no activation function of a given name.

    Example:
        >>> with cpath.observe(model) as seen:
        ...     logits = model(images)
        >>> seen.activations["relu1"].shape
        torch.Size([2, 4, 8, 8])
    """
    seen = Observation()

    def visit(name: str, output: Tensor) -> None:
        if name in seen.activations:  # no name occurs twice in one forward pass
            seen.activations.clear()
        # A copy, because later in-place operations of the model would change the original.
        seen.activations[name] = output.detach().clone()

    with evaluating(model, keeping=False), intercept(model, visit, sites=sites):
        yield seen


class _Calls(TorchFunctionMode):
    """Counts the calls of activation functions by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (entry := _TABLE.get(func)) is not None:
            self.counts[_kind(entry, args, kwargs or {})] += 1
        return func(*args, **(kwargs or {}))


def count_calls(run: Callable[[], object]) -> Counter[str]:
    """Count the calls of activation functions while a function runs, by the names that `ACTIVATIONS` lists.

    Args:
        run: Function without arguments, which runs a model.

    Returns:
        Number of calls by name.
    """
    calls = _Calls()
    with torch.no_grad(), calls:
        run()
    return calls.counts
