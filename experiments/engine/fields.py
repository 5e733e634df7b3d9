"""Types of settings that several experiments share; each states in its type what its values may be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from cpath.threshold import check_sparsity

T = TypeVar("T")
V = TypeVar("V", list[Any], tuple[Any, ...])


class _NotKeyed:
    """Marks a setting that changes no result but rounding, and so is no part of a cache key."""


NOT_KEYED = _NotKeyed()


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("must be finite")
    return value


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


def distinct(values: V) -> V:
    """Refuse a list with repeated values.

    Args:
        values: the list.

    Returns:
        The same list.

    Raises:
        ValueError: if a value occurs more than once.
    """
    if len(set(values)) != len(values):
        raise ValueError("must be different values")
    return values


def ascending(values: list[float]) -> list[float]:
    """Refuse a list of numbers that do not ascend.

    Args:
        values: the numbers.

    Returns:
        The same list.

    Raises:
        ValueError: if a number is not larger than the one before.
    """
    if values != sorted(set(values)):
        raise ValueError("must ascend")
    return values


def one_of(names: Iterable[str]) -> AfterValidator:
    """Constraint of a text to some names.

    Args:
        names: the texts that are allowed.

    Returns:
        A validator for the annotation of a setting.
    """
    known = list(names)

    def check(value: str) -> str:
        if value not in known:
            raise ValueError(f"must be {' or '.join(map(repr, known))}")
        return value

    return AfterValidator(check)


Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Number = Annotated[float, AfterValidator(_finite)]
Positive = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]

OneOrSeveral = Annotated[list[T], BeforeValidator(_as_list), Field(min_length=1)]
"""A value, or a list of them."""
Distinct = Annotated[OneOrSeveral[T], AfterValidator(distinct)]
"""A value, or a list of different ones."""
Ascending = Annotated[OneOrSeveral[T], AfterValidator(ascending)]
"""A value, or a list from small to large."""

Sparsity = Annotated[Number, AfterValidator(check_sparsity)]
"""Per cent of all units that are pruned."""
Sparsities = Distinct[Sparsity]
"""One sparsity, or several."""
Percent = Annotated[Number, Field(gt=0, lt=100)]
"""Per cent of the pixels."""
Percents = Ascending[Percent]
"""Several shares of the pixels, from small to large."""

Images = Count | None
"""Number of test images, drawn by the seed; None for all."""
Batch = Count
"""Images at a time; a stopped job continues after the last finished batch."""
MaxBatch = Annotated[Count, NOT_KEYED]
"""Most images in one forward pass, counting repetitions: bounds the memory."""
Gigabytes = Annotated[NonNegative, NOT_KEYED]


def keyed(settings: BaseModel) -> dict[str, Any]:
    """Collect the settings that determine a result, for a key of the cache.

    Args:
        settings: an experiment, or any other settings.

    Returns:
        Values by name as plain containers, without those that are marked `NOT_KEYED`.
    """
    found: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        if any(isinstance(mark, _NotKeyed) for mark in field.metadata):
            continue
        value = getattr(settings, name)
        found[name] = keyed(value) if isinstance(value, BaseModel) else _plain(value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return keyed(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    return value
