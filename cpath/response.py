"""Response: the number per input that is explained, read off a model's output.

By default it is the logit of a class. A model returns logits (B, classes), or an object or a mapping that holds
them as ``logits``. One logit per input, (B,) or (B, 1), is that of a binary classifier: class 1 is predicted where
it is ≥ 0, its probability is the sigmoid, and the response is the logit for class 1, minus the logit for class 0.
What compares classes sees such a logit z as the two logits (−z/2, z/2), whose softmax is the sigmoid.

Any other question is a function of the model's output, which returns one number per input.

    >>> from cpath.response import Response
    >>> output = torch.tensor([[2.0, 1.0, 0.5], [0.0, 3.0, 1.0]])
    >>> Response(None, 2, output.device).read(output, 2).values
    tensor([2., 3.])
    >>> Response(lambda logits: logits[:, 0] - logits[:, 1], 2, output.device).read(output, 2).values
    tensor([ 1., -3.])
    >>> Response(0, 2, output.device).read(torch.tensor([-1.5, 0.5]), 2).values  # one logit each
    tensor([ 1.5000, -0.5000])
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from cpath.errors import CpathError, InputError, described

Target = None | int | Tensor | Callable[[Any], Tensor]
"""Question about each input: None for the predicted class, a class, classes (B,), or a function of the output."""


def raw_logits(output: object) -> object:
    """Get the logits that a model returned: the output itself, or what it holds as ``logits``.

    Args:
        output: The model's output.

    Returns:
        The logits, or the output where it holds none.
    """
    if isinstance(output, Tensor):
        return output
    held = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    return output if held is None else held


def _is_binary(logits: Tensor) -> bool:
    return logits.dim() == 1 or logits.shape[1] == 1


def _two_columns(logits: Tensor) -> Tensor:
    """Make two logits of the one logit of a binary classifier; leave those of several classes as they are."""
    if not _is_binary(logits):
        return logits
    half = logits.reshape(-1) / 2
    return torch.stack([-half, half], 1)


def logits_of(output: object) -> Tensor:
    """Read the logits of classes off a model's output, without the checks of `class_logits`.

    Args:
        output: The model's output.

    Returns:
        Logits (B, classes).
    """
    logits = raw_logits(output)
    assert isinstance(logits, Tensor)
    return _two_columns(logits)


def predicted(logits: Tensor) -> Tensor:
    """Find the predicted classes.

    Args:
        logits: Logits (B, classes), or one logit (B,) or (B, 1) of a binary classifier.

    Returns:
        Classes (B,), int64.
    """
    return (logits.reshape(-1) >= 0).long() if _is_binary(logits) else logits.argmax(1)


def class_logits(output: object, batch: int) -> Tensor:
    """Read the logits of classes off a model's output.

    Args:
        output: The output.
        batch: Number of inputs B.

    Returns:
        Logits (B, classes); of a binary classifier with one logit z, (−z/2, z/2).

    Raises:
        InputError: If the output holds no finite logits.
    """
    return _two_columns(check_logits(output, batch))


def check_logits(output: object, batch: int, *, differentiable: bool = False) -> Tensor:
    """Check that a model's output holds finite logits.

    Args:
        output: The output.
        batch: Number of inputs B.
        differentiable: The logits must also be part of autograd's graph.

    Returns:
        The logits, as the model returned them: (B, classes), (B, 1) or (B,).

    Raises:
        InputError: If there are none.
    """
    logits = raw_logits(output)
    remedy = "or pass a function of the output as the target"
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the model returned a {type(output).__name__}, not logits (B, classes) or an object with .logits: "
            f"wrap it in a module that returns the logits, {remedy}."
        )
    if logits.dim() not in (1, 2) or logits.shape[0] != batch or not logits.numel():
        raise InputError(
            f"the model returned shape {tuple(logits.shape)}, not logits ({batch}, classes): "
            f"wrap it in a module that returns one row of logits per input, {remedy}."
        )
    if not logits.is_floating_point():
        raise InputError(f"the model returned {logits.dtype}, not logits: it must return floats.")
    if differentiable:
        check_gradient(logits)
    if not torch.isfinite(logits).all():
        raise InputError("the model's logits hold NaN or infinite values for these inputs.")
    return logits


def check_gradient(logits: Tensor) -> Tensor:
    """Check that logits are part of autograd's graph.

    Args:
        logits: The logits.

    Returns:
        ``logits``.

    Raises:
        InputError: If they have no gradient.
    """
    if not logits.requires_grad:
        raise InputError(
            "the model's logits have no gradient: it detaches them, runs under no_grad(), or does not use the "
            "inputs. Change that in the model."
        )
    return logits


def check_target(target: object, batch: int, device: torch.device) -> Tensor | None:
    """Check the classes to explain.

    Args:
        target: None, an int, or ints (B,).
        batch: Number of inputs B.
        device: Device of the inputs.

    Returns:
        Classes (B,), int64, on ``device``; None for None.

    Raises:
        InputError: If ``target`` is none of these.
    """
    if target is None:
        return None
    named = [one for one in (target if isinstance(target, list | tuple) else [target]) if isinstance(one, str)]
    if named:
        raise InputError(
            f"target must be a class index, not the name of a class: classes.index({named[0]!r}), or the like."
        )
    try:
        labels = torch.as_tensor(target, device=device)
        labels = labels.to_dense() if labels.layout != torch.strided else labels
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"target must be a class index, or (B,) of them, or a function of the model's output: {error}."
        ) from error
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        one_hot = " Of rows with a 1 at the class, target.argmax(1) are the indices." if labels.dim() == 2 else ""
        raise InputError(f"target must hold class indices (integers), not {labels.dtype}.{one_hot}")
    if labels.dim() == 0:
        labels = labels.expand(batch)
    if labels.shape != (batch,):
        raise InputError(
            f"target must be one class, or one per input: shape ({batch},), not {tuple(labels.shape)}."
        )
    return labels.to(torch.int64, copy=labels.is_inference())


@dataclass(frozen=True)
class Answer:
    """Answer of a model to inputs, which may be several versions of a batch.

    Attributes:
        values: Responses (R,), part of autograd's graph if the output is.
        class_logits: Logits (R, classes) of classes; None where the response is a function of the output.
    """

    values: Tensor
    class_logits: Tensor | None


class Response:
    """Reading of the response off a model's output.

    Args:
        target: None for the predicted class, an int, ints (B,), or a function of the output.
        batch: Number of inputs B.
        device: Device of the inputs.

    Raises:
        InputError: If ``target`` is none of these.
    """

    def __init__(self, target: Target, batch: int, device: torch.device) -> None:
        asks = callable(target) and not isinstance(target, type)
        self.function: Callable[[Any], Any] | None = target if asks else None  # type: ignore[assignment]
        self.classes = None if asks else check_target(target, batch, device)
        """Class (B,) of each input as far as it is known: asked for, or found by the first `read`."""
        self.settled = False
        """True when an answer of the model has been seen and the target fits it."""

    def part(self, rows: slice | Tensor) -> Self:
        """Select inputs.

        Args:
            rows: A slice, or a tensor of numbers or booleans.

        Returns:
            The reading for these inputs.
        """
        part = copy.copy(self)
        part.classes = None if self.classes is None else self.classes[rows]
        return part

    def need_classes(self, what: str) -> None:
        """Refuse a function where classes are needed.

        Args:
            what: Name of what needs them.

        Raises:
            InputError: If the target is a function.
        """
        if self.function is not None:
            raise InputError(
                f"{what} needs the model's classes and their probabilities, which a target that is a function of "
                "the output does not have: leave the target out, or pass classes."
            )

    def read(self, output: object, rows: int, *, differentiable: bool = False) -> Answer:
        """Read the response, with all checks. The first reading takes the predicted classes, if none are asked for.

        Args:
            output: The model's output for K versions of the batch, one whole batch after another.
            rows: Number of inputs K·B.
            differentiable: The response must be part of autograd's graph.

        Returns:
            The answer.

        Raises:
            InputError: If the output holds no finite logits, or a class is none of the model's; or if the function
                does not return one finite float per input.
        """
        if self.function is not None:
            values = _check_values(_ask(self.function, output), rows, differentiable)
            self.settled = True
            return Answer(values, None)
        logits = check_logits(output, rows, differentiable=differentiable)
        self._settle(logits.detach())
        return Answer(self.of(output), _two_columns(logits))

    def _settle(self, logits: Tensor) -> None:
        if self.settled:
            return
        classes = 2 if _is_binary(logits) else logits.shape[1]
        if self.classes is None:
            self.classes = predicted(logits)
        elif len(wrong := self.classes[(self.classes < 0) | (self.classes >= classes)]):
            raise InputError(
                f"target {int(wrong[0])} is no class of the model: it has {classes}, 0 to {classes - 1}."
            )
        self.settled = True

    def of(self, output: object) -> Tensor:
        """Read the response, without checks, as `torch.vmap` needs it. The classes must be known.

        Args:
            output: The model's output, as for `read`.

        Returns:
            Responses (K·B,).
        """
        if self.function is not None:
            values: Tensor = self.function(output)
            return values
        logits = raw_logits(output)
        assert isinstance(logits, Tensor)
        assert self.classes is not None
        classes = self.classes if len(logits) == len(self.classes) else self._repeated(len(logits))
        if _is_binary(logits):
            return logits.reshape(-1) * (2 * classes - 1)
        return logits.gather(1, classes.unsqueeze(1)).squeeze(1)

    def _repeated(self, rows: int) -> Tensor:
        assert self.classes is not None
        return self.classes.repeat(rows // len(self.classes))

    def numbers_of(self, output: object) -> Tensor:
        """Read the numbers by which two outputs can be compared: the logits, or the values of the function.

        Args:
            output: The model's output.

        Returns:
            Floats (B, …).
        """
        return self.of(output) if self.function is not None else logits_of(output)


def _ask(function: Callable[[Any], Any], output: object) -> object:
    try:
        return function(output)
    except CpathError:
        raise
    except Exception as error:
        error.add_note(f"This is an error of the function that is the target. {_HOW_OFTEN}")
        raise


_HOW_OFTEN = (
    "It is called with the outputs of parts of the batch and of repeated inputs: it must not count on the number "
    "of rows."
)


def _check_values(values: object, rows: int, differentiable: bool) -> Tensor:
    """Check what a function returned."""
    if not isinstance(values, Tensor):
        raise InputError(f"the target's function must return a tensor (B,) of floats, not {described(values)}.")
    if values.shape != (rows,):
        raise InputError(
            f"the target's function must return one number per input, shape ({rows},), not {tuple(values.shape)}. "
            f"{_HOW_OFTEN}"
        )
    if not values.is_floating_point():
        raise InputError(f"the target's function must return floats, not {values.dtype}.")
    if differentiable and not values.requires_grad:
        raise InputError(
            "what the target's function returns has no gradient: the function or the model detaches it, or it does "
            "not depend on the inputs."
        )
    if not torch.isfinite(values).all():
        raise InputError("what the target's function returns holds NaN or infinite values for these inputs.")
    return values
