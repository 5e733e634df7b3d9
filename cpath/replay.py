"""Replaying a forward pass: its costly operations are computed once and handed out again.

Methods that change one site at a time run the network once a site. Up to the site every such pass computes the same
numbers; `Replay` keeps those of the costly operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Operations that cost more than copying what they give, in memory that is theirs alone.
_COSTLY: frozenset[Callable[..., Any]] = frozenset(
    (
        *(F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d),
        *(F.linear, F.batch_norm, F.layer_norm, F.group_norm, F.max_pool2d, F.scaled_dot_product_attention),
    )
)


Operation = tuple[Callable[..., Any], nn.Parameter | None]
"""A costly operation and the weight that it works with, by which it is known again."""

Step = tuple[Operation, Tensor | None]
"""An operation and what it gave, a row an image; None where its rows are not the images."""


def _operation(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Operation:
    # Where it stands differs: behind the buffers of a batch norm, behind the shape of a layer norm.
    return func, next((value for value in (*args, *kwargs.values()) if isinstance(value, nn.Parameter)), None)


def _same(one: Operation, other: Operation) -> bool:
    return one[0] is other[0] and one[1] is other[1]


class Replay:
    """What the costly operations of a model gave for a batch of images, in call order."""

    def __init__(self, steps: list[Step]) -> None:
        self._steps = steps

    @classmethod
    def record(cls, run: Callable[[Tensor], object], images: Tensor) -> Self:
        """That of ``run(images)``, the model's forward pass, which must leave ``images`` as they are."""
        steps = _steps(run, images)
        # The first image alone tells which rows are images, and which are rows of as many other things.
        alone = steps if len(images) == 1 else _steps(run, images[:1])
        if len(alone) != len(steps):
            return cls([])
        return cls(
            [
                (operation, output if one is not None and _same(operation, again) else None)
                for (operation, output), (again, one) in zip(steps, alone, strict=True)
            ]
        )

    def part(self, images: slice | Tensor) -> Self:
        """That of some of the images."""
        return type(self)(
            [(operation, output if output is None else output[images]) for operation, output in self._steps]
        )

    def handing_out(self) -> HandingOut:
        """A context in which the costly operations of the model's next run are answered from memory."""
        return HandingOut(self._steps)


def _steps(run: Callable[[Tensor], object], images: Tensor) -> list[Step]:
    mode = _Recording(len(images))
    with torch.no_grad(), mode:
        run(images)
    return mode.steps


class _Recording(TorchFunctionMode):
    """Keeps what the costly operations give for so many images."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._images = images

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func in _COSTLY:
            rows = isinstance(output, Tensor) and output.dim() > 0 and output.shape[0] == self._images
            # A copy, because a model may change the original in place.
            self.steps.append((_operation(func, args, kwargs), output.detach().clone() if rows else None))
        return output


class HandingOut(TorchFunctionMode):
    """Answers costly operations from memory until it is told to `stop`."""

    def __init__(self, steps: list[Step]) -> None:
        super().__init__()
        self._steps: Iterator[Step] | None = iter(steps)

    def stop(self) -> None:
        """From here on the numbers differ: everything is computed."""
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
