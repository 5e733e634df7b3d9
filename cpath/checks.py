"""Checks that all parts share: settings by their annotations, whole numbers, copies of models, memory."""

from __future__ import annotations

import contextlib
import copy
import math
import operator
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from types import UnionType
from typing import Any, Self, SupportsIndex, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from cpath.display import Shown
from cpath.errors import InputError, MissingImageError, OutOfMemoryError, described

_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", type(None): "None"}


class Checked(Shown):
    """Base class that refuses a setting of another type than its annotation, if the annotation is a plain type.

    Without it 1.5 rounds, or a seed of True, would fail later and elsewhere, or not at all.

    Raises:
        InputError: If a setting has another type.
    """

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        """Check the settings that are given by name."""
        try:
            hints = get_type_hints(cls)
        except Exception:  # annotations of a user's class that only a type checker can resolve
            hints = {}
        for name, value in settings.items():
            kinds = _alternatives(hints.get(name))
            plain = all(isinstance(kind, type) and kind in _WORDS for kind in kinds)
            if plain and not any(_is(value, kind) for kind in kinds):
                wanted = " or ".join(_WORDS[kind] for kind in kinds)
                raise InputError(f"{cls.__name__}: {name} must be {wanted}, not {described(value)}.")
        return super().__new__(cls)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """List the members of a union; any other annotation, such as ``tuple[int, int]``, is its only member."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is(value: Any, kind: Any) -> bool:
    if kind not in (int, float):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
        return False
    size: Any = abs(value)
    return bool(size < (2**63 if isinstance(value, Integral) else math.inf))  # what torch takes for a number


def check_name(name: Any) -> str:
    """Check a name, which must also be able to name a file.

    Args:
        name: The name.

    Returns:
        ``name``.

    Raises:
        InputError: If it is not made of letters, digits, ``_``, ``-`` and ``.``.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"a name consists of letters, digits, '_', '-' and '.', not {described(name)}.")
    return name


def check_count(name: str, value: Any) -> int:
    """Check a number of things.

    Args:
        name: Name of the argument, for the message.
        value: Its value.

    Returns:
        ``value`` as an int.

    Raises:
        InputError: If it is not a whole number of at least 1.
    """
    return check_at_least(1, name, value)


def check_seed(seed: Any) -> int:
    """Check a seed.

    Args:
        seed: The seed.

    Returns:
        ``seed`` as an int.

    Raises:
        InputError: If it is not a whole number of at least 0.
    """
    return check_at_least(0, "seed", seed)


def check_at_least(least: int, name: str, value: Any) -> int:
    """Check a whole number.

    Args:
        least: Its smallest value.
        name: Name of the argument, for the message.
        value: Its value.

    Returns:
        ``value`` as an int.

    Raises:
        InputError: If it is not a whole number of at least ``least``.
    """
    if not _is(value, int) or value < least:
        raise InputError(f"{name} must be at least {least}, a whole number, not {described(value)}.")
    return int(value)


def check_number(name: str, value: Any) -> float:
    """Check a number.

    Args:
        name: Name of the argument, for the message.
        value: Its value.

    Returns:
        ``value`` as a float.

    Raises:
        InputError: If it is not a finite number.
    """
    if not _is(value, float):
        raise InputError(f"{name} must be a finite number, not {described(value)}.")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """Check a flag.

    Args:
        name: Name of the argument, for the message.
        value: Its value.

    Returns:
        ``value``.

    Raises:
        InputError: If it is neither True nor False.
    """
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {described(value)}.")
    return value


SomeImages = slice | SupportsIndex | Tensor
"""Selection of images: a slice, a tensor of numbers or booleans, or the number of one."""


