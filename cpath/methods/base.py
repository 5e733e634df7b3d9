"""What an extraction method is, and the registry of names."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from cpath.checks import Checked, check_name
from cpath.errors import InputError, unknown_name
from cpath.probe import Probe


@dataclass(frozen=True)
class Contributions:
    """What a method found."""

    values: dict[str, Tensor]
    """(B, *site) by site, in call order. Signed where the method knows a sign; the score is the magnitude."""
    residual: dict[str, Tensor] | None = None
    """(B,) by site: relative completeness residual, where the method knows it."""


class Method(Checked, ABC):
    """An extraction method: a pure function of a `Probe`, with its settings as keyword arguments.

    A subclass is a frozen dataclass with keyword-only fields, registered under a name:

    >>> @cpath.register("activation")
    ... @dataclass(frozen=True, kw_only=True)
    ... class Activation(cpath.Method):
    ...     def contributions(self, probe):
    ...         return probe.record(gradients=False).activations
    """

    name: ClassVar[str] = "unregistered"
    costly: ClassVar[bool] = True
    """Whether the experiments should keep its scores rather than compute them again."""
    graded: ClassVar[bool] = True
    """Whether its scores rank the neurons. The experiments show one that only tells which to keep at sparsity 0."""

    def at(self, sparsity: float) -> Method:
        """The method for pathways of ``sparsity`` per cent: itself, unless its search has to know the sparsity."""
        return self

    @abstractmethod
    def contributions(self, probe: Probe) -> Contributions | Mapping[str, Tensor]:
        """What each neuron contributes, (B, *site) by site in call order.

        An image's values must not depend on the rest of the batch. Randomness comes from
        `image_generators`, so that a batch equals its images one by one. Boolean values, of a method that only
        tells which neurons to keep, count as 0 and 1.
        """


M = TypeVar("M", bound=type[Method])

_REGISTRY: dict[str, type[Method]] = {}


def register(name: str) -> Callable[[M], M]:
    """Class decorator: ``name`` then stands for the method in the API, the configuration and the tests."""
    check_name(name)

    def add(cls: M) -> M:
        if not issubclass(cls, Method):
            raise InputError(f"{cls.__qualname__} must be a subclass of cpath.Method to be registered as '{name}'.")
        known = _REGISTRY.get(name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise InputError(f"the method name '{name}' is taken by {known.__module__}.{known.__qualname__}.")
        cls.name = name
        _REGISTRY[name] = cls
        return cls

    return add


def names() -> tuple[str, ...]:
    """Names of all registered methods, in the order of registration."""
    return tuple(_REGISTRY)


def get(name: str, **settings: Any) -> Method:
    """The method registered under ``name``, made with ``settings``.

    Raises `UnknownNameError` for an unknown name, `InputError` for an unknown setting.
    """
    if not isinstance(name, str) or name not in _REGISTRY:
        raise unknown_name("method", name, _REGISTRY)
    try:
        return _REGISTRY[name](**settings)
    except TypeError as error:
        raise InputError(f"method '{name}': {error}") from error


def check_contributions(contributions: Tensor, method: str) -> None:
    """Raises `InputError` where ``contributions``, none of them negative, hold NaN: no order would be left."""
    if not contributions.amin() >= 0:
        raise InputError(f"method '{method}' gave NaN contributions: gradients overflow for these images.")


def image_generators(images: Tensor, seed: int, stream: str) -> list[torch.Generator]:
    """One CPU random generator per image, seeded by ``seed``, the name ``stream`` and the image's own bytes.

    The same image draws the same numbers in any batch, in any order, on any device. ``stream`` says what the
    numbers are for: two methods with one seed must not draw the same ones.
    """
    start = (seed * 0x9E3779B1 + zlib.crc32(stream.encode())) * 0x9E3779B1
    generators = []
    for image in images.detach().resolve_neg().cpu().contiguous():
        digest = zlib.crc32(image.view(torch.uint8).numpy().tobytes())
        generators.append(torch.Generator().manual_seed((start + digest) % 2**63))
    return generators
