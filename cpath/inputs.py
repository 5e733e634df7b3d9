"""Inputs of a model: one batch of tensors, in the structure in which the model takes them.

A tensor is the model's only argument, a tuple holds positional arguments, and a mapping (also the
``BatchEncoding`` of a tokeniser) keyword arguments. Lists, tuples and mappings inside them are looked through; what
is no tensor is handed on as it is.

The batch is the first dimension of each tensor. A tensor without dimensions, or with a first dimension of 1 where
the batch is larger, belongs to all inputs and is handed on whole; any other size is refused.

    >>> from cpath.inputs import Inputs
    >>> inputs = Inputs.of({"tokens": torch.tensor([[1, 2], [3, 4], [5, 6]]), "scale": torch.tensor(2.0)})
    >>> len(inputs), inputs[1:].tensors
    (3, (tensor([[3, 4],
            [5, 6]]), tensor(2.)))
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cpath.display import Shown
from cpath.errors import InputError, described
from cpath.sites import check_model

Given = Tensor | tuple[Any, ...] | Mapping[str, Any]
"""Inputs as users pass them: a tensor, a tuple of positional arguments, or a mapping of keyword arguments."""

GivenT = TypeVar("GivenT", Tensor, tuple[Any, ...], Mapping[str, Any])
"""The same, of a function that returns something in the structure of the inputs."""


@dataclass(frozen=True)
class _Place:
    """Stand-in for a tensor in the structure of the inputs: its number."""

    number: int


@dataclass(frozen=True, eq=False, repr=False)
class Inputs(Shown):
    """Batch of inputs of a model. Made by `of`, or with all checks by `check_inputs`.

    ``len(inputs)`` is the number of inputs B; indexing by a slice or a tensor selects inputs.

    Attributes:
        tensors: All tensors, in the order of the structure.
        names: Name of each tensor, for messages, such as ``inputs['tokens']``.
        batched: True for each tensor whose first dimension is the batch.
        sources: Numbers of the tensors that have a gradient: batched floats. Those that hold −∞ (additive attention
            masks) have none.
        structure: The arguments, with a stand-in in each tensor's place.
        batch: Number of inputs B.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...]
    batched: tuple[bool, ...]
    sources: tuple[int, ...]
    structure: Any
    batch: int

    @classmethod
    def of(cls, given: object, name: str = "inputs") -> Inputs:
        """Find the tensors of a model's arguments, and the batch.

        Args:
            given: A tensor, a tuple, a mapping, or `Inputs`, which are returned as they are.
            name: Name of the argument, for messages.

        Returns:
            The inputs.

        Raises:
            InputError: If ``given`` is none of these, holds no tensor, or its tensors differ in their batch.
        """
        if isinstance(given, Inputs):
            return given
        if not isinstance(given, Tensor | tuple | Mapping):
            raise InputError(
                f"{name} must be a tensor (B, …), a tuple of positional arguments or a mapping of keyword "
                f"arguments, not {described(given)}.{_how_to_make_a_tensor(given)}"
            )
        if isinstance(given, Mapping) and not all(isinstance(key, str) for key in given):
            raise InputError(f"{name} is a mapping: its keys must be the names of the model's arguments.")
        found: list[tuple[str, Tensor]] = []
        structure = _structure(given, name, found)
        if not found:
            raise InputError(f"{name} must hold a tensor (B, …): {described(given)} has none.")
        names, tensors = zip(*found, strict=True)
        batch = _batch(names, tensors)
        batched = tuple(tensor.dim() > 0 and len(tensor) == batch for tensor in tensors)
        sources = tuple(i for i, tensor in enumerate(tensors) if batched[i] and tensor.is_floating_point())
        return cls(tensors, names, batched, sources, structure, batch)

    def __len__(self) -> int:
        return self.batch

    def _facts(self) -> dict[str, object]:
        return {"batch": self.batch, "tensors": dict(zip(self.names, self.tensors, strict=True))}

    def __getitem__(self, rows: slice | Tensor) -> Inputs:
        """Select inputs.

        Args:
            rows: A slice, or a tensor of numbers or booleans.

        Returns:
            The selected inputs.
        """
        chosen = self._with(lambda tensor: tensor[rows])
        return replace(chosen, batch=len(chosen.first))

    @property
    def first(self) -> Tensor:
        """First tensor whose first dimension is the batch."""
        return next(tensor for tensor, batched in zip(self.tensors, self.batched, strict=True) if batched)

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.first.device

    @property
    def all_sources(self) -> bool:
        """True if every tensor has a gradient, so that all that a model computes is part of one graph."""
        return len(self.sources) == len(self.tensors)

    @property
    def bytes_each(self) -> int:
        """Memory of one input."""
        return sum(tensor[0].numel() * tensor.element_size() for tensor in self._of_batch())

    @property
    def shapes(self) -> str:
        """Shapes and kinds of all tensors, for messages."""
        if len(self.tensors) == 1:
            return f"shape {tuple(self.tensors[0].shape)} ({_kind(self.tensors[0])})"
        each = [f"{name}: {tuple(t.shape)} ({_kind(t)})" for name, t in zip(self.names, self.tensors, strict=True)]
        return ", ".join(each)

    def _of_batch(self) -> Iterator[Tensor]:
        return (tensor for tensor, batched in zip(self.tensors, self.batched, strict=True) if batched)

    def _with(self, change: Callable[[Tensor], Tensor], *, shared: bool = False) -> Inputs:
        """Change the tensors of the batch, and with ``shared`` also those that belong to all inputs."""
        changed = (
            change(tensor) if batched or shared else tensor
            for tensor, batched in zip(self.tensors, self.batched, strict=True)
        )
        return replace(self, tensors=tuple(changed))

    def clone(self) -> Inputs:
        """Copy all tensors, because a model may change its input in place.

        Returns:
            The copy.
        """
        return self._with(Tensor.clone, shared=True)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Inputs:
        """Move all tensors to a device.

        Args:
            device: The device.
            dtype: Type that floats are changed to, if any; whole numbers and booleans keep theirs.

        Returns:
            The inputs on ``device``.
        """
        moved = (tensor.to(device, dtype if tensor.is_floating_point() else None) for tensor in self.tensors)
        return replace(self, tensors=tuple(moved))

    def nudged(self) -> Inputs:
        """Change every number of the sources, the tensors that have a gradient, by one rounding.

        Returns:
            The inputs, multiplied by 1 + ε of their type.
        """
        changed = (
            tensor * (1 + torch.finfo(tensor.dtype).eps) if number in self.sources else tensor
            for number, tensor in enumerate(self.tensors)
        )
        return replace(self, tensors=tuple(changed))

    def detach(self) -> Inputs:
        """Cut all tensors off from the graphs of autograd that they are part of.

        Returns:
            The inputs, in the same memory.
        """
        return self._with(Tensor.detach, shared=True)

    def on_cpu(self) -> Inputs:
        """Copy the values to plain memory of the CPU, one input after another, unless they lie there.

        Returns:
            The inputs on the CPU.
        """
        return self._with(lambda tensor: tensor.detach().resolve_neg().cpu().contiguous(), shared=True)

    def usable_by_autograd(self) -> Inputs:
        """Copy the tensors made under ``inference_mode``, which cannot be saved for a backward pass.

        Returns:
            The inputs, with the user's own tensors otherwise.
        """
        return self._with(lambda tensor: tensor.clone() if tensor.is_inference() else tensor, shared=True)

    def tracked(self) -> Inputs:
        """Copy the inputs such that what a model computes of the sources has a gradient, in place or not.

        Returns:
            The inputs, whose sources are no leaves.
        """
        changed = (
            tensor.detach().requires_grad_().clone() if number in self.sources else tensor.detach().clone()
            for number, tensor in enumerate(self.tensors)
        )
        return replace(self, tensors=tuple(changed))

    def leaves(self) -> tuple[Tensor, ...]:
        """Make tensors of our own that require gradients, one for each source; the user's never do.

        Returns:
            The leaves, which share their values with the sources.

        Raises:
            InputError: If no tensor has a gradient.
        """
        if not self.sources:
            raise InputError(
                f"inputs must be floats to have a gradient, but they are {self.shapes}. For a model of token ids, "
                "pass its embeddings as input (such as inputs_embeds) instead."
            )
        return tuple(self.tensors[number].detach().requires_grad_() for number in self.sources)

    def versions(self, tensors: Sequence[Tensor]) -> Inputs:
        """Put versions of the batch in its place.

        Args:
            tensors: For each source, K versions of its batch (K·B, …), one whole batch after another. All other
                tensors of the batch are repeated K times.

        Returns:
            The K·B inputs.
        """
        if not tensors:
            return self
        times = len(tensors[0]) // len(self)
        given = dict(zip(self.sources, tensors, strict=True))
        changed = (
            given.get(number, _repeated(tensor, times if self.batched[number] else 1))
            for number, tensor in enumerate(self.tensors)
        )
        return replace(self, tensors=tuple(changed), batch=times * len(self))

    def paired(self, other: Inputs) -> Inputs:
        """Put another input behind a single one.

        Args:
            other: Inputs of the same structure. If it has no row, or the same values, some other input is made up.

        Returns:
            Both, a batch of two.
        """
        if not len(other) or all(map(torch.equal, self._of_batch(), other._of_batch())):
            other = self._with(_another)
        theirs = iter(other._of_batch())
        return replace(self._with(lambda tensor: torch.cat([tensor, next(theirs)])), batch=2)

    def call(self, model: Callable[..., Any]) -> Any:
        """Call a model.

        Args:
            model: The model.

        Returns:
            Its output.
        """
        arguments = self._filled(self.structure, self.tensors)
        if isinstance(arguments, tuple):
            return model(*arguments)
        return model(**arguments) if isinstance(arguments, dict) else model(arguments)

    def structured(self, found: Mapping[int, Tensor]) -> Any:
        """Arrange results in the structure of the inputs.

        Args:
            found: Results by the number of their tensor.

        Returns:
            A tensor, a tuple or a dict, with None in the place of what has no result.
        """
        return self._filled(self.structure, [found.get(number) for number in range(len(self.tensors))], bare=True)

    def _filled(self, structure: Any, values: Sequence[Tensor | None], bare: bool = False) -> Any:
        if isinstance(structure, _Place):
            return values[structure.number]
        if isinstance(structure, Mapping):
            return {key: self._filled(part, values, bare) for key, part in structure.items()}
        if isinstance(structure, tuple | list):
            parts = [self._filled(part, values, bare) for part in structure]
            if isinstance(structure, list):
                return parts
            kind: Any = type(structure)
            return kind(*parts) if hasattr(structure, "_fields") else tuple(parts)
        return None if bare else structure

    def rows(self) -> Iterator[list[Tensor]]:
        """Iterate over the tensors of each input alone, as they are in any batch that it is part of.

        Returns:
            Iterator over lists of tensors without the dimension of the batch.
        """
        of_all = [tensor for tensor in self.tensors if tensor.dim()]
        for row in range(len(self)):
            yield [tensor[min(row, len(tensor) - 1)] for tensor in of_all]


