"""Claims of the paper: the sentence, where it stands, and the numbers that decide on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cpath.viz import label_of
from experiments.metrics import METRICS
from experiments.paper.evidence import (
    Contrast,
    Numbers,
    Results,
    at_place,
    courses,
    degradation_areas,
    nearest_place,
    paired_seeds,
)

# Limits where a claim has no number of its own, and no control to be compared with. Each is argued from what the
# number means, before any result.
#
# Per cent of a pathway. “Selects dead neurons” is about a method's choices: a single neuron at the edge of a
# threshold should not decide it. At the paper's sparsity of 90 % the pathway is a tenth of the network, and 1 %
# of it is one neuron in a thousand: fewer shape no pathway.
_A_FEW = 1.0
# Per cent of a pathway: “mostly” is more than half, by the word.
_MOST = 50.0
# Mean relative change of the probability. A method that loses the response of every tenth image altogether (−1),
# and keeps that of all others, has −0.1: where it loses more, it does not do what it is for on too many images to
# say so.
_KEPT = -0.1
# Mean rank correlation with the original map. It is 1 for a map that does not depend on the weights at all, as
# that of edges, and 0 for a random one: below the middle a map is nearer to having nothing of the original than
# to having all.
_CHANGED = 0.5
# Times the overlap of two random pathways. No overlap at all lies one such overlap below chance; twice chance
# lies as far above it. Where pathways share more, they are further from sharing nothing than random ones are.
_APART = 2.0
_ANALYSED, _DECODED = 90.0, 98.0  # per cent of the neurons that the paper's figures prune

_OURS = ("neuron_mct", "neuron_intgrad")
_OTHERS = ("gradients", "gbp", "input_mct", "input_intgrad")
_CONTROL = "random"
_FITTED = ("greedy", "dgr", "learned_ranking")
_NO_ACTIVE_RIVAL = (
    "also against an order learned for the response, which the paper does not have, and random neurons; the active "
    "subnetwork is no opponent, as it is the whole response by construction"
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper, with the numbers that confirm or refute it."""

    place: str
    """Part of the paper that says it."""
    source: str
    """Section and figure."""
    text: str
    """The sentence."""
    metric: str
    """Name of the numbers that decide."""
    about: str = ""
    """Further words on these numbers, and on a rule that is ours."""
    contrasts: Callable[[Results], list[Contrast]]
    """Collects what is compared; none where results have no such numbers."""
    by_construction: str = ""
    """Reason for which it cannot be otherwise; empty where it can."""
    not_testable: str = ""
    """Reason for which no result can decide; empty where one can."""

    @property
    def numbers(self) -> str:
        """Words on the numbers that decide: label, what it is about, and which direction is better."""
        metric = METRICS[self.metric]
        about = f" ({self.about})" if self.about else ""
        better = f", {metric.better} is better" if metric.better else ""
        return f"{metric.label[:1].upper()}{metric.label[1:]}{about}{better}"


def _analysed(results: Results, metric: str) -> Numbers:
    """Numbers of path analysis at the paper's sparsity, or at the nearest that was measured."""
    x = nearest_place(results, metric.partition("/")[0], "sparsity", _ANALYSED)
    return at_place(results, metric, "sparsity", x)


def _none_dead(results: Results) -> list[Contrast]:
    return _analysed(results, "dead_share").against(_OURS, 0.0, "lower")


def _some_dead(method: str) -> Callable[[Results], list[Contrast]]:
    return lambda results: _analysed(results, "dead_share").against([method], _A_FEW, "higher")


def _mostly_dead(results: Results) -> list[Contrast]:
    shares = _analysed(results, "dead_share")
    return [
        *shares.against(["dgr_random_init"], _MOST, "higher"),
        *shares.pairs(["dgr_random_init"], [_CONTROL], "higher"),
    ]


def _overlap(results: Results) -> list[Contrast]:
    found = _analysed(results, "jaccard/neuron_intgrad")
    return found.pairs(["neuron_mct"], ["greedy", "dgr"], "higher", lambda name: f"with {label_of(name)}")


def _chance(sparsity: float) -> float:
    """Jaccard index of two random pathways of the same size."""
    kept = 1 - sparsity / 100
    return kept / (2 - kept)


