"""Faithfulness: the part of a network's answer that its best-scored units recover, and that is lost without them.

Let f be a number that is read off the output: the margin of the explained class over the best other class of the
unrestricted network (see `cpath.margin`), or a user's function. f(x) is its value in the whole network, f(∅) with
all units at their baseline. At a size k, in per cent of all units:

- *sufficiency* is F(k) = (f(keep the top k) − f(∅)) / (f(x) − f(∅)): 1 if the top k alone answer as the whole
  network does, 0 if they answer as the empty one, above 1 if they overshoot, below 0 if they say the opposite;
- *necessity* is (f(x) − f(remove the top k)) / (f(x) − f(∅)), the same with the top k removed and everything else
  kept, counted as what is lost: 1 if nothing is left of the answer, 0 if it does not change.

Both are 1 for units that carry the whole answer. CPR is the mean over the sizes, and CMD the mean distance from 1,
which overshooting cannot lower.

Source: sufficiency, CPR and CMD as in Mueller et al., MIB: A Mechanistic Interpretability Benchmark, ICML 2025.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cpath import methods
from cpath.checks import check_count, within_memory
from cpath.display import faithfulness_html
from cpath.errors import InputError, described
from cpath.evaluation.keeping_top import NOTHING, TopUnits, check_belong, check_keep, count_kept, thresholds
from cpath.inputs import Given, Inputs
from cpath.margin import Margin, OutputFunction, Strength, rise_of
from cpath.probe import Probe, Record
from cpath.response import Target
from cpath.scores import Scores, score
from cpath.sites import evaluating

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEEP = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
"""Sizes, per cent of all units."""


@dataclass(frozen=True, eq=False)
class Faithfulness:
    """Faithfulness of the best-scored units, for every input of a batch. Made by `faithfulness`.

    Everything is NaN for an input whose answer does not rise from the empty to the whole network (`undefined`).

    Attributes:
        sufficiency: F (B, K) of the networks that keep the top units alone.
        keep: Sizes (K,) asked for, per cent of all units.
        kept: Sizes (B, K) that the scores allow, per cent: smaller where scores tie, as ties are never split.
        whole: f(x), or what takes its place (B,).
        empty: f(∅) (B,).
        target: Class (B,) that f is the margin of; None if it is a function.
        against: Class (B,) that f is the margin over; None if it is a function.
        method: Name of the extraction method.
        losses: Necessity (B, K); None if it was not asked for.
        beside: Faithfulness of further methods on the same inputs, such as random units.

    Example:
        >>> found = cpath.faithfulness(model, images, cpath.score(model, images), keep=[10, 50])
        >>> found
        Faithfulness(method='neuron_mct', inputs=2, sizes=2)
        >>> found.sufficiency.shape, found.cmd.shape
        (torch.Size([2, 2]), torch.Size([2]))
    """

    sufficiency: Tensor
    keep: Tensor
    kept: Tensor
    whole: Tensor
    empty: Tensor
    target: Tensor | None
    against: Tensor | None
    method: str
    losses: Tensor | None = None
    beside: tuple[Faithfulness, ...] = ()

    def __len__(self) -> int:
        return len(self.sufficiency)

    def __repr__(self) -> str:
        return f"Faithfulness(method={self.method!r}, inputs={len(self)}, sizes={len(self.keep)})"

    def _repr_html_(self) -> str:
        return faithfulness_html(self)

    def show(self, *others: Faithfulness) -> Figure:
        """Draw the curves with their intervals, and one number for each method.

        Args:
            others: Faithfulness of further methods; those of `beside` are there anyway.

        Returns:
            A figure of matplotlib.

        Raises:
            InputError: If no input has a faithfulness.
            MissingPackageError: If matplotlib is not installed.
        """
        from cpath import viz

        return viz.show_faithfulness(self, *others)

    @property
    def necessity(self) -> Tensor:
        """Part of the answer (B, K) that is lost without the top units.

        Raises:
            InputError: If it was not measured.
        """
        if self.losses is None:
            raise InputError("necessity was not measured: pass necessity=True.")
        return self.losses

    @property
    def cpr(self) -> Tensor:
        """Mean of the sufficiency over the sizes (B,)."""
        return self.sufficiency.mean(1)

    @property
    def cmd(self) -> Tensor:
        """Mean distance of the sufficiency from 1 over the sizes (B,)."""
        return (1 - self.sufficiency).abs().mean(1)

    @property
    def necessity_cpr(self) -> Tensor:
        """Mean of the necessity over the sizes (B,)."""
        return self.necessity.mean(1)

    @property
    def necessity_cmd(self) -> Tensor:
        """Mean distance of the necessity from 1 over the sizes (B,)."""
        return (1 - self.necessity).abs().mean(1)

    @property
    def undefined(self) -> Tensor:
        """True (B,) for inputs without a rise from the empty to the whole network, which have no faithfulness."""
        return self.sufficiency.isnan().any(1)


def faithfulness(
    model: nn.Module,
    inputs: Given | Inputs,
    scores: Scores,
    target: Target = None,
    *,
    keep: Iterable[float] = KEEP,
    necessity: bool = True,
    beside: Iterable[str | methods.Method] = (),
    max_batch: int = 64,
) -> Faithfulness:
    """Measure how much of the response the best-scored units recover, and how much is lost without them.

    All sizes come from one scoring, with the ties, the units, the sites and the baseline of the scores. It takes
    2 K + 2 forward passes for each input, K + 2 without necessity; the model runs in eval mode and is left as it
    was.

    Args:
        model: The model that was scored, see `cpath.response`.
        inputs: The inputs (B, …) that were scored, or as many other ones, on which the same units are kept.
        scores: Scores of a method. A method that only tells which units to keep (``graded`` is False) has no best
            ones: its scores tie, and nothing is kept at any size that is smaller.
        target: Class whose margin over the best other class of the unrestricted network is measured, an int or
            ints (B,); or a function of the model's output that returns floats (B,). None for the class that the
            scores explain.
        keep: Sizes, ascending per cents of all units.
        necessity: Measure the necessity too.
        beside: Methods that are scored and measured too, for `Faithfulness.show`: ``("random", "active")`` are the
            controls that say what a number is worth. ``active``, which ranks nothing, is measured at its own size.
        max_batch: Largest number of inputs in one forward pass, counting repetitions.

    Returns:
        Sufficiency and necessity by input and size, NaN where f(x) and f(∅) differ by less than a thousandth of the
        larger one, or by roundings of the logits alone.

    Raises:
        InputError: If an argument is unusable, or the scores explain a function and no target is given.
        MaskError: If the scores belong to another model or another number of inputs.
        SiteError: If the model has no site.
        OutOfMemoryError: If a pass of ``max_batch`` inputs does not fit into the device's memory.

    Source: Mueller et al., MIB: A Mechanistic Interpretability Benchmark, ICML 2025.

    Example:
        >>> scores = cpath.score(model, images, "active")
        >>> whole = cpath.faithfulness(model, images, scores, keep=[100])  # all active neurons: nothing is lost
        >>> whole.sufficiency.flatten().tolist(), whole.kept.flatten() < 100
        ([1.0, 1.0], tensor([True, True]))
        >>> found = cpath.faithfulness(model, images, cpath.score(model, images), beside=("random", "active"))
        >>> figure = found.show()  # of matplotlib: a notebook shows it
    """
    max_batch, shares = check_count("max_batch", max_batch), check_keep(keep)
    target = check_scores(scores, inputs, target)
    made = [methods.get(one) if isinstance(one, str) else one for one in beside]
    options: dict[str, Any] = {"necessity": necessity, "max_batch": max_batch}
    found = measured(model, inputs, scores, target, Question(), shares, **options)
    same: dict[str, Any] = {"sites": scores.sites, "unit": scores.layout.unit, "baseline": scores.baseline}
    others = []
    for method in made:
        of = score(model, inputs, method, target, max_batch=max_batch, **same)
        sizes = shares if method.graded else (100.0,)
        others.append(measured(model, inputs, of, target, Question(), sizes, **options))
    return replace(found, beside=tuple(others))


def check_scores(scores: object, inputs: Given | Inputs, target: Target) -> Target:
    """Check that there is a question to as many inputs as there are scores for.

    Args:
        scores: The scores.
        inputs: The inputs.
        target: Class or function; None for the class that the scores explain.

    Returns:
        The class or function.

    Raises:
        InputError: If these are no scores, or they explain a function and ``target`` is None.
        MaskError: If they belong to another number of inputs.
    """
    if not isinstance(scores, Scores):
        raise InputError(f"scores must be cpath.Scores, as cpath.score gives them, not {described(scores)}.")
    if target is None and scores.target is None:
        raise InputError(
            f"these scores of '{scores.method}' explain a function of the output: pass it, or a class, as the "
            "target."
        )
    check_belong(scores, Inputs.of(inputs))
    return scores.target if target is None else target


@dataclass(frozen=True, eq=False)
class Question:
    """Departures from the usual question about a batch, for the controls.

    Attributes:
        against: Class (B,) that the margin is over, in place of the best other one.
        whole: Answer (B,) that counts as the whole one, in place of f(x).
        least_rise: Least f(x) − f(∅) (B,) that units could recover.
    """

    against: Tensor | None = None
    whole: Tensor | None = None
    least_rise: Tensor | None = None

    def part(self, rows: slice) -> Question:
        """Select inputs.

        Args:
            rows: The inputs.

        Returns:
            The question about them.
        """
        values = {name: value if value is None else value[rows] for name, value in vars(self).items()}
        return Question(**values)

    def strength(self, probe: Probe, record: Record, function: Any) -> Strength:
        """Find the number to read off the output.

        Args:
            probe: The inputs in front of the model.
            record: The answer of the unrestricted network.
            function: The function that is the target; anything else where it is a class.

        Returns:
            The margin of the class, or the function.
        """
        if record.class_logits is None:
            return OutputFunction(function, len(probe))
        assert probe.target is not None
        if self.against is not None:
            return Margin(probe.target, self.against)
        return Margin.over_best_other(probe.target, record.class_logits)


def measured(
    model: nn.Module,
    inputs: Given | Inputs,
    scores: Scores,
    target: Target,
    question: Question,
    keep: tuple[float, ...],
    *,
    necessity: bool,
    max_batch: int,
) -> Faithfulness:
    """Measure the faithfulness by the answer to a question.

    Args:
        model: The model.
        inputs: The inputs.
        scores: Scores of as many inputs.
        target: The class or function.
        question: What counts as the whole answer.
        keep: Sizes, per cent.
        necessity: Measure the necessity too.
        max_batch: Largest number of inputs in one forward pass.

    Returns:
        The faithfulness.

    Raises:
        InputError: If inputs or target are unusable.
        MaskError: If the scores do not belong to them.
    """
    found = []
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer inputs at once"
    with evaluating(model), torch.no_grad(), within_memory(remedy):
        whole = Probe(model, inputs, target, sites=scores.sites, baseline=scores.baseline, max_batch=max_batch)
        for start in range(0, len(whole), max_batch):
            rows = slice(start, start + max_batch)
            found.append(_measured(whole.part(rows), scores[rows], target, question.part(rows), keep, necessity))
    return _joined(found)


def _measured(
    probe: Probe, scores: Scores, target: Target, question: Question, keep: tuple[float, ...], necessity: bool
) -> Faithfulness:
    """Measure the inputs of one forward pass."""
    record = probe.record(gradients=False)
    top = TopUnits(probe, scores, record.activations)
    record.activations.clear()  # they take as much memory as the passes to come
    strength = question.strength(probe, record, target)
    above = thresholds(scores, keep)
    answers = top.strengths(strength, torch.cat([above, torch.full_like(above[:1], NOTHING)]), keep_top=True)
    empty = answers[-1]
    whole = question.whole
    if whole is None:
        whole = record.response if record.class_logits is None else strength.read(record.class_logits, 1)[0]
    whole = whole.to(empty)
    rise = rise_of(whole, empty, record.class_logits)
    if question.least_rise is not None:
        rise = rise.masked_fill(rise.abs() < question.least_rise.to(rise), torch.nan)
    losses = (whole - top.strengths(strength, above, keep_top=False)) / rise if necessity else None
    margin = strength if isinstance(strength, Margin) else None
    return Faithfulness(
        sufficiency=((answers[:-1] - empty) / rise).T,
        keep=torch.tensor(keep, dtype=empty.dtype, device=probe.device),
        kept=(100 * count_kept(scores, above).to(empty) / scores.layout.units).T,
        whole=whole,
        empty=empty,
        target=None if margin is None else margin.target,
        against=None if margin is None else margin.against,
        method=scores.method,
        losses=losses if losses is None else losses.T,
    )


def _joined(found: Sequence[Faithfulness]) -> Faithfulness:
    """Put the parts of a batch together."""

    def whole(name: str) -> Any:
        each = [getattr(part, name) for part in found]
        return None if each[0] is None else torch.cat(each)

    of_inputs = ("sufficiency", "kept", "whole", "empty", "target", "against", "losses")
    return replace(found[0], **{name: whole(name) for name in of_inputs})