def _structure(given: Any, name: str, found: list[tuple[str, Tensor]]) -> Any:
    """Copy nested arguments, with a stand-in for each tensor, which is added to ``found`` under its name."""
    if isinstance(given, Tensor):
        found.append((name, given))
        return _Place(len(found) - 1)
    if isinstance(given, Mapping):
        return {key: _structure(part, f"{name}[{key!r}]", found) for key, part in given.items()}
    if isinstance(given, tuple | list):
        parts = [_structure(part, f"{name}[{place}]", found) for place, part in enumerate(given)]
        if isinstance(given, list):
            return parts
        kind: Any = type(given)
        return kind(*parts) if hasattr(given, "_fields") else tuple(parts)
    return given


def _batch(names: Sequence[str], tensors: Sequence[Tensor]) -> int:
    """Find the number of inputs, which is that of every tensor that does not belong to all of them."""
    sizes = {name: len(tensor) for name, tensor in zip(names, tensors, strict=True) if tensor.dim()}
    if not sizes:
        raise InputError(
            f"{names[0]} must be a batch (B, …), not a number: a single input is a batch of one, {names[0]}[None]."
        )
    several = {name: size for name, size in sizes.items() if size != 1}
    if len(set(several.values())) > 1:
        told = ", ".join(f"{name} has {size}" for name, size in several.items())
        raise InputError(
            f"the tensors of an input must have one batch as their first dimension, but {told}. What belongs to no "
            "input of its own must have a first dimension of 1, or be bound in the model."
        )
    return next(iter(several.values()), 1)


