"""The module behind what a user passes as the model, and the parts of it whose sites cannot be seen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn

from cpath._torch import compiled_from
from cpath.errors import InputError, SiteError, described
from cpath.sites.functions import operator


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


def seen_modules(model: nn.Module, kinds: Iterable[str]) -> dict[str, nn.Module]:
    """Get the modules of a model, after a check that none of them hides calls of functions.

    Args:
        model: The model.
        kinds: Names of the functions.

    Returns:
        The modules by name; the module behind the model itself is called ``""``.

    Raises:
        SiteError: If a part is scripted, exported or quantised, or if the model runs copies of itself in threads.
    """
    if isinstance(model, nn.DataParallel) and len(model.device_ids) > 1:
        raise SiteError(
            "a DataParallel model runs copies of itself in other threads, where no site is seen: "
            "pass model.module, and run that."
        )
    modules = dict(unwrap(model).named_modules())
    _check_not_scripted(modules, kinds)
    _check_not_exported(modules, kinds)
    _check_not_quantised(modules)
    return modules


def _check_not_scripted(modules: Mapping[str, nn.Module], kinds: Iterable[str]) -> None:
    """Raise `SiteError` for a scripted part of a model that hides a site."""
    for name, module in modules.items():
        if not isinstance(module, torch.jit.ScriptModule):
            continue
        graph = str(getattr(module, "inlined_graph", ""))
        operations = {operation.replace("_", "") for operation in re.findall(r"aten::(\w+)", graph)}
        hidden = [kind for kind in kinds if operator(kind) in operations]
        if hidden:
            raise SiteError(
                f"the part '{name}' of the model is scripted, so that its {', '.join(sorted(hidden))} runs outside "
                "Python and is no site: put the nn.Module that it was made from in its place."
            )


def _check_not_exported(modules: Mapping[str, nn.Module], kinds: Iterable[str]) -> None:
    """Raise `SiteError` for a part made by `torch.export` that hides a site: it calls no function but operators."""
    for name, module in modules.items():
        graph = getattr(module, "graph", None)
        if not isinstance(graph, torch.fx.Graph):
            continue
        operators = [str(node.target).split(".") for node in graph.nodes]
        called = {path[1].replace("_", "") for path in operators if path[0] == "aten" and len(path) > 1}
        hidden = sorted(kind for kind in kinds if {kind.replace("_", ""), operator(kind)} & called)
        if hidden:
            raise SiteError(
                f"the part '{name}' of the model comes from torch.export: its {', '.join(hidden)} is an operator "
                "of a graph, and no call that can be a site. Pass the nn.Module that was exported."
            )


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _check_not_quantised(modules: Mapping[str, nn.Module]) -> None:
    """Raise `SiteError` for a quantised part, which has no gradient and whose activations have no plain values."""
    for name, module in modules.items():
        path = type(module).__module__.split(".")
        packed = path[0] == "torch" and "quantized" in path
        if packed or any(tensor.is_quantized for tensor in _own_tensors(module)):
            raise SiteError(
                f"the part '{name}' of the model is quantised ({type(module).__name__}), so that no gradient "
                "passes it: pass the model in floating point that it was made from."
            )


def own_calls(modules: Iterable[nn.Module]) -> dict[CodeType, str]:
    """Find the functions that run modules of classes with their own ``__call__``.

    Args:
        modules: The modules.

    Returns:
        The name of ``self`` in each of them.
    """
    found = {}
    for kind in {type(module) for module in modules}:
        call: Any = kind.__call__
        while call is not None and call is not nn.Module.__call__:
            code = getattr(call, "__code__", None)
            if code is not None and code.co_argcount:
                found[code] = code.co_varnames[0]
            call = getattr(call, "__wrapped__", None)  # behind a decorator
    return found
