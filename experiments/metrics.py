"""All metrics of the project: name, unit, range, direction, meaning and source of every number in its tables."""

from __future__ import annotations

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

_SAMEK = "Samek et al. 2017; Khakzar et al. 2021, section 4"
_ROAD = "Rong et al. 2022 (ROAD)"
_ADEBAYO = "Adebayo et al. 2018; Khakzar et al. 2021, section 4"
_CORRELATION = (-1.0, 1.0)

_DEGRADATION = (
    Metric(
        name="lerf_change",
        label="|p − p′| / p",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning="Relative change of the probability of the predicted class when the least relevant pixels are set "
        "to the mean colour.",
        source=_SAMEK,
    ),
    Metric(
        name="morf_change",
        label="|p − p′| / p",
        unit="",
        range=_POSITIVE,
        better="higher",
        meaning="As lerf_change, when the most relevant pixels are removed.",
        source=_SAMEK,
    ),
    Metric(
        name="lerf_area",
        label="mean change",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning="Area under the curve of lerf_change from 0 to the given per cent of the pixels: its mean height.",
        source=_SAMEK,
    ),
    Metric(
        name="morf_area",
        label="mean change",
        unit="",
        range=_POSITIVE,
        better="higher",
        meaning="As lerf_area, of morf_change.",
        source=_SAMEK,
    ),
    Metric(
        name="lerf_change_road",
        label="|p − p′| / p",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning="As lerf_change, with noisy linear imputation as fill.",
        source=_ROAD,
    ),
    Metric(
        name="morf_change_road",
        label="|p − p′| / p",
        unit="",
        range=_POSITIVE,
        better="higher",
        meaning="As morf_change, with noisy linear imputation as fill.",
        source=_ROAD,
    ),
    Metric(
        name="lerf_area_road",
        label="mean change",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning="As lerf_area, with noisy linear imputation as fill.",
        source=_ROAD,
    ),
    Metric(
        name="morf_area_road",
        label="mean change",
        unit="",
        range=_POSITIVE,
        better="higher",
        meaning="As morf_area, with noisy linear imputation as fill.",
        source=_ROAD,
    ),
    Metric(
        name="rank_agreement",
        label="Kendall's τ between the orders of the methods",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="Agreement of the two criteria behind the slashes on the order of the methods, without the "
        "controls: 1 for the same order, −1 for the reverse. Over images (LeRF, MoRF) or seeds (ROAR, KAR); no "
        "interval between two experiments.",
        over="images or seeds",
    ),
)

_SANITY_CHECKS = (
    Metric(
        name="spearman",
        label="Spearman",
        unit="",
        range=_CORRELATION,
        better="lower",
        meaning="Rank correlation of the map of the network that is randomised down to a block with the original "
        "map, as mean over the draws of the weights; sd_of_draws: standard deviation of the draws' means.",
        source=_ADEBAYO,
    ),
    Metric(
        name="spearman_abs",
        label="Spearman of magnitudes",
        unit="",
        range=_CORRELATION,
        better="lower",
        meaning="As spearman, of the magnitudes of the maps.",
        source=_ADEBAYO,
    ),
    Metric(
        name="ssim",
        label="SSIM",
        unit="",
        range=_CORRELATION,
        better="lower",
        meaning="As spearman, but the structural similarity of the maps scaled to 0 to 1 (window of 5 pixels).",
        source=_ADEBAYO,
    ),
    Metric(
        name="hog",
        label="HOG correlation",
        unit="",
        range=_CORRELATION,
        better="lower",
        meaning="As spearman, but Pearson's correlation of histograms of oriented gradients (cells of 16 pixels).",
        source=_ADEBAYO,
    ),
    Metric(
        name="spearman_random_map",
        label="Spearman of a random map",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="Level without any similarity: spearman of the original map with its own values in random places.",
    ),
    Metric(
        name="spearman_abs_random_map",
        label="Spearman of magnitudes of a random map",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="As spearman_random_map, of the magnitudes.",
    ),
    Metric(
        name="ssim_random_map",
        label="SSIM of a random map",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="As spearman_random_map, of ssim.",
    ),
    Metric(
        name="hog_random_map",
        label="HOG correlation of a random map",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="As spearman_random_map, of hog.",
    ),
)

_SALIENCY = (
    Metric(
        name="class_probability",
        label="probability of the predicted class",
        unit="",
        range=_ONE,
        better=None,
        meaning="Softmax probability of the class that the network predicts for an image.",
    ),
    Metric(
        name="similarity_to_gradient",
        label="Spearman of magnitudes",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="Rank correlation of the magnitudes of the pathway gradient with those of the gradient of the "
        "whole network.",
    ),
)

METRICS: dict[str, Metric] = by_name((*_TRAINING, *_PATH_ANALYSIS, *_DEGRADATION, *_SANITY_CHECKS, *_SALIENCY))
"""All entries by name."""


def pick(*names: str) -> tuple[Metric, ...]:
    """Entries of the given names, in that order."""
    return tuple(METRICS[name] for name in names)