def check_image(images: SomeImages, count: int, owner: str) -> slice | Tensor:
    """Check a selection of images.

    Args:
        images: The selection.
        count: Number of images to select from.
        owner: Beginning of the sentence "… to ``count``" in the message, such as "scores belong".

    Returns:
        The selection, as a slice for a single number.

    Raises:
        MissingImageError: If there is no image of this number.
        InputError: If ``images`` is no selection.
    """
    if isinstance(images, slice) or (isinstance(images, Tensor) and images.dim()):
        return images
    try:
        number = operator.index(images)  # NumPy's whole numbers too
    except TypeError:
        raise InputError(f"name images by a number, a slice or a tensor, not {described(images)}.") from None
    if not -count <= number < count:
        raise MissingImageError(f"there is no image {number}: the {owner} to {count}.")
    return slice(number, number + 1 or None)


def copied(model: nn.Module, purpose: str) -> nn.Module:
    """Copy a model.

    Args:
        model: The model.
        purpose: The work that needs a copy, for the message.

    Returns:
        A deep copy.

    Raises:
        InputError: If the model cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # the model's own modules can raise anything
        raise InputError(f"the model cannot be copied (copy.deepcopy), which {purpose} needs: {error}") from error


# Frames of these files stand between the user's line and a warning: this library, torch (a decorator, a module that
# calls another) and contextlib (the end of a ``with`` block).
_BETWEEN = (
    *(os.path.join(os.path.dirname(found), "") for found in (__file__, torch.__file__)),
    contextlib.__file__,
)


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn about the line of the user's code that called the library.

    Args:
        message: The warning.
        category: Its class, for a text.
    """
    files = [sys._getframe(1).f_code.co_filename]
    frame = sys._getframe(1).f_back
    while frame is not None:
        files.append(frame.f_code.co_filename)
        frame = frame.f_back
    # From the outermost call of the library on: Captum may stand between it and this one.
    level = max((number for number, file in enumerate(files) if file.startswith(_BETWEEN[0])), default=0)
    while level + 1 < len(files) and files[level].startswith(_BETWEEN):
        level += 1
    warnings.warn(message, category, stacklevel=level + 2)


def _ignored(beginning: str) -> tuple[str, re.Pattern[str], type[Warning], None, int]:
    return ("ignore", re.compile(beginning), UserWarning, None, 0)


# Of torch, on operations that it runs lane by lane: nothing that a user could do anything about.
_SLOW_LANES = _ignored("There is a performance drop because we have not yet")
# Of torch, where a module that is compiled meets a hook that is on all modules.
_HOOKS = _ignored("Using `torch.compile.module.` when there are global hooks")


@contextmanager
def _without(ignored: tuple[str, re.Pattern[str], type[Warning], None, int]) -> Iterator[None]:
    """Hide a remark of torch; all other warnings are shown as usual.

    `warnings.catch_warnings` would have Python forget which warnings it has shown: those of the model itself, meant
    to be seen once, would come in every pass. And other threads would lose what they filter meanwhile.
    """
    warnings.filters.insert(0, ignored)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with suppress(ValueError):  # taken out by who reset the filters meanwhile
            warnings.filters.remove(ignored)  # type: ignore[attr-defined]


@contextmanager
def without_vmap_warnings() -> Iterator[None]:
    """Hide torch's remarks on the speed of `torch.vmap`.

    Returns:
        A context manager.
    """
    with _without(_SLOW_LANES):
        yield


@contextmanager
def without_warning_of_hooks() -> Iterator[None]:
    """Hide torch's remark that a hook on all modules is called twice for a compiled one.

    Returns:
        A context manager.
    """
    with _without(_HOOKS):
        yield


@contextmanager
def within_memory(remedy: str) -> Iterator[None]:
    """Turn the errors of a device without free memory into `OutOfMemoryError`, inside a ``with`` block.

    Args:
        remedy: Advice that ends the message.

    Returns:
        A context manager.

    Raises:
        OutOfMemoryError: If the device has no memory left.
    """
    try:
        yield
    except OutOfMemoryError:  # it says already what to do
        raise
    except (MemoryError, RuntimeError) as error:
        told = "can't allocate memory" in str(error)  # for a CPU, torch raises a plain RuntimeError
        if not told and not isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        raise OutOfMemoryError(f"out of memory: {remedy}.") from error
