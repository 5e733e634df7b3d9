"""Sizes of the benchmark's cases: networks, images, and how much of each method is timed."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from cpath.errors import unknown_name
from cpath.models.torchvision import names
from experiments.engine import fields
from experiments.engine.settings import Settings


def _known_model(name: str) -> str:
    if name not in names():
        raise unknown_name("torchvision model", name, names())
    return name


def _numbers(*meanings: str) -> BeforeValidator:
    """A list of that many whole numbers, as a tuple."""

    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or len(value) != len(meanings):
            raise ValueError(f"must be {len(meanings)} whole numbers, [{', '.join(meanings)}]")
        return tuple(value)

    return BeforeValidator(check)


Models = Annotated[
    list[Annotated[str, AfterValidator(_known_model)]], Field(min_length=1), AfterValidator(fields.distinct)
]
Counts = Annotated[list[fields.Count], Field(min_length=1), AfterValidator(fields.distinct)]


class Sizes(Settings):
    """Settings that the cases of the benchmark are made with."""

    models: Models
    slow_models: Models
    transformer: Annotated[str, AfterValidator(_known_model)]
    batch: fields.Count
    size: fields.Count
    nodes: fields.Count
    greedy_rounds: fields.Count
    dgr_iterations: fields.Count
    learned_steps: fields.Count
    threshold: Annotated[tuple[fields.Count, fields.Count], _numbers("images", "neurons")]
    training: Annotated[tuple[fields.Count, fields.Count, fields.Count], _numbers("images", "batch", "epochs")]
    classes: Annotated[tuple[fields.Count, fields.Count, fields.Count], _numbers("images", "batches", "classes")]
    texts: Annotated[tuple[fields.Count, fields.Count, fields.Count], _numbers("texts", "tokens", "layers")]
    batches: Counts
    sites: Counts
    pathways: Counts
