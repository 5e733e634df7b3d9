"""Replay of a forward pass: its costly operations are computed once and answered from memory afterwards.

A method that changes one site at a time runs the network once for each site. Up to the site, every such pass
computes the same numbers; `Replay` keeps those of the costly operations: convolutions, linear layers,
normalisation, max pooling, GELU and SiLU, and attention (what ``nn.MultiheadAttention`` consists of too). ReLUs,
additions and reshapes cost no more than copying their result, and run again.

Worked example. Of the two-layer network of the package's examples, a replay keeps three tensors: the outputs of
``conv1`` (2, 4, 8, 8), ``conv2`` (2, 6, 4, 4) and ``fc`` (2, 5).

    >>> from cpath.replay import Replay
    >>> replay = Replay.record(model, images)

In a replayed run these operations do not look at their input. So the answer to other images is the recorded one:

    >>> with torch.no_grad(), replay.handing_out():
    ...     answer = model(torch.zeros_like(images))
    >>> torch.equal(answer, model(images))
    True

At the site that a method changes it calls ``stop``, and from there on everything is computed:

    >>> with torch.no_grad(), replay.handing_out() as memory:
    ...     z = model.relu1(model.conv1(images))  # conv1 is answered from memory
    ...     memory.stop()
    ...     halved = model.fc(model.flatten(model.relu2(model.conv2(z / 2))))  # conv2 and fc are computed
    >>> torch.equal(halved, answer)
    False
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cpath._torch import under_modes
from cpath.inputs import Inputs
from cpath.pooling import max_pool2d

# Operations that cost more than copying their result, and that write it to memory of its own.
_COSTLY: frozenset[Callable[..., Any]] = frozenset(
    (
        *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        *(F.linear, F.batch_norm, F.layer_norm, F.group_norm, F.max_pool2d, F.scaled_dot_product_attention),
        *(F.gelu, F.silu),
    )
)

# Functions by which sizes come to depend on values, so that inputs need not have equally many rows: a router that
# sends tokens to experts. A branch on a boolean shows in the order of operations.
_SIZING = frozenset(
    (
        *("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "repeat_interleave"),
        *("item", "tolist", "numpy", "__int__", "__index__"),
    )
)

_attention = under_modes(F.multi_head_attention_forward)


def _is_sizing(function: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Tell whether a call can give a size that depends on values."""
    name = getattr(function, "__name__", "")
    if name == "__getitem__":
        where = args[1] if isinstance(args[1], tuple) else (args[1],)
        return any(isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in where)
    return name in _SIZING or (name == "where" and len(args) == 1)


Batch = TypeVar("Batch", Tensor, Inputs)


