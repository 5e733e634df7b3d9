"""Base class of extraction methods, and the registry of their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor

from cpath.checks import Checked
from cpath.display import Shown
from cpath.errors import InputError
from cpath.probe import Probe
from cpath.registry import Registry


@dataclass(frozen=True, repr=False)
class Contributions(Shown):
    """Contributions that a method computes with a residual.

    Args:
        values: Contributions (B, *site) by site, in call order, signed if the method knows a sign. They are summed
            over each unit, and the score is the magnitude.
        residual: Relative completeness residual (B,) by site, if the method knows it.

    Example:
        >>> values = cpath.Probe(model, images).record(gradients=False).activations
        >>> cpath.Contributions(values).residual is None
        True
    """

    values: dict[str, Tensor]
    residual: dict[str, Tensor] | None = None


class Method(Checked, ABC):
    """Extraction method: a pure function of a `Probe`, with its settings as keyword arguments.

    A subclass is a frozen dataclass with keyword-only fields, registered under a name.

    Attributes:
        name: Name of the method, given by `register`.
        costly: True if the experiments should store its scores instead of computing them again.
        graded: True if its scores rank the neurons. If they only tell which neurons to keep, `cpath.find_pathway`
            and the experiments keep these at every sparsity.
        signed: True if the sign of a contribution means something: that the unit speaks for the response or against
            it. `cpath.Scores.signed` gives it.
        needs_classes: True if it reads the probabilities of classes, which a target that is a function of the
            output does not have.
        neurons_only: True if it knows no other units than neurons, and no other baseline than zero.

    Example:
        >>> from dataclasses import dataclass
        >>> @cpath.register("activation_power")
        ... @dataclass(frozen=True, kw_only=True)
        ... class ActivationPower(cpath.Method):
        ...     power: float = 1.0
        ...
        ...     def contributions(self, probe):
        ...         record = probe.record(gradients=False)
        ...         return {name: z**self.power for name, z in record.activations.items()}
        >>> cpath.find_pathway(model, images, ActivationPower(power=2.0), sparsity=90).method
        'activation_power'
    """

    name: ClassVar[str] = "unregistered"
    costly: ClassVar[bool] = True
    graded: ClassVar[bool] = True
    signed: ClassVar[bool] = True
    needs_classes: ClassVar[bool] = False
    neurons_only: ClassVar[bool] = False

    def at(self, sparsity: float) -> Method:
        """Adapt the method to a sparsity.

        Args:
            sparsity: Per cent of the neurons to prune.

        Returns:
            The method itself, unless its search has to know the sparsity.
        """
        return self

    @abstractmethod
    def contributions(self, probe: Probe) -> Contributions | Mapping[str, Tensor]:
        """Compute the contribution of each neuron.

        The values of an image must not depend on the rest of the batch. Randomness comes from
        `cpath.methods.image_generators`, so that a batch gives what its images give one by one.

        Args:
            probe: The inputs in front of the model.

        Returns:
            Contributions (B, *site) by site, in call order, which are summed over each unit (see `cpath.Units`), or
            (B, *units) of units already. Boolean values, of a method that only tells which
            neurons to keep, count as 0 and 1.
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
    """Register an extraction method under a name, for the API, the configuration and the tests.

    Args:
        name: The name: letters, digits, ``_``, ``-`` and ``.``.

    Returns:
        A class decorator.

    Raises:
        InputError: If the name is taken, reserved or no name, or the class is not a `Method`.

    Example:
        >>> @cpath.register("activation")
        ... class Activation(cpath.Method):
        ...     def contributions(self, probe):
        ...         return probe.record(gradients=False).activations
        >>> cpath.score(model, images, "activation")
        Scores(method='activation', images=2, sites=2, neurons=352)
    """
    return REGISTRY.register(name)


def names() -> tuple[str, ...]:
    """List the names of all registered methods, in the order of registration.

    Returns:
        The names.

    Example:
        >>> cpath.methods.names()[:3]
        ('neuron_mct', 'neuron_intgrad', 'greedy')
    """
    return tuple(REGISTRY)


def get(name: str, **settings: Any) -> Method:
    """Make the method of a name.

    Args:
        name: Name of the method.
        settings: Its settings.

    Returns:
        The method.

    Raises:
        UnknownNameError: If no method has this name.
        InputError: If a setting is unknown or unusable.

    Example:
        >>> cpath.methods.get("neuron_intgrad", nodes=5)
        NeuronIntGrad(nodes=5, rule='endpoint', residual=True, tolerance=None, max_nodes=122)
    """
    return REGISTRY.make(name, settings)


def check_contributions(contributions: Tensor, method: str) -> None:
    """Check that contributions can be ordered.

    Args:
        contributions: Magnitudes.
        method: Name of the method, for the message.

    Raises:
        InputError: If there is a NaN among them.
    """
    if not contributions.amin() >= 0:
        raise InputError(f"method '{method}' gave NaN contributions: gradients overflow for these images.")
