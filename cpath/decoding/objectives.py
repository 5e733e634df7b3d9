"""What an image is made for: objectives, and the pathway that they are maximised in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from cpath.errors import InputError
from cpath.pathway import Pathway

Layer = Callable[[str], Tensor]
"""Gives the output of a site by name, (1, *site); also ``labels``, the logits, and ``input``, the image."""

Objective = Callable[[Layer], Tensor]
"""What is minimised for one image, as Lucent has it: any of ``lucent.optvis.objectives`` on names of sites."""


@dataclass(frozen=True)
class Logit:
    """Objective: the logit of class ``target``."""

    target: int

    def __call__(self, layer: Layer) -> Tensor:
        """The loss, for Lucent to minimise."""
        return -_part(layer("labels"), (self.target,), "the model").mean()


@dataclass(frozen=True)
class Channel:
    """Objective: the mean of one channel of a site's output; of a fully connected site, one neuron."""

    site: str
    channel: int

    def __call__(self, layer: Layer) -> Tensor:
        """The loss, for Lucent to minimise."""
        return -_part(layer(self.site), (self.channel,), f"site '{self.site}'").mean()


@dataclass(frozen=True)
class Neuron:
    """Objective: one neuron of a site, such as (channel, row, column)."""

    site: str
    index: tuple[int, ...]

    def __call__(self, layer: Layer) -> Tensor:
        """The loss, for Lucent to minimise."""
        return -_part(layer(self.site), self.index, f"site '{self.site}'").mean()


def _part(values: Tensor, index: tuple[int, ...], where: str) -> Tensor:
    shape = tuple(values.shape[1:])
    inside = [0 <= place < size for place, size in zip(index, shape, strict=False)]
    if len(index) > len(shape) or not all(inside):
        raise InputError(f"the objective asks for {index} of {where}, which gives {shape} an image.")
    for place in index:
        values = values[:, place]
    return values


@dataclass(frozen=True)
class Task:
    """One image to make."""

    pathway: Pathway | None  # of one image
    objective: Objective


def tasks_of(
    pathways: Pathway | Sequence[Pathway | None] | None, objectives: Objective | Sequence[Objective] | None
) -> list[Task]:
    """One task an image of every pathway, with its objective; raises `InputError` where their numbers differ."""
    given = [pathways] if pathways is None or isinstance(pathways, Pathway) else list(pathways)
    single: list[Pathway | None] = []
    for pathway in given:
        single += [None] if pathway is None else [pathway[row : row + 1] for row in range(len(pathway))]
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
