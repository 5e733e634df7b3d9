"""Base class of attributions, and the registry of their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar

from cpath.attribution.response import Maps, ResponseProbe
from cpath.checks import Checked
from cpath.methods.base import REGISTRY as METHODS
from cpath.registry import Registry


class Attribution(Checked, ABC):
    """Attribution: a pure function of a `ResponseProbe`, with its settings as keyword arguments.

    A subclass is a frozen dataclass with keyword-only fields, registered under a name.

    Example:
        >>> from dataclasses import dataclass
        >>> @cpath.attribution.register("gradient_norm")
        ... @dataclass(frozen=True, kw_only=True)
        ... class GradientNorm(cpath.attribution.Attribution):
        ...     def maps(self, probe):
        ...         return cpath.attribution.Gradients().maps(probe).norm(dim=1, keepdim=True)
        >>> cpath.attribute(model, images, "gradient_norm").shape
        torch.Size([2, 1, 8, 8])
    """

    registered_name: ClassVar[str] = "unregistered"

    @property
    def name(self) -> str:
        """Name of the attribution in results."""
        return self.registered_name

    @property
    def rows(self) -> int:
        """Number of forward rows that one input takes, for `attribute` to keep to its ``max_batch``."""
        return 1

    @abstractmethod
    def maps(self, probe: ResponseProbe) -> Maps:
        """Compute the map of each input of a batch.

        The map of an input must not depend on the rest of the batch. Randomness comes from
        `cpath.methods.image_generators`, so that a batch gives what its inputs give one by one.

        Args:
            probe: The inputs in front of the model.

        Returns:
            Map of the only tensor in ``probe.sources``, or a tuple with the map of each, of the tensors' shapes; or
            a map of ``probe.images`` with one number per pixel, (B, 1, H, W).
        """


A = TypeVar("A", bound=type[Attribution])

REGISTRY: Registry[Attribution] = Registry(
    "attribution", Attribution, "cpath.attribution.Attribution", name_as="registered_name"
)
METHODS.point_to(REGISTRY, "it is an attribution, whose maps cpath.attribute(model, inputs, '{name}') gives")


def register(name: str) -> Callable[[A], A]:
    """Register an attribution class under a name, for the API, the configuration and the tests.

    Args:
        name: The name: letters, digits, ``_``, ``-`` and ``.``.

    Returns:
        A class decorator.

    Raises:
        InputError: If the name is taken or no name, or the class is not an `Attribution`.

    Example:
        >>> @cpath.attribution.register("negative_sobel")
        ... class NegativeSobel(cpath.attribution.Sobel):
        ...     def maps(self, probe):
        ...         return -super().maps(probe)
        >>> "negative_sobel" in cpath.attribution.names()
        True
    """
    return REGISTRY.register(name)
