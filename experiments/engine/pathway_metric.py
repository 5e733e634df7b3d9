"""Metrics of pathways that a user adds to the path analysis."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

import cpath
from cpath.checks import check_name
from cpath.errors import InputError
from cpath.inputs import Inputs
from cpath.response import class_logits
from experiments.engine.metric_entry import Metric


@dataclass(frozen=True, eq=False)
class Measured:
    """A batch of images with the network and the pathways of one method at one sparsity, to be measured."""

    model: nn.Module
    """The unrestricted network, in eval mode."""
    inputs: Inputs
    """The batch, on the device of the model."""
    activations: Mapping[str, Tensor]
    """Output of every site in the unrestricted network, (B, *site)."""
    output: Any
    """Output of the unrestricted network, as the model returns it."""
    pathway: cpath.Pathway
    """One mask for each input, of one method at one sparsity."""

    @property
    def images(self) -> Tensor:
        """Images (B, C, H, W), normalised; of other inputs, their first tensor."""
        return self.inputs.first

    @property
    def logits(self) -> Tensor:
        """Logits (B, classes) of the unrestricted network."""
        return class_logits(self.output, len(self.inputs))


class PathwayMetric(ABC):
    """A number for each pathway, reported by ``experiment=path_analysis`` beside its own.

    Example:
        >>> from experiments.engine.metric_entry import Metric
        >>> from experiments.engine.pathway_metric import PathwayMetric
        >>> class LastShare(PathwayMetric):
        ...     metric = Metric(name="last_share", label="share of the last site", unit="%", range=(0, 100),
        ...                     better=None, meaning="Per cent of the pathway that lies at the last site.")
        ...     def measure(self, measured):
        ...         kept = [mask.flatten(1).sum(1) for mask in measured.pathway.masks.values()]
        ...         return 100 * kept[-1] / sum(kept)
        >>> LastShare.metric.axis
        'share of the last site (%)'
    """

    metric: ClassVar[Metric]
    """Entry of the number; its ``name`` is the name in tables."""

    @abstractmethod
    def measure(self, measured: Measured) -> Tensor:
        """Measure the pathways of a batch.

        Args:
            measured: images, network and pathways.

        Returns:
            (B,) a number for each image; NaN where it has no value.
        """


P = TypeVar("P", bound=type[PathwayMetric])

REGISTERED: dict[str, type[PathwayMetric]] = {}
"""Metrics of users' modules by name."""


def register(name: str) -> Callable[[P], P]:
    """Register a metric under a name, which ``metric=NAME`` then finds.

    Args:
        name: letters, digits, ``_``, ``-`` and ``.``.

    Returns:
        A class decorator.

    Raises:
        InputError: if the name is unusable, or the class is no `PathwayMetric` with an entry ``metric``.

    Example:
        >>> from experiments.engine.metric_entry import Metric
        >>> from experiments.engine.pathway_metric import PathwayMetric, register
        >>> @register("kept_count")
        ... class KeptCount(PathwayMetric):
        ...     metric = Metric(name="kept_count", label="neurons kept", unit="", range=(0, float("inf")),
        ...                     better=None, meaning="Number of neurons that the pathway keeps.")
        ...     def measure(self, measured):
        ...         return sum(mask.flatten(1).sum(1) for mask in measured.pathway.masks.values())
    """
    check_name(name)

    def add(cls: P) -> P:
        if not (isinstance(cls, type) and issubclass(cls, PathwayMetric)):
            raise InputError(f"{cls!r} must be a subclass of PathwayMetric to be registered as '{name}'.")
        check_entry(cls)
        REGISTERED[name] = cls
        return cls

    return add


def values_of(metric: PathwayMetric, measured: Measured) -> Tensor:
    """Measure the pathways of a batch, and check the result.

    Args:
        metric: the metric.
        measured: images, network and pathways.

    Returns:
        (B,) a number for each image.

    Raises:
        InputError: if the metric gives anything else.
    """
    values = metric.measure(measured)
    count = len(measured.inputs)
    if not isinstance(values, Tensor) or values.shape != (count,):
        got = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"metric '{metric.metric.name}' must give a tensor ({count},), a number an image; got {got}."
        )
    return values


def check_entry(cls: type[PathwayMetric]) -> None:
    """Refuse a metric without an entry that names it.

    Args:
        cls: class of the metric.

    Raises:
        InputError: if its attribute ``metric`` is no `Metric`, or has a name that tables would read otherwise.
    """
    metric = getattr(cls, "metric", None)
    if not isinstance(metric, Metric):
        raise InputError(f"{cls.__qualname__}.metric must be a Metric that gives name, unit, range and meaning.")
    try:
        check_name(metric.name)  # behind a "/" there would be the qualifier of another metric
    except InputError as error:
        raise InputError(f"{cls.__qualname__}.metric: {error}") from None