def _apart(results: Results) -> list[Contrast]:
    pairs = (("greedy", "dgr"), ("greedy", "dgr_random_init"), ("dgr", "dgr_random_init"))
    return [contrast for one, other in pairs for contrast in _overlap_of(results, one, other)]


def _overlap_of(results: Results, one: str, other: str) -> list[Contrast]:
    sparsity = nearest_place(results, "jaccard", "sparsity", _ANALYSED)
    if sparsity is None:
        return []
    numbers = at_place(results, f"jaccard/{other}", "sparsity", sparsity)
    words = f"{label_of(one)} and {label_of(other)}"
    return numbers.against([one], _APART * _chance(sparsity), "lower", lambda _: words)


def _objective(results: Results) -> list[Contrast]:
    return _analysed(results, "response_change").against(["greedy", "dgr"], _KEPT, "higher")


def _decoded(results: Results) -> list[Contrast]:
    x = nearest_place(results, "probability_original", "sparsity", _DECODED)
    return at_place(results, "probability_original", "sparsity", x).pairs(
        _OURS, ["greedy", "dgr", _CONTROL], "higher"
    )


def _linear(results: Results) -> list[Contrast]:
    x = nearest_place(results, "affine_radius", "sparsity", _ANALYSED)
    radii = at_place(results, "affine_radius", "sparsity", x)
    # Radii of images differ by orders of magnitude: a mean of theirs would be that of the largest.
    means = {method: float(np.log10(value)) for method, value in radii.means.items() if value > 0}
    radii = Numbers(radii.unit, means, np.log10(radii.images.where(radii.images > 0)))
    found = radii.pairs(
        _OURS, ["active", _CONTROL], "higher", lambda name: f"log10 of the radius of {label_of(name)}"
    )
    if "active" not in radii.means:
        found += [
            Contrast(f"{label_of(name)}, the unrestricted network", "higher", None, reason=_NO_ACTIVE)
            for name in _OURS
            if name in radii.means
        ]
    return found


_NO_ACTIVE = "not measured: run the job with the method active"


def _faithful(metric: str, claimed: Literal["higher", "lower"]) -> Callable[[Results], list[Contrast]]:
    return lambda results: at_place(results, metric, "", None).pairs(_OURS, [*_FITTED, _CONTROL], claimed)


def _course(results: Results) -> list[Contrast]:
    found = courses(results, "spearman_abs")
    return [*found.against(_OURS, _CHANGED, "lower"), *found.pairs(_OURS, ["gbp"], "lower")]


def _lerf(results: Results) -> list[Contrast]:
    return degradation_areas(results).pairs(_OURS, [*_OTHERS, _CONTROL], "lower")


def _roar(results: Results) -> list[Contrast]:
    return paired_seeds(results, "roar_difference", _OURS, [*_OTHERS, _CONTROL], "lower")


def _nothing(results: Results) -> list[Contrast]:
    return []


