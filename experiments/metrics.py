"""All metrics of the project: name, unit, range, direction, meaning and source of every number in its tables."""

from __future__ import annotations

from typing import Any, Literal

from experiments.engine.metrics import Metric, by_name

_PAPER = "Khakzar et al. 2021, section 3"
_ONE = (0.0, 1.0)
_PER_CENT = (0.0, 100.0)
_POSITIVE = (0.0, float("inf"))

_TRAINING = (
    Metric(
        name="test_accuracy",
        label="test accuracy",
        unit="%",
        range=_PER_CENT,
        better="higher",
        meaning="Per cent of the test images that are classified correctly.",
    ),
    Metric(
        name="val_accuracy",
        label="validation accuracy",
        unit="%",
        range=_PER_CENT,
        better="higher",
        meaning="Per cent of the validation images that are classified correctly.",
    ),
    Metric(
        name="train_loss",
        label="training loss",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning="Mean loss over the training images of an epoch.",
    ),
    Metric(
        name="val_loss",
        label="validation loss",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning="Mean loss over the validation images after an epoch.",
    ),
)

_PATH_ANALYSIS = (
    Metric(
        name="base_sparsity",
        label="dead neurons of the network",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of all neurons that are 0 on the image in the unrestricted network.",
        source=_PAPER,
    ),
    Metric(
        name="realised_sparsity",
        label="realised sparsity",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of all neurons that the pathway prunes: the requested sparsity or more, as ties are "
        "never split.",
    ),
    Metric(
        name="dead_share",
        label="dead share",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the pathway's neurons that are dead in the unrestricted network.",
        source=_PAPER,
    ),
    Metric(
        name="jaccard",
        label="Jaccard index",
        unit="",
        range=_ONE,
        better=None,
        meaning="Neurons in both of two pathways over neurons in either; the other method follows the slash.",
        source=_PAPER,
    ),
    Metric(
        name="response_change",
        label="relative change of the probability",
        unit="",
        range=(-1.0, float("inf")),
        better=None,
        meaning="(p′ − p) / p of the target class: −1 when the restricted network loses the response.",
        source=_PAPER,
    ),
    Metric(
        name="class_kept",
        label="class kept",
        unit="%",
        range=_PER_CENT,
        better="higher",
        meaning="Per cent of the images for which the restricted network predicts the same class.",
    ),
    Metric(
        name="residual",
        label="completeness residual",
        unit="",
        range=(0.0, float("inf")),
        better="lower",
        meaning="|Σ contributions − (f(x) − f(z ← 0))| / |f(x) − f(z ← 0)| at the site behind the slash: error "
        "of the quadrature.",
    ),
    Metric(
        name="site_kept",
        label="neurons kept",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the neurons of one site that the pathway keeps.",
    ),
    Metric(
        name="site_dead_share",
        label="dead share",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="As dead_share, at one site.",
    ),
    Metric(
        name="site_jaccard",
        label="Jaccard index",
        unit="",
        range=_ONE,
        better=None,
        meaning="As jaccard, at one site.",
    ),
)

_ROAR_SOURCE = "Hooker et al. 2019; Khakzar et al. 2021, section 4"


def _roar(
    name: str, label: str, meaning: str, better: Literal["higher", "lower"] | None = None, **changes: Any
) -> Metric:
    """Metric of a retraining; per cent, over seeds, unless said otherwise."""
    usual = {"unit": "%", "range": _PER_CENT, "source": _ROAR_SOURCE, "over": "seeds"}
    return Metric(name=name, label=label, meaning=meaning, better=better, **{**usual, **changes})


_ROAR = (
    _roar(
        "roar_accuracy",
        "ROAR: test accuracy",
        "Per cent of the test images that are classified correctly after retraining without the most relevant "
        "pixels.",
        "lower",
    ),
    _roar(
        "kar_accuracy",
        "KAR: test accuracy",
        "Per cent of the test images that are classified correctly after retraining on the most relevant pixels "
        "alone.",
        "higher",
    ),
    _roar(
        "roar_val_accuracy",
        "ROAR: validation accuracy",
        "As roar_accuracy, of the validation images: that of the epoch which is tested.",
        "lower",
    ),
    _roar(
        "kar_val_accuracy",
        "KAR: validation accuracy",
        "As kar_accuracy, of the validation images: that of the epoch which is tested.",
        "higher",
    ),
    _roar(
        "untouched_accuracy",
        "untouched images: test accuracy",
        "Per cent of the test images that are classified correctly after retraining on images with all of their "
        "pixels.",
        "higher",
    ),
    _roar(
        "within_interval_of_untouched",
        "control",
        "1 if the accuracy of the explained network lies in the 95 % prediction interval of the retrainings on "
        "untouched images, else 0.",
        unit="",
        range=_ONE,
        source="",
    ),
    _roar(
        "roar_area",
        "ROAR: mean accuracy",
        "Area under the curve of roar_accuracy, as mean accuracy over the shares from 0 to the largest.",
        "lower",
    ),
    _roar(
        "kar_area",
        "KAR: mean accuracy",
        "Area under the curve of kar_accuracy, as mean accuracy over the shares from the smallest to the largest.",
        "higher",
    ),
    _roar(
        "roar_difference",
        "ROAR: difference of accuracies",
        "Accuracy of one method minus that of the method behind the slash, in percentage points, paired by share "
        "and seed, mean over the shares.",
        "lower",
        range=(-100.0, 100.0),
        source="",
    ),
    _roar(
        "kar_difference",
        "KAR: difference of accuracies",
        "As roar_difference, of kar_accuracy.",
        "higher",
        range=(-100.0, 100.0),
        source="",
    ),
    _roar(
        "roar_rank_agreement",
        "Kendall's τ",
        "Agreement of the orders in which the two criteria behind the slashes put the methods, by area, without "
        "the controls: 1 the same order, 0 unrelated, −1 the reverse.",
        unit="",
        range=(-1.0, 1.0),
        source="Kendall 1938",
    ),
)

METRICS: dict[str, Metric] = by_name((*_TRAINING, *_PATH_ANALYSIS, *_ROAR))
"""All entries by name."""


def pick(*names: str) -> tuple[Metric, ...]:
    """Entries of the given names, in that order."""
    return tuple(METRICS[name] for name in names)
