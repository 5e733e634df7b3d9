"""Controls of faithfulness: what a set of units proves, as any answer can be fitted by some units.

- *Transfer*: the same units on copies of the input that they were not found for (`faithfulness_transfer`).
- *Another answer*: units that were found for another class (`other_answer`). If they make the network give that
  answer as strongly as it gives its own, sufficiency tells nothing of the network's reasons for its own.
- *Random weights*: the method in a network that has learned nothing, which is what `score` and `faithfulness` give
  for a copy of the model behind `cpath.evaluation.redraw`. Random units are the method ``"random"``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cpath.checks import check_count, check_number, within_memory
from cpath.devices import widest
from cpath.errors import InputError
from cpath.evaluation.copies import COPIES
from cpath.evaluation.faithfulness import KEEP, Faithfulness, Question, check_scores, measured
from cpath.evaluation.keeping_top import check_keep
from cpath.inputs import Given, Inputs
from cpath.margin import best_other
from cpath.probe import Probe
from cpath.response import Target, class_logits
from cpath.scores import Scores
from cpath.sites import evaluating


def runner_up(model: nn.Module, inputs: Given | Inputs, *, max_batch: int = 64) -> Tensor:
    """Find the class with the second largest logit.

    Args:
        model: A model that maps ``inputs`` to logits (B, classes), see `cpath.response`.
        inputs: The inputs (B, …).
        max_batch: Largest number of inputs in one forward pass.

    Returns:
        Classes (B,).

    Raises:
        InputError: If the inputs are unusable.

    Example:
        >>> first, second = model(images).argsort(1, descending=True)[:, :2].unbind(1)
        >>> torch.equal(cpath.evaluation.runner_up(model, images), second)
        True
    """
    logits = _logits(model, inputs, max_batch)
    return best_other(logits.argmax(1), logits)


def faithfulness_transfer(
    model: nn.Module,
    inputs: Given | Inputs,
    scores: Scores,
    target: Target = None,
    *,
    copies: Mapping[str, Callable[[Any], Given]] = COPIES,
    keep: Iterable[float] = KEEP,
    least_rise: float = 0.2,
    necessity: bool = False,
    max_batch: int = 64,
) -> dict[str, Faithfulness]:
    """Measure the faithfulness of the best-scored units on copies of the inputs that they were not found for.

    The question stays the same: the margin is over the class that is the best other one for the input itself. It is
    normalised by the whole and the empty network on the copy.

    Args:
        model: The model that was scored.
        inputs: The inputs that were scored.
        scores: Their scores.
        target: Class or function, as for `cpath.faithfulness`.
        copies: Functions by name that are given the inputs as they were passed, and return as many others of the
            same structure. The default ones need images.
        keep: Sizes, ascending per cents of all units.
        least_rise: Least rise of the answer from the empty to the whole network on a copy, as a part of that on the
            input. Below it, the network itself does not give the answer on the copy, and the faithfulness is NaN.
        necessity: Measure the necessity too.
        max_batch: Largest number of inputs in one forward pass.

    Returns:
        Faithfulness by the name of the copy.

    Raises:
        InputError: If an argument is unusable, or the default copies are to be made of other inputs than images.
        MaskError: If the scores belong to another model or another number of inputs.

    Example:
        >>> scores = cpath.score(model, images)
        >>> found = cpath.evaluation.faithfulness_transfer(model, images, scores, keep=[20])
        >>> {name: tuple(of_copy.sufficiency.shape) for name, of_copy in found.items()}
        {'noise': (2, 1), 'shift': (2, 1), 'crop': (2, 1), 'compression': (2, 1)}
    """
    max_batch, shares = check_count("max_batch", max_batch), check_keep(keep)
    target = check_scores(scores, inputs, target)
    if not 0 <= check_number("least_rise", least_rise) < math.inf:
        raise InputError(f"least_rise must not be negative, but is {least_rise}.")
    given = inputs.structured(dict(enumerate(inputs.tensors))) if isinstance(inputs, Inputs) else inputs
    if copies is COPIES and not _is_image(given):
        raise InputError(
            "the copies that are made without saying are of images (B, C, H, W): pass copies={name: function}, "
            "whose functions return copies of inputs like these."
        )
    own = measured(model, inputs, scores, target, Question(), (100.0,), necessity=False, max_batch=max_batch)
    question = Question(against=own.against, least_rise=least_rise * (own.whole - own.empty).abs())
    return {
        name: measured(
            model, copy(given), scores, target, question, shares, necessity=necessity, max_batch=max_batch
        )
        for name, copy in copies.items()
    }


def other_answer(
    model: nn.Module,
    inputs: Given | Inputs,
    scores: Scores,
    *,
    keep: Iterable[float] = KEEP,
    max_batch: int = 64,
) -> Faithfulness:
    """Measure how strongly units that were found for another class make the network give that class as its answer.

    With the margin g of that class over the predicted one, the sufficiency is
    (g(keep the top k) − g(∅)) / (f(x) − g(∅)), f(x) being the margin of the predicted class over the other one in
    the whole network: it is 1 if the restricted network prefers the other class by as much as the whole network
    prefers its own.

    Args:
        model: The model that was scored.
        inputs: The inputs that were scored.
        scores: Their scores for another class than the predicted one, such as that of `runner_up`.
        keep: Sizes, ascending per cents of all units.
        max_batch: Largest number of inputs in one forward pass.

    Returns:
        Sufficiency for the other answer; necessity has no meaning for it. A small `Faithfulness.cmd` says that the
        method can make the network say something that it does not say.

    Raises:
        InputError: If an argument is unusable, or the scores explain a function or the predicted class.
        MaskError: If the scores belong to another model or another number of inputs.

    Example:
        >>> other = cpath.evaluation.runner_up(model, images)
        >>> scores = cpath.score(model, images, target=other)
        >>> found = cpath.evaluation.other_answer(model, images, scores)
        >>> torch.equal(found.target, other), torch.equal(found.against, model(images).argmax(1))
        (True, True)
    """
    max_batch, shares = check_count("max_batch", max_batch), check_keep(keep)
    check_scores(scores, inputs, scores.target)
    logits = _logits(model, inputs, max_batch)
    predicted, other = logits.argmax(1), scores.target
    assert other is not None
    if bool((predicted == other).any()):
        raise InputError(
            "other_answer needs scores for another class than the predicted one, for every input: "
            "score(…, target=cpath.evaluation.runner_up(model, inputs))."
        )
    pair = torch.stack([predicted, other], 1)
    own, its = logits.gather(1, pair).unbind(1)
    question = Question(against=predicted, whole=own - its)
    return measured(model, inputs, scores, other, question, shares, necessity=False, max_batch=max_batch)


def _logits(model: nn.Module, inputs: Given | Inputs, max_batch: int) -> Tensor:
    """Compute the logits (B, classes) of the whole network, after the checks of the inputs."""
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer inputs at once"
    with evaluating(model), torch.no_grad(), within_memory(remedy):
        probe = Probe(model, inputs, max_batch=max_batch)
        found = [
            class_logits(probe.inputs[start : start + max_batch].clone().call(probe.model), size)
            for start, size in _parts(len(probe), max_batch)
        ]
    return torch.cat(found).to(widest(probe.device))


def _parts(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Starts and sizes of the parts of a batch."""
    for start in range(0, count, size):
        yield start, min(size, count - start)


def _is_image(given: object) -> bool:
    return isinstance(given, Tensor) and given.dim() == 4 and given.is_floating_point()
