"""The functions of torch whose calls can be sites: activation functions by name, and attention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Functions of torch.nn.functional that can be sites.
_NAMES = (
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "hardtanh"),
    *("hardsigmoid", "softplus", "sigmoid", "tanh", "logsigmoid", "softsign", "tanhshrink"),
)

KINKS: dict[str, tuple[float, ...]] = {
    "relu": (0.0,),
    "leaky_relu": (0.0,),
    "relu6": (0.0, 6.0),
    "hardtanh": (-1.0, 1.0),
    "hardsigmoid": (-3.0, 3.0),
}
"""Inputs at which the slopes of piecewise affine functions change; of `hardtanh`, those by default."""

ATTENTION = "attention"
"""Name of scaled dot-product attention among the sites."""


@dataclass(frozen=True)
class Function:
    """One callable of torch that computes an activation function or attention.

    Attributes:
        name: Name of the function that it computes.
        compute: The same function, never in place.
        always_inplace: The callable writes over its input.
    """

    name: str
    compute: Callable[..., Tensor]
    always_inplace: bool = False

    @property
    def keeps_input(self) -> bool:
        """True if the backward pass needs the input; False if the output is enough."""
        return self.name not in ("relu", "sigmoid", "tanh")

    def kind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Name the function that a call computes: ``nn.ReLU6`` calls `hardtanh` from 0 to 6.

        Args:
            args: Arguments of the call by position.
            kwargs: Arguments of the call by name.

        Returns:
            The name.
        """
        return "relu6" if self.name == "hardtanh" and _bounds(args, kwargs) == (0, 6) else self.name

    def kinks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, ...] | None:
        """Find the inputs at which the slope changes, of a call that computes a piecewise affine function.

        Args:
            args: Arguments of the call by position.
            kwargs: Arguments of the call by name.

        Returns:
            The inputs, such as ``(0, 6)`` of `relu6`; None if the function is curved.
        """
        return _bounds(args, kwargs) if self.name == "hardtanh" else KINKS.get(self.name)


def _bounds(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[float, float]:
    """Bounds between which a call of `hardtanh` passes its input on."""
    low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
    high = args[2] if len(args) > 2 else kwargs.get("max_val", 1.0)
    return low, high


def _activation_table() -> dict[Callable[..., Any], Function]:
    table: dict[Callable[..., Any], Function] = {}
    for name in _NAMES:
        function = getattr(F, name)
        table[function] = Function(name, function)
    # The same functions under torch and as tensor methods, with their in-place twins.
    for name in ("relu", "sigmoid", "tanh", "selu", "celu"):
        for space in (torch, Tensor):
            plain, inplace = getattr(space, name, None), getattr(space, name + "_", None)
            if plain is not None:
                table.setdefault(plain, Function(name, plain))
            if inplace is not None:
                compute = plain or getattr(torch, name)
                table.setdefault(inplace, Function(name, compute, always_inplace=True))
    for name in ("leaky_relu", "elu", "hardtanh"):
        table.setdefault(getattr(F, name + "_"), Function(name, getattr(F, name), always_inplace=True))
    return table


TABLE = _activation_table()
"""Computation that each callable of torch stands for."""
ACTIVATIONS = tuple(dict.fromkeys(function.name for function in TABLE.values()))
"""Names of the activation functions that can be sites."""
FUNCTIONS = frozenset({*ACTIVATIONS, ATTENTION})
"""Names of all functions that can be sites."""
TABLE[F.scaled_dot_product_attention] = Function(ATTENTION, F.scaled_dot_product_attention)


def operator(kind: str) -> str:
    """Name the operator that computes a function in a graph of operators.

    Args:
        kind: Name of the function.

    Returns:
        The name of the operator, without underscores.
    """
    if kind == ATTENTION:
        return "scaleddotproductattention"
    return kind.replace("relu6", "hardtanh").replace("_", "")


class _Calls(TorchFunctionMode):
    """Counts the calls of functions that can be sites."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if (entry := TABLE.get(func)) is not None:
            self.counts[entry.kind(args, kwargs or {})] += 1
        elif func is F.multi_head_attention_forward:
            self.counts[ATTENTION] += 1
        return func(*args, **(kwargs or {}))


def count_calls(run: Callable[[], object]) -> Counter[str]:
    """Count the calls of the functions that can be sites while a function runs.

    Args:
        run: Function without arguments, which runs a model.

    Returns:
        Number of calls by name, as `ACTIVATIONS` lists them, and of ``"attention"``.
    """
    calls = _Calls()
    with torch.no_grad(), calls:
        run()
    return calls.counts