@dataclass(frozen=True, eq=False)
class Operation:
    """A costly operation, as the next run tells it from others.

    Attributes:
        function: The function that was called.
        weight: The first parameter among its arguments, if there is one.
    """

    function: Callable[..., Any]
    weight: nn.Parameter | None

    @classmethod
    def of(cls, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Self | None:
        """Describe a call.

        Args:
            function: The function that is called.
            args: Its arguments by position.
            kwargs: Its arguments by name.

        Returns:
            The operation; None if it is not costly, or writes to memory that it is given.
        """
        in_place = kwargs.get("inplace", function is F.silu and args[1:] == (True,))
        if function not in _COSTLY or in_place or "out" in kwargs:
            return None
        # The weight's position differs: behind the buffers of a batch norm, behind the shape of a layer norm.
        weights = (value for value in (*args, *kwargs.values()) if isinstance(value, nn.Parameter))
        return cls(function, next(weights, None))

    def is_same(self, other: Operation | None) -> bool:
        """Tell whether another run called the same operation.

        Args:
            other: What it called; None for nothing.

        Returns:
            True if it is the same.
        """
        return other is not None and self.function is other.function and self.weight is other.weight


@dataclass(frozen=True, eq=False)
class Result:
    """Result of an operation for a batch of inputs.

    Attributes:
        values: The result, with an axis that counts the inputs.
        axis: That axis; None if the result is the same for all inputs.
        flat: First of two axes that are one in the model, as tokens and inputs are in ``nn.MultiheadAttention``;
            None if there are none.
        divisible: Every input has equally many of the numbers. Otherwise the result is only good for all inputs.
    """

    values: Tensor
    axis: int | None = None
    flat: int | None = None
    divisible: bool = True

    @classmethod
    def find(cls, output: Tensor | None, alone: Tensor | None, inputs: int) -> Self | None:
        """Find the inputs in a result.

        Args:
            output: Result for all inputs, which is kept; None if it is no tensor.
            alone: Result for the first input alone.
            inputs: Number of inputs, more than one.

        Returns:
            The result; None if it cannot be told which of its numbers belong to which input.
        """
        if output is None or alone is None:
            return None
        if output.shape == alone.shape:
            return cls(output) if _is_close(output, alone) else None
        if output.dim() != alone.dim():
            return None
        grown = [axis for axis, size in enumerate(output.shape) if size != alone.shape[axis]]
        within = alone.shape[grown[0]]
        if len(grown) > 1 or output.shape[grown[0]] != inputs * within:
            return None
        if within == 1:
            found = [cls(output, grown[0])]
        else:
            outer = cls(torch.unflatten(output, grown[0], (inputs, within)), grown[0], grown[0])
            inner = cls(torch.unflatten(output, grown[0], (within, inputs)), grown[0] + 1, grown[0])
            found = [outer, inner]
        found = [one for one in found if _is_close(one._first(), alone)]
        return found[0] if len(found) == 1 else None

    def part(self, rows: slice | Tensor) -> Self | None:
        """Select inputs.

        Args:
            rows: A slice, or a tensor of numbers or booleans.

        Returns:
            The result for these inputs; None if it cannot be told which of the numbers are theirs.
        """
        if not self.divisible:
            return None
        if self.axis is None:
            return self
        return replace(self, values=self.values[(*[slice(None)] * self.axis, rows)])

    def _first(self) -> Tensor:
        first = self.part(slice(0, 1))
        assert first is not None
        return first.whole()

    def whole(self) -> Tensor:
        """Get the result as the model computes it.

        Returns:
            The result, which may share the memory of ``values``.
        """
        return self.values if self.flat is None else self.values.flatten(self.flat, self.flat + 1)


Step = tuple[Operation, Result | None]
"""An operation and its result; None if it has to be computed again."""


def _is_close(one: Tensor, other: Tensor) -> bool:
    """Check that two results are the same up to rounding, which differs between batches of other sizes."""
    if not one.is_floating_point() or one.dtype != other.dtype:
        return torch.equal(one, other)
    share = max(3 * math.sqrt(torch.finfo(one.dtype).eps), 1e-5 if one.device.type == "cpu" else 1e-2)
    size = float(other.nan_to_num(posinf=0, neginf=0).abs().max()) if other.numel() else 0.0
    return torch.allclose(one, other, rtol=0, atol=share * size, equal_nan=True)


class Replay:
    """Results of the costly operations of a model for a batch of inputs, in call order. Made by `record`.

    Args:
        steps: Operations and their results.
        inputs: Number of inputs.
    """

    def __init__(self, steps: list[Step], inputs: int) -> None:
        self._steps = steps
        self._inputs = inputs

    @classmethod
    def record(cls, run: Callable[[Batch], object], inputs: Batch) -> Self:
        """Run a model and keep the results of its costly operations.

        Args:
            run: The model's forward pass, which must leave ``inputs`` as they are.
            inputs: Inputs (B, …): a tensor, or `cpath.inputs.Inputs`.

        Returns:
            The replay. It is empty if the model calls other operations for one input than for the batch, or cannot
            take one input.
        """
        count = len(inputs)
        recording = _recorded(run, inputs)
        calls = recording.calls
        if count == 1:
            return cls(
                [(operation, None if output is None else Result(output)) for operation, output in calls], count
            )
        # A run of the first input alone tells where in a result the inputs are.
        try:
            alone = _recorded(run, inputs[:1]).calls
        except Exception:  # the model's own: it may hold something of each input of this batch, and check that
            return cls([], count)
        if len(alone) != len(calls):
            return cls([], count)
        steps: list[Step] = []
        for number, ((operation, output), (again, first)) in enumerate(zip(calls, alone, strict=True)):
            result = Result.find(output, first, count) if operation.is_same(again) else None
            if result is not None and number >= recording.fixed:
                result = replace(result, divisible=False)
            steps.append((operation, result))
        return cls(steps, count)

    def part(self, rows: slice | Tensor) -> Self:
        """Select inputs.

        Args:
            rows: A slice, or a tensor of numbers or booleans.

        Returns:
            The replay of these inputs.
        """
        chosen = len(torch.empty(self._inputs, device="meta" if isinstance(rows, slice) else rows.device)[rows])
        # Of one input, it is not known where it is, and need not be.
        if chosen == self._inputs and (chosen == 1 or (isinstance(rows, slice) and rows.step in (None, 1))):
            return self
        if self._inputs == 1:
            return type(self)([], chosen)
        steps = [(operation, result and result.part(rows)) for operation, result in self._steps]
        return type(self)(steps, chosen)

    def handing_out(self) -> HandingOut:
        """Answer the costly operations of the model's next run from memory, inside a ``with`` block.

        Returns:
            A context manager, which gives an object whose ``stop()`` ends it.
        """
        return HandingOut(self._steps)


def _recorded(run: Callable[[Batch], object], inputs: Batch) -> _Recording:
    mode = _Recording()
    with torch.no_grad(), mode:
        run(inputs)
    return mode


class _Running(TorchFunctionMode):
    """Mode that sees what torch's own multi-head attention consists of too, and pools faster."""

    def _run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func is F.max_pool2d:
            return max_pool2d(*args, **kwargs)
        if func is not F.multi_head_attention_forward:
            return func(*args, **kwargs)
        with self:
            return _attention(*args, **kwargs)


class _Recording(_Running):
    """Mode that keeps the results of costly operations.

    Attributes:
        calls: Operations with their results, None for what is no tensor.
        fixed: How many come before the first size that can depend on values; infinite if none can.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Operation, Tensor | None]] = []
        self.fixed = math.inf

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = self._run(func, args, kwargs)
        if _is_sizing(func, args):
            self.fixed = min(self.fixed, len(self.calls))
        operation = Operation.of(func, args, kwargs)
        if operation is not None:
            # A copy, because a model may change the original in place.
            kept = output.detach().clone() if isinstance(output, Tensor) else None
            self.calls.append((operation, kept))
        return output


class HandingOut(_Running):
    """Mode that answers costly operations from memory until its method `stop` is called.

    Args:
        steps: Operations and their results.
    """

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self._steps: Iterator[Step] | None = iter(steps)

    def stop(self) -> None:
        """Compute everything from here on, because the numbers differ."""
        self._steps = None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._steps is None:
            return self._run(func, args, kwargs)
        operation = Operation.of(func, args, kwargs)
        if operation is None:
            return self._run(func, args, kwargs)
        recorded, result = next(self._steps, (None, None))
        if not operation.is_same(recorded):
            self.stop()  # not the run that was recorded
        elif result is not None:
            return result.whole().clone()
        return self._run(func, args, kwargs)
