"""All metrics of the project: name, unit, range, direction, meaning and source of every number in its tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from experiments.engine.metric_entry import Metric, by_name

_PAPER = "Khakzar et al. 2021, section 3"
_ONE = (0.0, 1.0)
_PER_CENT = (0.0, 100.0)
_POSITIVE = (0.0, float("inf"))
_ANY = (float("-inf"), float("inf"))
_ROUNDS = "least and largest of the rounds"
_IMAGES_AND_DRAWS = "95 % interval over images and draws of the weights together"

DRAW = "/draw_"
"""Qualifier, with the draw's number from 1 behind it, of the numbers of images in one draw of the weights."""

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
        name="loss",
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
        name="empty_pathways",
        label="empty pathways",
        unit="%",
        range=_PER_CENT,
        better="lower",
        meaning="Per cent of the images for which the pathway keeps no neuron, as the largest scores tie or are "
        "zero: they have no dead share and, with another empty pathway, no overlap, and are left out of those "
        "means.",
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
        name="self_overlap",
        label="Jaccard index with itself",
        unit="",
        range=_ONE,
        better="higher",
        meaning=(
            "Jaccard index of a method's pathway with the one that it finds once every pixel is changed by one "
            "rounding: what is missing to 1 is chance, and no overlap with another method can mean more than this."
        ),
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
        meaning="|Σ contributions − (f(x) − f(z ← 0))| / |f(x) − f(z ← 0)| at the site behind the slash, or its "
        "mean over all sites: error of the quadrature.",
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

_PATH_DECODING = (
    Metric(
        name="dead",
        label="pictures without a gradient",
        unit="%",
        range=_PER_CENT,
        better="lower",
        meaning="Per cent of the images for which no picture could be made in the network: nothing that is active "
        "in it leads from any start to the class.",
    ),
    Metric(
        name="probability_own",
        label="probability in the own network",
        unit="",
        range=_ONE,
        better="higher",
        meaning="Probability that the picture gets for its class in the network that it was made in.",
        source=_PAPER,
    ),
    Metric(
        name="probability_original",
        label="probability in the original network",
        unit="",
        range=_ONE,
        better="higher",
        meaning="Probability that the picture gets for its class in the original network.",
        source=_PAPER,
    ),
    Metric(
        name="probability_others",
        label="mean probability in the others' networks",
        unit="",
        range=_ONE,
        better=None,
        meaning="Mean probability that the picture gets for its class in the pathways of the other methods.",
    ),
    Metric(
        name="response",
        label="response",
        unit="",
        range=_ANY,
        better=None,
        meaning="Logit that the picture gets for its class in the network behind the slash.",
    ),
    Metric(
        name="probability",
        label="probability",
        unit="",
        range=_ONE,
        better=None,
        meaning="Probability that the picture gets for its class in the network behind the slash.",
    ),
    Metric(
        name="top_channel",
        label="channel of the top neuron",
        unit="",
        range=_POSITIVE,
        better=None,
        meaning="Number, from 0, of the channel of the neuron that the method scores highest at the last "
        "convolutional site, for one image.",
        source=_PAPER,
    ),
)

_LINEARITY = (
    Metric(
        name="affine_radius",
        label="radius of the affine ball (ℓ2)",
        unit="",
        range=_POSITIVE,
        better=None,
        meaning="Distance, in units of the normalised image, that it can move in any direction before a kept "
        "neuron changes sign; images without such a neuron are left out of the mean.",
        source="Khakzar et al. 2021, section 4",
    ),
    Metric(
        name="affine_everywhere",
        label="images with an affine network everywhere",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the images for which no kept neuron depends on the image: the ball has no end.",
    ),
)

_EFFECTIVE = "Qiu et al., Adversarial defense through network profiling based path extraction, CVPR 2019"
_RANDOM_BESIDE = " Behind the slash, of as many random units at each site."

