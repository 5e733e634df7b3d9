"""Margin: the number by which the answers of a network and of its restricted versions are compared.

It is the logit of a class minus that of the best other class of the unrestricted network. Both classes stay what
they are in every version of the network, so that the margin is the same linear function of the logits throughout.
Of a binary classifier with one logit z, it is z for class 1 and −z for class 0.

    >>> from cpath.margin import Margin
    >>> logits = torch.tensor([[2.0, 1.0, 0.5], [0.0, 3.0, 1.0]])
    >>> margin = Margin.over_best_other(torch.tensor([0, 1]), logits)
    >>> margin.against
    tensor([1, 2])
    >>> margin.read(logits, versions=1)
    tensor([[1., 2.]], dtype=torch.float64)
    >>> margin.read(torch.zeros(6, 3), versions=3).shape  # three versions of the batch, one behind another
    torch.Size([3, 2])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from cpath.devices import widest
from cpath.response import Response, class_logits

_LEAST_RISE = 1e-3  # as a part of the larger answer
_ROUNDINGS = 16  # of the largest logit


class Strength(Protocol):
    """Number for each input that is read off a network's output, in any version of the network."""

    def read(self, output: object, versions: int) -> Tensor:
        """Read the number.

        Args:
            output: Output of a model for several versions of the batch, one whole batch after another.
            versions: Number of versions V.

        Returns:
            Numbers (V, B), part of autograd's graph if the output is.

        Raises:
            InputError: If the output is unusable.
        """
        ...


@dataclass(frozen=True, eq=False)
class Margin(Strength):
    """Logit of one class minus that of another, for each input.

    Attributes:
        target: Class (B,).
        against: Other class (B,).
    """

    target: Tensor
    against: Tensor

    @classmethod
    def over_best_other(cls, target: Tensor, logits: Tensor) -> Margin:
        """Take the margin of a class over the best other one.

        Args:
            target: Class (B,).
            logits: Logits (B, classes) of the unrestricted network.

        Returns:
            The margin.
        """
        return cls(target, best_other(target, logits))

    def read(self, output: object, versions: int) -> Tensor:
        """Read the margins (V, B)."""
        logits = class_logits(output, versions * len(self.target))
        pair = torch.stack([self.target, self.against], 1).repeat(versions, 1)
        # In half precision the difference of two logits would be rounded once more.
        of_target, of_other = logits.gather(1, pair).to(widest(logits.device)).unbind(1)
        margin: Tensor = of_target - of_other
        return margin.view(versions, len(self.target))


@dataclass(frozen=True, eq=False)
class OutputFunction(Strength):
    """Number that a user's function of the output gives for each input.

    Attributes:
        function: Function of the output.
        batch: Number of inputs B.
    """

    function: Callable[[Any], Tensor]
    batch: int

    def read(self, output: object, versions: int) -> Tensor:
        """Ask the function for its numbers (V, B)."""
        rows = versions * self.batch
        answer = Response(self.function, rows, torch.device("cpu")).read(output, rows)
        return answer.values.to(widest(answer.values.device)).view(versions, self.batch)


def best_other(target: Tensor, logits: Tensor) -> Tensor:
    """Find the class with the largest logit among all others.

    Args:
        target: Class (B,).
        logits: Logits (B, classes), of at least two classes.

    Returns:
        Classes (B,).
    """
    return logits.scatter(1, target.unsqueeze(1), -torch.inf).argmax(1)


def lead(logits: Tensor) -> Tensor:
    """Compute the margin of the predicted class.

    Args:
        logits: Logits (B, classes), of at least two classes.

    Returns:
        Largest logit minus the second largest (B,).
    """
    first, second = logits.topk(2, dim=1).values.unbind(1)
    return first - second


def rise_of(whole: Tensor, empty: Tensor, logits: Tensor | None) -> Tensor:
    """Compute the rise of an answer from the empty to the whole network, where there is one.

    Args:
        whole: Answer f(x) of the whole network (B,).
        empty: Answer f(∅) of the network with all units at their baseline (B,).
        logits: Logits (B, classes) of the whole network; None if the answer is a function's.

    Returns:
        f(x) − f(∅) (B,). NaN where it is less than a thousandth of the larger one, or than roundings of the logits:
        that is no answer that units could recover.

    Example:
        >>> from cpath.margin import rise_of
        >>> rise_of(torch.tensor([3.0, 3.0]), torch.tensor([-1.0, 2.999]), None)
        tensor([4., nan])
    """
    rise = whole - empty
    least = _LEAST_RISE * torch.maximum(whole.abs(), empty.abs())
    if logits is not None:
        rounding = torch.finfo(logits.dtype).eps * logits.abs().amax(1)
        least = torch.maximum(least, _ROUNDINGS * rounding.to(least))
    return rise.masked_fill(rise.abs() <= least, torch.nan)
