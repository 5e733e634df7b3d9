"""Replay of a forward pass: its costly operations are computed once and answered from memory afterwards.

A method that changes one site at a time runs the network once for each site. Up to the site, every such pass
computes the same numbers; `Replay` keeps those of the costly operations: convolutions, linear layers,
normalisation, max pooling and attention. Activation functions, additions and reshapes cost no more than copying
their result, and run again.

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

from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cpath.inputs import Inputs

# Operations that cost more than copying their result, and that write it to memory of its own.
_COSTLY: frozenset[Callable[..., Any]] = frozenset(
    (
        *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        *(F.linear, F.batch_norm, F.layer_norm, F.group_norm, F.max_pool2d, F.scaled_dot_product_attention),
    )
)


Batch = TypeVar("Batch", Tensor, Inputs)

Operation = tuple[Callable[..., Any], nn.Parameter | None]
"""A costly operation and its weight, by which it is recognised in the next run."""

Step = tuple[Operation, Tensor | None]
"""An operation and its result, with one row per input; None if the rows are not inputs."""


def _operation(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation:
    # The weight's position differs: behind the buffers of a batch norm, behind the shape of a layer norm.
    return func, next((value for value in (*args, *kwargs.values()) if isinstance(value, nn.Parameter)), None)


def _same(one: Operation, other: Operation) -> bool:
    return one[0] is other[0] and one[1] is other[1]


class Replay:
    """Results of the costly operations of a model for a batch of inputs, in call order. Made by `record`.

    Args:
        steps: Operations and their results.
    """

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps

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
        steps = _steps(run, inputs)
        # A run of the first input alone tells rows that are inputs from other dimensions of the same size.
        try:
            alone = steps if len(inputs) == 1 else _steps(run, inputs[:1])
        except (RuntimeError, ValueError, IndexError):  # the model holds something of each input of this batch
            return cls([])
        if len(alone) != len(steps):
            return cls([])
        return cls(
            [
                (operation, output if one is not None and _same(operation, again) else None)
                for (operation, output), (again, one) in zip(steps, alone, strict=True)
            ]
        )

    def part(self, rows: slice | Tensor) -> Self:
        """Select inputs.

        Args:
            rows: A slice, or a tensor of numbers or booleans.

        Returns:
            The replay of these inputs.
        """
        return type(self)(
            [(operation, output if output is None else output[rows]) for operation, output in self._steps]
        )

    def handing_out(self) -> HandingOut:
        """Answer the costly operations of the model's next run from memory, inside a ``with`` block.

        Returns:
            A context manager, which gives an object whose ``stop()`` ends it.
        """
        return HandingOut(self._steps)


def _steps(run: Callable[[Batch], object], inputs: Batch) -> list[Step]:
    mode = _Recording(len(inputs))
    with torch.no_grad(), mode:
        run(inputs)
    return mode.steps


class _Recording(TorchFunctionMode):
    """Mode that keeps the results of costly operations for a number of inputs."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._inputs = inputs

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func in _COSTLY:
            rows = isinstance(output, Tensor) and output.dim() > 0 and output.shape[0] == self._inputs
            # A copy, because a model may change the original in place.
            self.steps.append((_operation(func, args, kwargs), output.detach().clone() if rows else None))
        return output


class HandingOut(TorchFunctionMode):
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
        if self._steps is not None and func in _COSTLY:
            operation, output = next(self._steps, (None, None))
            if operation is None or not _same(operation, _operation(func, args, kwargs)):
                self.stop()  # not the run that was recorded
            elif output is not None:
                return output.clone()
        return func(*args, **kwargs)
