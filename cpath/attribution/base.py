"""What an attribution is, and the registry of names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar

from torch import Tensor

from cpath.attribution.response import ResponseProbe
from cpath.checks import Checked
from cpath.registry import Registry


class Attribution(Checked, ABC):
    """An attribution: a pure function of a `ResponseProbe`, with its settings as keyword arguments.

    A subclass is a frozen dataclass with keyword-only fields, registered under a name:

    >>> @cpath.attribution.register("gradient_norm")
    ... @dataclass(frozen=True, kw_only=True)
    ... class GradientNorm(cpath.attribution.Attribution):
    ...     def maps(self, probe):
    ...         return cpath.attribution.Gradients().maps(probe).norm(dim=1, keepdim=True)
    """

    registered_name: ClassVar[str] = "unregistered"

    @property
    def name(self) -> str:
        """Name of the attribution in results."""
        return self.registered_name

    @property
    def rows(self) -> int:
        """Forward rows that one image takes, for `attribute` to keep to its ``max_batch``."""
        return 1

    @abstractmethod
    def maps(self, probe: ResponseProbe) -> Tensor:
        """(B, C, H, W) of the images' shape, or (B, 1, H, W) where there is one number a pixel.

        An image's map must not depend on the rest of the batch. Randomness comes from
        `cpath.methods.image_generators`, so that a batch equals its images one by one.
        """


A = TypeVar("A", bound=type[Attribution])

REGISTRY: Registry[Attribution] = Registry(
    "attribution", Attribution, "cpath.attribution.Attribution", name_as="registered_name"
)


def register(name: str) -> Callable[[A], A]:
    """Class decorator: ``name`` then stands for the attribution in the API, the configuration and the tests."""
    return REGISTRY.register(name)
