"""What an extraction method is, and the registry of names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from cpath.checks import Checked
from cpath.errors import InputError
from cpath.probe import Probe
from cpath.registry import Registry


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
    """Whether its scores rank the neurons. Where they only tell which to keep, `cpath.find_pathway` and the
    experiments keep these, whatever the sparsity."""

    def at(self, sparsity: float) -> Method:
        """The method for pathways of ``sparsity`` per cent: itself, unless its search has to know the sparsity."""
        return self

    @abstractmethod
    def contributions(self, probe: Probe) -> Contributions | Mapping[str, Tensor]:
        """What each neuron contributes, (B, *site) by site in call order.

        An image's values must not depend on the rest of the batch. Randomness comes from
        `cpath.methods.image_generators`, so that a batch equals its images one by one. Boolean values, of a
        method that only tells which neurons to keep, count as 0 and 1.
        """


M = TypeVar("M", bound=type[Method])

REGISTRY: Registry[Method] = Registry(
    "method",
    Method,
    "cpath.Method",
    name_as="name",
    renamed={
        "neuron_intgrad_published": "neuron_intgrad_released",
        "greedy_published": "greedy_released",
    },
)


def register(name: str) -> Callable[[M], M]:
    """Class decorator: ``name`` then stands for the method in the API, the configuration and the tests."""
    return REGISTRY.register(name)


def names() -> tuple[str, ...]:
    """Names of all registered methods, in the order of registration."""
    return tuple(REGISTRY)


def get(name: str, **settings: Any) -> Method:
    """The method registered under ``name``, made with ``settings``.

    Raises `UnknownNameError` for an unknown name, `InputError` for an unknown setting.
    """
    return REGISTRY.make(name, settings)


def check_contributions(contributions: Tensor, method: str) -> None:
    """Raises `InputError` where ``contributions``, none of them negative, hold NaN: no order would be left."""
    if not contributions.amin() >= 0:
        raise InputError(f"method '{method}' gave NaN contributions: gradients overflow for these images.")