_CLASS_PATHWAYS = (
    Metric(
        name="class_jaccard",
        label="Jaccard index of two classes",
        unit="",
        range=_ONE,
        better=None,
        meaning="Units in the pathways of both classes over units in either; the other class follows the slash. "
        "Without one, the mean over all pairs.",
        source=_EFFECTIVE,
        over="pairs of classes",
    ),
    Metric(
        name="class_jaccard_chance",
        label="Jaccard index of two random sets",
        unit="",
        range=_ONE,
        better=None,
        meaning="The Jaccard index that random sets of the sizes of the classes' pathways would have; mean over "
        "all pairs.",
        over="pairs of classes",
    ),
    Metric(
        name="site_class_jaccard",
        label="Jaccard index of two classes",
        unit="",
        range=_ONE,
        better=None,
        meaning="As class_jaccard, at the site behind the slash.",
        over="pairs of classes",
    ),
    Metric(
        name="site_class_jaccard_chance",
        label="Jaccard index of two random sets",
        unit="",
        range=_ONE,
        better=None,
        meaning="As class_jaccard_chance, at the site behind the slash.",
        over="pairs of classes",
    ),
    Metric(
        name="class_units",
        label="units of the class",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of all units that the pathway of the class holds.",
        over="images of the class that were counted",
    ),
    Metric(
        name="shared_units",
        label="units in so many classes",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the units in any class's pathway that are in those of exactly so many classes.",
        over="classes",
    ),
    Metric(
        name="specific_units",
        label="units of one class alone",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of all units that are in more than a share of the class's pathways, and in few of every "
        "other class.",
        over="images of the class that were counted",
    ),
    Metric(
        name="site_specific_units",
        label="units of one class alone",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the units of the site behind the slash that speak for one class alone, of any class.",
        over="classes",
    ),
    Metric(
        name="class_stability",
        label="Jaccard index with other images",
        unit="",
        range=_ONE,
        better="higher",
        meaning="Jaccard index of a class's pathway with that of as many other images of the class, mean over "
        "classes, by the number of images of all classes on either side.",
        over="draws",
        interval="95 % t-interval over draws of the images, which share images",
    ),
    Metric(
        name="typicality",
        label="typicality",
        unit="",
        range=_ONE,
        better=None,
        meaning="Mean frequency, among the class's pathways, of the units of the image's pathway, in parts of the "
        "largest that as many units can have. Behind the slash: of images that are classified correctly, or "
        "wrongly.",
        over="images held out",
    ),
    Metric(
        name="typical_class",
        label="most typical of its class",
        unit="%",
        range=_PER_CENT,
        better="higher",
        meaning="Per cent of the images whose pathway is more typical of the class that it was found for than of "
        "any other.",
        over="images held out",
    ),
    Metric(
        name="class_accuracy",
        label="accuracy on the class",
        unit="%",
        range=_PER_CENT,
        better="higher",
        meaning="Per cent of a class's images that the network predicts as the class, when it is restricted to the "
        "class's pathway." + _RANDOM_BESIDE,
        source=_EFFECTIVE,
        over="images held out",
    ),
    Metric(
        name="other_accuracy",
        label="accuracy on other classes",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the images of other classes that are classified correctly by the network restricted "
        "to a class's pathway; without a class, mean over those." + _RANDOM_BESIDE,
        source=_EFFECTIVE,
        over="images held out",
    ),
    Metric(
        name="says_class",
        label="others taken for the class",
        unit="%",
        range=_PER_CENT,
        better="lower",
        meaning="Per cent of the images of other classes that the network restricted to a class's pathway takes "
        "for the class: where it is 100, accuracy on the class says nothing." + _RANDOM_BESIDE,
        over="images held out",
    ),
)

_CDRP = "Wang et al., Interpret neural networks by identifying critical data routing paths, CVPR 2018"
_FOUND = (
    "Behind the slashes: what is to be found (misclassified images, the attack, the kind of foreign inputs), and "
    "the score: the distance from the class's pathway, or the network's own certainty."
)

_DETECTION = (
    Metric(
        name="auroc",
        label="AUROC",
        unit="",
        range=_ONE,
        better="higher",
        meaning="Probability that an input that should be found has a higher score than one that should not; 0.5 "
        "is chance. " + _FOUND,
        source=_CDRP,
        over="inputs to be found",
        interval="95 % bootstrap interval over inputs of both kinds",
    ),
    Metric(
        name="fpr95",
        label="FPR at 95 % TPR",
        unit="%",
        range=_PER_CENT,
        better="lower",
        meaning="Per cent of the inputs that should not be found which are found at the threshold that finds 95 % "
        "of those that should. " + _FOUND,
        source="Liang et al., ICLR 2018",
        over="inputs to be found",
        interval="95 % bootstrap interval over inputs of both kinds",
    ),
    Metric(
        name="site_auroc",
        label="AUROC",
        unit="",
        range=_ONE,
        better="higher",
        meaning="As auroc, of the atypicality of the pathway at the site behind the last slash.",
        over="inputs to be found",
        interval="95 % bootstrap interval over inputs of both kinds",
    ),
    Metric(
        name="attack_success",
        label="attacks that change the class",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the correctly classified images whose predicted class the attack behind the slash "
        "changes; the others are left out.",
    ),
    Metric(
        name="suspicion",
        label="score of an input",
        unit="",
        range=_ANY,
        better=None,
        meaning="The score behind the slash of each input, higher for a stranger one: 1 − typicality, 1 − Jaccard "
        "index with the class's pathway, minus the logarithm of the largest probability, energy, entropy.",
    ),
)

