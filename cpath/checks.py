"""Checks that all parts share: settings by their annotations, whole numbers, copies of models, memory."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, Self, get_args, get_type_hints

import torch
from torch import nn

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
        except NameError:  # a user's class with annotations that exist for a type checker only
            hints = {}
        for name, value in settings.items():
            kinds = get_args(hints.get(name)) or (hints.get(name),)
            if all(kind in _WORDS for kind in kinds) and not any(_is(value, kind) for kind in kinds):
                wanted = " or ".join(_WORDS[kind] for kind in kinds)
                raise InputError(f"{cls.__name__}: {name} must be {wanted}, not {value!r}.")
        return super().__new__(cls)


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
    return _at_least(1, name, value)


def check_seed(seed: Any) -> int:
    """``seed`` as a whole number of at least 0; raises `InputError` for anything else."""
    return _at_least(0, "seed", seed)


def _at_least(least: int, name: str, value: Any) -> int:
    if not _is(value, int) or value < least:
        raise InputError(f"{name} must be at least {least}, a whole number, not {value!r}.")
    return int(value)


def check_image(images: slice | int, count: int, owner: str) -> slice:
    """The slice of some of ``count`` images, or of one; raises `MissingImageError` for one that is not there."""
    if not isinstance(images, int):
        return images
    if not -count <= images < count:
        raise MissingImageError(f"there is no image {images}: the {owner} to {count}.")
    return slice(images, images + 1 or None)


def copied(model: nn.Module, purpose: str) -> nn.Module:
    """A deep copy of ``model``; raises `InputError` where there can be none, which says what needs it."""
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the model's own modules raise
        raise InputError(f"the model cannot be copied (copy.deepcopy), which {purpose} needs: {error}") from error


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