def _another(tensor: Tensor) -> Tensor:
    """Make another input of the same kind: other floats, or the same token ids in another order."""
    if tensor.is_floating_point():
        return tensor / 2 + 0.25
    return tensor.flip(-1) if tensor.dim() > 1 and tensor.dtype != torch.bool else tensor


def _repeated(tensor: Tensor, times: int) -> Tensor:
    return tensor if times == 1 else tensor.repeat(times, *[1] * (tensor.dim() - 1))


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype)


def check_inputs(model: nn.Module, given: object, name: str = "inputs") -> Inputs:
    """Check that a model can take the inputs.

    Args:
        model: The model.
        given: A tensor, a tuple of positional arguments, or a mapping of keyword arguments.
        name: Name of the argument, for messages.

    Returns:
        The inputs.

    Raises:
        InputError: If ``model`` is no module, or a tensor is empty, of another batch than the others, not on the
            model's device, of another floating-point type than its parameters, or not finite.
    """
    check_model(model)
    inputs = Inputs.of(given, name)
    finite = [
        _check_tensor(model, *named, alone=len(inputs.tensors) == 1)
        for named in zip(inputs.names, inputs.tensors, strict=True)
    ]
    if len(inputs) == 0:
        raise InputError(f"{name} must be a batch (B, …) with B ≥ 1; got {inputs.shapes}.")
    return replace(inputs, sources=tuple(number for number in inputs.sources if finite[number]))