_MIB = "Mueller et al., MIB, ICML 2025"

_FAITHFULNESS = (
    Metric(
        name="sufficiency",
        label="sufficiency F",
        unit="",
        range=_ANY,
        better=None,
        meaning="(f(keep the best units) − f(∅)) / (f(x) − f(∅)), f being the margin of the class over the best "
        "other class of the whole network, or the response asked for, and ∅ all units at their baseline: "
        "1 if the best units alone answer as the whole network does, above 1 if they overshoot.",
        source=_MIB,
    ),
    Metric(
        name="necessity",
        label="necessity",
        unit="",
        range=_ANY,
        better=None,
        meaning="(f(x) − f(remove the best units)) / (f(x) − f(∅)): 1 if nothing is left of the answer without "
        "the best units, 0 if it does not change.",
    ),
    Metric(
        name="cpr",
        label="CPR: mean sufficiency",
        unit="",
        range=_ANY,
        better=None,
        meaning="Mean of the sufficiency over the sizes. What overshoots has a large one.",
        source=_MIB,
    ),
    Metric(
        name="cmd",
        label="CMD: mean |1 − sufficiency|",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning="Mean distance of the sufficiency from 1 over the sizes: 0 if the best units alone answer as the "
        "whole network at every size, 1 if they answer as the empty one. "
        "Behind a slash, of a control: the same units on a copy of the input, where the whole network gives its "
        "answer there too (transfer: the mean over all copies); "
        "other_answer: the method asked for the class with the second largest logit, where 0 is a restricted "
        "network that prefers it by as much as the whole network prefers its own; random_weights: the method in a "
        "network that has learned nothing.",
        source=_MIB,
    ),
    Metric(
        name="cmd_rise",
        label="CMD of the control − CMD",
        unit="",
        range=_ANY,
        better=None,
        meaning="CMD of the control behind the slash minus CMD, on the same inputs. Transfer: near 0 for units "
        "that carry more than this one input. Other answer: large for a method that finds what the network itself "
        "says.",
    ),
    Metric(
        name="necessity_cpr",
        label="mean necessity",
        unit="",
        range=_ANY,
        better=None,
        meaning="Mean of the necessity over the sizes.",
    ),
    Metric(
        name="necessity_cmd",
        label="mean |1 − necessity|",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning="Mean distance of the necessity from 1 over the sizes: 0 if the answer is gone at every size, 1 "
        "if the best units can be removed without a change.",
    ),
    Metric(
        name="units_kept",
        label="units kept",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of all units that were kept: the size asked for, or less where scores tie or are zero.",
    ),
    Metric(
        name="no_rise",
        label="inputs without a rise",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the inputs whose answer f(x) does not differ from that of the empty network, f(∅), "
        "by a thousandth of the larger one: they have no faithfulness and are left out of all means.",
    ),
    Metric(
        name="answer",
        label="margin, or response",
        unit="",
        range=_ANY,
        better=None,
        meaning="f of the whole network, or of the network with all units at their baseline (behind the slash).",
    ),
)

_QUADRATURE = (
    Metric(
        name="jaccard_with_reference",
        label="Jaccard index with the reference",
        unit="",
        range=_ONE,
        better="higher",
        meaning="Overlap of the rule's pathway with that of the reference rule.",
    ),
)

_RIVALS = {
    "floor": "the passes that the work must contain",
    "captum": "Captum",
    "naive": "a naive loop for the same purpose",
}