CLAIMS = (
    Claim(
        place="Path analysis",
        source="section 3, figure of the dead neurons in pathways",
        text="The pathways of NeuronMCT and NeuronIntGrad contain no originally dead neuron.",
        metric="dead_share",
        contrasts=_none_dead,
        by_construction="a dead neuron contributes 0, and a pathway keeps neurons of a score above 0 only",
    ),
    Claim(
        place="Path analysis",
        source="section 3, figure of the dead neurons in pathways",
        text="Greedy pruning selects originally dead neurons.",
        metric="dead_share",
        about=f"by our reading it does above {_A_FEW:g} %",
        contrasts=_some_dead("greedy"),
    ),
    Claim(
        place="Path analysis",
        source="section 3, figure of the dead neurons in pathways",
        text="Distillation guided routing selects originally dead neurons.",
        metric="dead_share",
        about=f"by our reading it does above {_A_FEW:g} %",
        contrasts=_some_dead("dgr"),
    ),
    Claim(
        place="Path analysis",
        source="section 3, figure of the dead neurons in pathways",
        text="Distillation guided routing from random gates selects mostly originally dead neurons.",
        metric="dead_share",
        about=f"above {_MOST:g} %, and above the share in random pathways, which is chance; published: 67 %",
        contrasts=_mostly_dead,
    ),
    Claim(
        place="Path analysis",
        source="section 3, figure of the overlap of pathways",
        text="The pathway of NeuronIntGrad overlaps more with that of NeuronMCT than with those of pruning and "
        "routing.",
        metric="jaccard",
        about="with the pathway of NeuronIntGrad",
        contrasts=_overlap,
    ),
    Claim(
        place="Path analysis",
        source="section 3, figure of the overlap of pathways",
        text="The pathways of the pruning methods do not overlap.",
        metric="jaccard",
        about="by our reading they do not below twice the index of random pathways",
        contrasts=_apart,
    ),
    Claim(
        place="Path analysis",
        source="section 3, objective of pruning",
        text="Pruning meets its objective: the network restricted to the pathway responds as the whole does.",
        metric="response_change",
        about=f"by our reading it does above {_KEPT:g}",
        contrasts=_objective,
    ),
    Claim(
        place="Faithfulness",
        source="section 3, on the pathways that are critical for the response",
        text="The neurons that NeuronMCT and NeuronIntGrad put first carry the response, more than those of "
        "pruning and routing.",
        metric="cmd",
        about=_NO_ACTIVE_RIVAL,
        contrasts=_faithful("cmd", "lower"),
    ),
    Claim(
        place="Faithfulness",
        source="section 3, on the pathways that are critical for the response",
        text="They carry it for copies of the image too, with noise, shifted, cropped or compressed, more than "
        "those of pruning and routing.",
        metric="cmd",
        about=f"mean over the copies; {_NO_ACTIVE_RIVAL}",
        contrasts=_faithful("cmd/transfer", "lower"),
    ),
    Claim(
        place="Faithfulness",
        source="section 3, on what the objective of pruning does not tell",
        text="They are the network's own reasons, where those of pruning and routing are chosen to fit a response: "
        "asked for another class, NeuronMCT and NeuronIntGrad make the network say it less.",
        metric="cmd_rise",
        about="CMD of the class with the second largest logit minus CMD of the predicted one, higher is better; "
        f"{_NO_ACTIVE_RIVAL}",
        contrasts=_faithful("cmd_rise/other_answer", "higher"),
    ),
    Claim(
        place="Path decoding",
        source="section 3, figure of the decoded pathways",
        text="What the pathways of NeuronMCT and NeuronIntGrad encode speaks for the class more than what those of "
        "pruning and routing encode.",
        metric="probability_original",
        about="also against random pathways",
        contrasts=_decoded,
    ),
    Claim(
        place="Local linearity",
        source="section 4, on the linear region of the restricted network",
        text="The network restricted to the pathways of NeuronMCT and NeuronIntGrad is linear in a ball, which the "
        "unrestricted network is not.",
        metric="affine_radius",
        about="has to be larger than that of random pathways of the same sparsity, and than that of all active "
        "neurons, which bounds that of the unrestricted network from above",
        contrasts=_linear,
    ),
    Claim(
        place="Sanity checks",
        source="section 4, figure of the cascading randomisation",
        text="The maps of NeuronMCT and NeuronIntGrad depend on the weights.",
        metric="spearman_abs",
        about=f"with the original map, mean over the blocks; by our reading it is another map below {_CHANGED:g}, "
        "and has to be less like the original than that of GBP, which does not depend on them enough",
        contrasts=_course,
    ),
    Claim(
        place="Input degradation (LeRF)",
        source="section 4, figure of input degradation",
        text="NeuronMCT and NeuronIntGrad rank pixels better than Gradients, GBP, InputMCT and InputIntGrad.",
        metric="lerf_area",
        about="up to 10 % of the pixels; also against a random map",
        contrasts=_lerf,
    ),
    Claim(
        place="ROAR",
        source="section 4, figure of remove and retrain",
        text="Retraining without the pixels that NeuronMCT and NeuronIntGrad find costs more accuracy than without "
        "those of Gradients, GBP, InputMCT and InputIntGrad.",
        metric="roar_area",
        about="differences of accuracies with the same seed, mean over the shares; also against a random map",
        contrasts=_roar,
    ),
    Claim(
        place="Input degradation (LeRF), ROAR",
        source="section 4, figures of input degradation and of remove and retrain",
        text="NeuronIntGrad* is the best of all.",
        metric="lerf_area",
        contrasts=_nothing,
        not_testable="the paper does not release it, and our reading of it equals GradCAM on networks that end in "
        "global pooling and a linear layer, where the published values of the two differ",
    ),
)