def _check_tensor(model: nn.Module, name: str, tensor: Tensor, *, alone: bool) -> bool:
    """Check one tensor, and tell whether all its values are finite."""
    are, hold = ("are", "hold") if alone else ("is", "holds")
    if tensor.layout != torch.strided:
        raise InputError(f"{name} must be dense, not {tensor.layout}: pass {name}.to_dense().")
    if tensor.numel() == 0:
        raise InputError(f"{name} must be a batch (B, …) with B ≥ 1; got shape {tuple(tensor.shape)}.")
    if tensor.is_complex():
        raise InputError(
            f"{name} must be floats as the model was trained on, or whole numbers; got {tensor.dtype}."
        )
    parameters = [p for p in model.parameters() if p.is_floating_point()]
    for attribute, remedy in (("device", "to('{}')"), ("dtype", "to({})")):
        if tensor.dim() == 0 or (attribute == "dtype" and not tensor.is_floating_point()):
            continue  # a number goes with tensors of any device and type of floats
        mine, theirs = getattr(tensor, attribute), {getattr(p, attribute) for p in parameters}
        if theirs and mine not in theirs:
            other = next(iter(theirs))
            raise InputError(
                f"{name} {are} {mine} but the model's parameters are {other}: pass {name}.{remedy.format(other)}."
            )
    if tensor.is_meta:
        raise InputError(f"{name} {are} meta tensors, which have no values: pass real ones.")
    if not tensor.is_floating_point():
        return True
    finite = bool(torch.isfinite(tensor).all())
    if not finite and (alone or not bool((tensor < float("inf")).all())):  # which is False for NaN too
        raise InputError(f"{name} {hold} NaN or infinite values.")
    return finite