def _against(rival: str, words: str) -> tuple[Metric, ...]:
    """Metrics of work timed beside a rival of that kind."""
    seconds = Metric(
        name=f"ratio_to_{rival}",
        label=f"time / time of {words}",
        unit="",
        range=_POSITIVE,
        better="lower",
        meaning=f"Median time over that of {words}, on the clock.",
        over="rounds",
        interval=_ROUNDS,
    )
    processor = replace(
        seconds,
        name=f"processor_ratio_to_{rival}",
        label=f"processor time / processor time of {words}",
        meaning=f"Median time of the processor over that of {words}: hardly disturbed by other processes. "
        "On a CPU only.",
    )
    limit = replace(
        seconds,
        name=f"limit_to_{rival}",
        label="limit of the ratio",
        meaning=f"Largest time over that of {words} that the project allows itself.",
    )
    return seconds, processor, limit


_BENCHMARK = (
    Metric(
        name="seconds",
        label="time",
        unit="s",
        range=_POSITIVE,
        better="lower",
        meaning="Median time on the clock.",
        over="rounds",
        interval=_ROUNDS,
    ),
    Metric(
        name="peak_megabytes",
        label="peak memory",
        unit="MB",
        range=_POSITIVE,
        better="lower",
        meaning="Memory at the peak beyond what was taken before; on a CPU that of the round that warms up.",
        over="rounds",
    ),
    *(metric for rival, words in _RIVALS.items() for metric in _against(rival, words)),
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
        "map. Each image counts with its mean over the draws of the weights; n counts images, each of them in "
        "all draws. The interval is for other images and other draws (Student's t on the variance over images plus "
        "that over draws); with a single draw it is over images alone. sd_of_draws: standard deviation of the "
        "draws' means.",
        source=_ADEBAYO,
        interval=_IMAGES_AND_DRAWS,
    ),
    Metric(
        name="spearman_abs",
        label="Spearman of magnitudes",
        unit="",
        range=_CORRELATION,
        better="lower",
        meaning="As spearman, of the magnitudes of the maps.",
        source=_ADEBAYO,
        interval=_IMAGES_AND_DRAWS,
    ),
    Metric(
        name="ssim",
        label="SSIM",
        unit="",
        range=_CORRELATION,
        better="lower",
        meaning="As spearman, but the structural similarity of the maps scaled to 0 to 1 (window of 5 pixels).",
        source=_ADEBAYO,
        interval=_IMAGES_AND_DRAWS,
    ),
    Metric(
        name="hog",
        label="HOG correlation",
        unit="",
        range=_CORRELATION,
        better="lower",
        meaning="As spearman, but Pearson's correlation of histograms of oriented gradients (cells of 16 pixels).",
        source=_ADEBAYO,
        interval=_IMAGES_AND_DRAWS,
    ),
    Metric(
        name="spearman_random_map",
        label="Spearman of a random map",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="Level without any similarity: spearman of the original map with its own values in random places.",
        interval=_IMAGES_AND_DRAWS,
    ),
    Metric(
        name="spearman_abs_random_map",
        label="Spearman of magnitudes of a random map",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="As spearman_random_map, of the magnitudes.",
        interval=_IMAGES_AND_DRAWS,
    ),
    Metric(
        name="ssim_random_map",
        label="SSIM of a random map",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="As spearman_random_map, of ssim.",
        interval=_IMAGES_AND_DRAWS,
    ),
    Metric(
        name="hog_random_map",
        label="HOG correlation of a random map",
        unit="",
        range=_CORRELATION,
        better=None,
        meaning="As spearman_random_map, of hog.",
        interval=_IMAGES_AND_DRAWS,
    ),
    Metric(
        name="maps_left_out",
        label="maps left out",
        unit="%",
        range=_PER_CENT,
        better=None,
        meaning="Per cent of the maps, of all images in all draws of the weights, that the measure behind the "
        "slash has no value for, as they are constant: they are left out of its mean. n counts all images; no row "
        "where no map is left out.",
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
        "pixels. n counts retrainings: the seeds, times the explained networks where there are several. The "
        "interval is over seeds, and over explained networks too where there are several.",
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

METRICS: dict[str, Metric] = by_name(
    (
        *_TRAINING,
        *_PATH_ANALYSIS,
        *_PATH_DECODING,
        *_LINEARITY,
        *_CLASS_PATHWAYS,
        *_DETECTION,
        *_FAITHFULNESS,
        *_QUADRATURE,
        *_BENCHMARK,
        *_DEGRADATION,
        *_SANITY_CHECKS,
        *_SALIENCY,
        *_ROAR,
    )
)
"""All entries by name."""


def pick(*names: str) -> tuple[Metric, ...]:
    """Look up metrics of the project.

    Args:
        names: of the metrics.

    Returns:
        Their entries, in the same order.
    """
    return tuple(METRICS[name] for name in names)
