"""Objectives, which say what an image shows, and the pathway that they are maximised in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from cpath.errors import InputError, described
from cpath.pathway import Pathway, check_pathway

Layer = Callable[[str], Tensor]
"""Function from the name of a site to its output (1, *site). ``labels`` are the logits, ``input`` is the image."""

Objective = Callable[[Layer], Tensor]
"""Loss that is minimised for one image, as in Lucent: any of ``lucent.optvis.objectives`` on names of sites."""


@dataclass(frozen=True)
class Logit:
    """Objective: the logit of a class.

    Args:
        target: The class.

    Example:
        >>> logit = cpath.decoding.Logit(3)
        >>> len(cpath.decode(model, None, logit, shape=(3, 8, 8), steps=4))
        1
    """

    target: int

    def __call__(self, layer: Layer) -> Tensor:
        """Compute the loss, for Lucent to minimise.

        Args:
            layer: Function from the name of a site to its output.

        Returns:
            Minus the objective, a scalar.
        """
        return -_part(layer("labels"), (self.target,), "the model").mean()


@dataclass(frozen=True)
class Channel:
    """Objective: the mean of one channel of a site's output; of a fully connected site, one neuron.

    Args:
        site: Name of the site.
        channel: Number of the channel.

    Example:
        >>> channel = cpath.decoding.Channel("relu2", 3)
        >>> len(cpath.decode(model, None, channel, shape=(3, 8, 8), steps=4))
        1
    """

    site: str
    channel: int

    def __call__(self, layer: Layer) -> Tensor:
        """Compute the loss, for Lucent to minimise.

        Args:
            layer: Function from the name of a site to its output.

        Returns:
            Minus the objective, a scalar.
        """
        return -_part(layer(self.site), (self.channel,), f"site '{self.site}'").mean()


@dataclass(frozen=True)
class Neuron:
    """Objective: one neuron of a site.

    Args:
        site: Name of the site.
        index: Position in the site's output, such as (channel, row, column).

    Example:
        >>> neuron = cpath.decoding.Neuron("relu2", (3, 1, 1))
        >>> len(cpath.decode(model, None, neuron, shape=(3, 8, 8), steps=4))
        1
    """

    site: str
    index: tuple[int, ...]

    def __call__(self, layer: Layer) -> Tensor:
        """Compute the loss, for Lucent to minimise.

        Args:
            layer: Function from the name of a site to its output.

        Returns:
            Minus the objective, a scalar.
        """
        return -_part(layer(self.site), self.index, f"site '{self.site}'").mean()


def _part(values: Tensor, index: tuple[int, ...], where: str) -> Tensor:
    shape = tuple(values.shape[1:])
    inside = [0 <= place < size for place, size in zip(index, shape, strict=False)]
    if len(index) > len(shape) or not all(inside):
        raise InputError(f"the objective asks for {index} of {where}, which gives {shape} per image.")
    for place in index:
        values = values[:, place]
    return values


@dataclass(frozen=True)
class Task:
    """One image to make.

    Attributes:
        pathway: Pathway of one image; None for the unrestricted network.
        objective: Loss to minimise.
    """

    pathway: Pathway | None
    objective: Objective


def tasks_of(
    pathways: Pathway | Sequence[Pathway | None] | None, objectives: Objective | Sequence[Objective] | None
) -> list[Task]:
    """Make one task for each image of every pathway.

    Args:
        pathways: As for `decode`.
        objectives: As for `decode`.

    Returns:
        The tasks.

    Raises:
        InputError: If there is nothing to decode, or the number of objectives is wrong.
    """
    given = [pathways] if pathways is None or isinstance(pathways, Pathway) else pathways
    if not isinstance(given, Iterable) or isinstance(given, str | Tensor | nn.Module):
        raise InputError(f"pathways must be a cpath.Pathway, or several in a list, not {described(given)}.")
    single: list[Pathway | None] = []
    for pathway in given:
        single += (
            [None] if pathway is None else [check_pathway(pathway)[row : row + 1] for row in range(len(pathway))]
        )
    if not single:
        raise InputError("nothing to decode: pass a pathway, or None for the unrestricted network.")
    if objectives is None:
        return [Task(pathway, _default_objective(pathway)) for pathway in single]
    several = [objectives] * len(single) if callable(objectives) else list(objectives)
    if len(several) != len(single):
        raise InputError(f"{len(several)} objectives for {len(single)} images: pass one, or one for each.")
    return [Task(*task) for task in zip(single, several, strict=True)]


def _default_objective(pathway: Pathway | None) -> Objective:
    if pathway is None or pathway.target is None:
        raise InputError("no pathway says which class to maximise: pass objectives, such as Logit(281).")
    return Logit(int(pathway.target[0]))
