"""Checks that all parts share: settings by their annotations, whole numbers, copies of models, memory."""

from __future__ import annotations

import copy
import math
import operator
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from numbers import Integral, Real
from types import UnionType
from typing import Any, Self, SupportsIndex, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from cpath.errors import InputError, MissingImageError, OutOfMemoryError

_WORDS = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", type(None): "None"}


class Checked:
    """Refuses, when it is made, a setting of another type than its annotation, where that is a plain one.

    Raises `InputError`: 1.5 rounds, or a seed of True, would otherwise fail far from here, or not at all.
    """

    def __new__(cls, *_: Any, **settings: Any) -> Self:
        """Checks what is given by name."""
        try:
            hints = get_type_hints(cls)
        except Exception:  # a user's class with annotations that mean something to a type checker only
            hints = {}
        for name, value in settings.items():
            kinds = _alternatives(hints.get(name))
            plain = all(isinstance(kind, type) and kind in _WORDS for kind in kinds)
            if plain and not any(_is(value, kind) for kind in kinds):
                wanted = " or ".join(_WORDS[kind] for kind in kinds)
                raise InputError(f"{cls.__name__}: {name} must be {wanted}, not {value!r}.")
        return super().__new__(cls)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union; anything else alone: of ``tuple[int, int]``, int is no alternative."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is(value: Any, kind: Any) -> bool:
    if kind not in (int, float):
        return isinstance(value, kind)
    if isinstance(value, bool) or not isinstance(value, Integral if kind is int else Real):
        return False
    size: Any = abs(value)
    return bool(size < (2**63 if isinstance(value, Integral) else math.inf))  # what torch takes for a number


def check_name(name: Any) -> str:
    """``name``, if it can also name a file; raises `InputError` otherwise."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"a name consists of letters, digits, '_', '-' and '.', not {name!r}.")
    return name


def check_count(name: str, value: Any) -> int:
    """``value`` as a whole number of at least 1; raises `InputError` for anything else."""
    return check_at_least(1, name, value)


def check_seed(seed: Any) -> int:
    """``seed`` as a whole number of at least 0; raises `InputError` for anything else."""
    return check_at_least(0, "seed", seed)


def check_at_least(least: int, name: str, value: Any) -> int:
    """``value`` as a whole number of at least ``least``; raises `InputError` for anything else."""
    if not _is(value, int) or value < least:
        raise InputError(f"{name} must be at least {least}, a whole number, not {value!r}.")
    return int(value)


def check_number(name: str, value: Any) -> float:
    """``value`` as a finite number; raises `InputError` for anything else."""
    if not _is(value, float):
        raise InputError(f"{name} must be a finite number, not {value!r}.")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """``value``, if it is True or False; raises `InputError` for anything else."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {value!r}.")
    return value


SomeImages = slice | SupportsIndex | Tensor
"""Which of several images: a slice, a tensor of numbers or booleans; or the number of one."""


def check_image(images: SomeImages, count: int, owner: str) -> slice | Tensor:
    """Some of ``count`` images, or a slice of one of them.

    Raises `MissingImageError` for one that is not there, `InputError` for what names none.
    """
    if isinstance(images, slice) or (isinstance(images, Tensor) and images.dim()):
        return images
    try:
        number = operator.index(images)  # NumPy's whole numbers too
    except TypeError:
        raise InputError(f"name images by a number, a slice or a tensor, not {images!r}.") from None
    if not -count <= number < count:
        raise MissingImageError(f"there is no image {number}: the {owner} to {count}.")
    return slice(number, number + 1 or None)


def copied(model: nn.Module, purpose: str) -> nn.Module:
    """A deep copy of ``model``; raises `InputError` where there can be none, which says what needs it."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the model's own modules raise
        raise InputError(f"the model cannot be copied (copy.deepcopy), which {purpose} needs: {error}") from error


# Of torch, on operations that it runs lane by lane: nothing that a user could do anything about.
_SLOW_LANES = ("ignore", re.compile("There is a performance drop because we have not yet"), UserWarning, None, 0)


@contextmanager
def without_vmap_warnings() -> Iterator[None]:
    """Keeps torch's remarks on the speed of `torch.vmap` from users; all other warnings come as ever.

    `warnings.catch_warnings` would have Python forget which warnings it has shown: those of the model itself, meant
    to be seen once, would come in every pass. And other threads would lose what they filter meanwhile.
    """
    warnings.filters.insert(0, _SLOW_LANES)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with suppress(ValueError):  # taken out by who reset the filters meanwhile
            warnings.filters.remove(_SLOW_LANES)  # type: ignore[attr-defined]


@contextmanager
def within_memory(remedy: str) -> Iterator[None]:
    """Raises `OutOfMemoryError` with the ``remedy`` where a device has no memory left."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        told = "can't allocate memory" in str(error)  # of a CPU, torch says it in a plain RuntimeError
        if not told and not isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            raise
        raise OutOfMemoryError(f"out of memory: {remedy}.") from error
