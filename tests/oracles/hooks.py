"""Sites by plain PyTorch: forward hooks, and functions of torch.nn.functional replaced while a model runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Edit = Callable[[str, Tensor], Tensor]
"""Function of a site's name and output that returns what the model goes on with."""

_FUNCTIONS = {
    "relu6": ((F, "relu6"), (F, "hardtanh")),  # nn.ReLU6 calls hardtanh
    "sigmoid": ((torch, "sigmoid"),),
    "attention": ((F, "scaled_dot_product_attention"),),
}
"""The functions that compute a kind, where that is not torch.nn.functional's of the same name alone."""


class Sites:
    """The sites of a model, written down while it runs.

    Args:
        functions: Functions of torch.nn.functional whose calls are sites.
        classes: Names of classes of modules whose outputs are sites, with what to add to the module's name.
        edit: What to do with a site's output.
    """

    def __init__(self, functions: Collection[str], classes: Mapping[str, str], edit: Edit) -> None:
        self.functions, self.classes, self.edit = functions, classes, edit
        self.outputs: dict[str, Tensor] = {}
        self._running: list[tuple[str, nn.Module]] = []
        self._calls: Counter[str] = Counter()

    def visit(self, name: str, output: Tensor) -> Tensor:
        self._calls[name] += 1
        if self._calls[name] > 1:
            name = f"{name}#{self._calls[name]}"
        self.outputs[name] = self.edit(name, output)
        return self.outputs[name]

    def replaced(self, function: Callable[..., Tensor], kind: str) -> Callable[..., Tensor]:
        def call(values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            name, module = self._running[-1]
            if kind == "attention" or type(module).__module__ != "torch.nn.modules.activation":
                name = f"{name}:{kind}"
            return self.visit(name, function(values.clone(), *args, **kwargs))  # in place only into the copy

        return call

    def enter(self, name: str, module: nn.Module) -> None:
        self._running.append((name, module))

    def leave(self, name: str, module: nn.Module, output: Any) -> Any:
        self._running.pop()
        suffix = self.classes.get(type(module).__name__)
        return None if suffix is None else self.visit(name + suffix, output)


@contextmanager
def watched(
    model: nn.Module,
    functions: Collection[str] = (),
    classes: Mapping[str, str] | None = None,
    edit: Edit | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Gives the outputs of the sites of the one forward pass in the block, by name, in call order.

    Run the model with gradients on: without, torch's transformer layers take a fast path that calls no function.
    """
    sites = Sites(functions, classes or {}, edit or (lambda name, output: output))
    with ExitStack() as stack:
        for name, module in model.named_modules():
            before = module.register_forward_pre_hook(lambda module, args, name=name: sites.enter(name, module))
            after = module.register_forward_hook(
                lambda module, args, output, name=name: sites.leave(name, module, output)
            )
            stack.callback(before.remove)
            stack.callback(after.remove)
        for kind in functions:
            for space, function in _FUNCTIONS.get(kind, ((F, kind),)):
                stack.enter_context(patch.object(space, function, sites.replaced(getattr(space, function), kind)))
        yield sites.outputs
