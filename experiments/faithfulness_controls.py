"""Controls of the faithfulness experiment: copies of the input, another answer, random weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Annotated

from pydantic import AfterValidator
from torch import nn

import cpath
from cpath.data import ImageData
from cpath.errors import InputError
from cpath.evaluation import COPIES, faithfulness_transfer, other_answer, redraw, runner_up
from cpath.randomness import seeded
from experiments.engine import fields
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.question import PREDICTED, Question
from experiments.engine.settings import Settings

OTHER, RANDOM = "other_answer", "random_weights"


class Controls(Settings):
    """Controls that tell what a set of units proves: ``experiment.controls.…``."""

    images: fields.Natural
    copies: Annotated[list[Annotated[str, fields.one_of(COPIES)]], AfterValidator(fields.distinct)]
    other_answer: bool
    random_weights: bool

    def on(self, batch: Batch) -> Batch | None:
        """Select the inputs of a batch that the controls are measured on.

        Args:
            batch: the batch.

        Returns:
            The first of its inputs; None where it has none of them.
        """
        count = min(max(self.images - batch.where.start, 0), len(batch))
        return batch.first(count) if count else None

    def names(self, job: Job) -> list[str]:
        """List the controls that have a meaning for a job.

        Args:
            job: the job.

        Returns:
            Names of copies, which images have; another answer, where the predicted class is explained; random
            weights.
        """
        if not self.images:
            return []
        found = list(self.copies) if isinstance(job.dataset, ImageData) else []
        found += [OTHER] if self.other_answer and job.config.target == PREDICTED else []
        return found + ([RANDOM] if self.random_weights else [])


def random_network(job: Job) -> nn.Module:
    """Draw new weights for all of a job's network, by its layers' own initialisation where all of them have one.

    Args:
        job: the job.

    Returns:
        A copy of the network, the same for the same seed.
    """
    network = copy.deepcopy(job.model)
    parameters = [name for name, _ in network.named_parameters()]
    try:
        redraw(network, parameters, seeded(job.config.seed), init="own")
    except InputError:
        redraw(network, parameters, seeded(job.config.seed))
    return network


def controlled(
    job: Job,
    batch: Batch,
    method: cpath.Method,
    scores: cpath.Scores,
    names: Sequence[str],
    keep: Sequence[float],
    network: nn.Module,
    max_batch: int,
) -> Iterator[tuple[str, cpath.Faithfulness]]:
    """Measure the controls of a method.

    Args:
        job: the job.
        batch: the inputs.
        method: the method.
        scores: its scores for them.
        names: of the controls.
        keep: sizes, per cent.
        network: the network with random weights.
        max_batch: inputs in one forward pass.

    Returns:
        Iterator over the name and the faithfulness of each control.
    """
    asked = job.question.arguments(batch)
    function = asked["target"] if callable(asked["target"]) else None
    copies = {name: COPIES[name] for name in names if name in COPIES}
    if copies:
        images = batch.images
        yield from faithfulness_transfer(
            job.model, images, scores, function, copies=copies, keep=keep, max_batch=max_batch
        ).items()
    if OTHER in names:
        asked["target"] = runner_up(job.model, batch.inputs, max_batch=max_batch)
        other = cpath.score(job.model, batch.inputs, method, **asked, max_batch=max_batch)
        yield OTHER, other_answer(job.model, batch.inputs, other, keep=keep, max_batch=max_batch)
    if RANDOM in names:
        asked = Question(job.config, job.dataset, network).arguments(batch)
        there = cpath.score(network, batch.inputs, method, **asked, max_batch=max_batch)
        yield (
            RANDOM,
            cpath.faithfulness(
                network, batch.inputs, there, function, keep=keep, necessity=False, max_batch=max_batch
            ),
        )