def check_images(model: nn.Module, images: object) -> Tensor:
    """Check the input of what works on the floats of a single tensor.

    Args:
        model: The model.
        images: The tensor.

    Returns:
        ``images``.

    Raises:
        InputError: If it is no tensor of floats, or the model cannot take it.
    """
    if not isinstance(images, Tensor):
        raise InputError(
            f"images must be a tensor (B, C, H, W), not {described(images)}.{_how_to_make_a_tensor(images)}"
        )
    if not images.is_floating_point():
        raise InputError(f"images must be floats as the model was trained on; got {images.dtype}.")
    check_inputs(model, images, "images")
    return images


def wrong_input_error(model: nn.Module, inputs: Inputs, error: Exception) -> InputError | None:
    """Explain an error that the model raised, if its inputs are of a kind that it cannot take.

    Args:
        model: The model.
        inputs: The inputs.
        error: The error.

    Returns:
        The error to raise in its place; None if it is the model's own.
    """
    if isinstance(error, TypeError) and (missing := _unfit(model, inputs)):
        return InputError(
            f"the model does not take these inputs ({missing}): pass a tensor, its only argument, a tuple of its "
            "positional arguments or a mapping of its keyword arguments."
        )
    if not isinstance(error, RuntimeError | ValueError | IndexError) or isinstance(error, torch.OutOfMemoryError):
        return None
    no_floats = not any(tensor.is_floating_point() for tensor in inputs.tensors)
    if no_floats and re.search(r"\btype|dtype|not implemented for", str(error)):
        return InputError(
            "inputs must be floats for a model that does not look whole numbers up, as it does token ids; got "
            f"{inputs.shapes}, on which the model raised: {error}. Images are passed as floats, scaled as the "
            "model was trained on: (images / 255 - mean) / std."
        )
    if re.search(r"\bdim|shape|size|\b\dD\b", str(error), re.IGNORECASE):
        return InputError(
            f"inputs must be a batch (B, …) that the model takes; got {inputs.shapes}, on which the model "
            f"raised: {error}.{_remedy_for_shapes(inputs)}"
        )
    return None


def _remedy_for_shapes(inputs: Inputs) -> str:
    """Remedy for a shape that a model does not take, where one is known; begins with a blank."""
    shape = tuple(inputs.tensors[0].shape)
    if len(shape) == 4 and shape[3] in (1, 3) and shape[1] not in (1, 3):
        return " Images are (B, C, H, W): inputs.permute(0, 3, 1, 2) puts channels that are last in their place."
    return " A single input is a batch of one: inputs[None]." if len(shape) < 4 else ""


def _how_to_make_a_tensor(given: object) -> str:
    """Remedy for inputs that are no tensor, where one is known; begins with a blank."""
    if isinstance(given, np.ndarray):
        return " torch.from_numpy makes a tensor of an array."
    if isinstance(given, list) and given and all(isinstance(one, Tensor) for one in given):
        return " torch.stack makes a batch of a list of tensors."
    if isinstance(given, Iterable) and not isinstance(given, str | bytes) and hasattr(given, "dataset"):
        return " Pass its batches one by one; cpath.score_dataset scores all that a loader has."
    return ""


def _unfit(model: nn.Module, inputs: Inputs) -> str | None:
    """Tell why the signature of the model's forward pass does not take the arguments; None if it does."""
    try:
        inputs.call(inspect.signature(model.forward).bind)
    except (TypeError, ValueError) as error:
        return str(error)
    return None
