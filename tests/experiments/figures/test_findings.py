"""Sentences of result: their numbers are those of the rows."""

from __future__ import annotations

import pandas as pd

from experiments.figures import findings
from experiments.figures.class_findings import class_pathway_findings, detection_findings
from tests.rows import made_row


def _sparsity(metric: str, at: float, **values: float) -> list[dict[str, object]]:
    return [made_row(method, metric, value, "sparsity", at) for method, value in values.items()]


def test_the_accuracy_is_that_of_the_test_and_the_best_epoch_is_named() -> None:
    epochs = [
        made_row("training", "val_accuracy", 80.0 + each, "epoch", epoch)
        for epoch, each in ((1, 0), (2, 9), (3, 5))
    ]
    table = pd.DataFrame([made_row("training", "test_accuracy", 91.25, half=1, n=40), *epochs])
    assert findings.training_findings(table) == {
        "training": "Test accuracy 91.2 % (90.2 to 92.2), n = 40; on the validation images at most 89 %, in epoch "
        "2 of 3."
    }


def test_pathways_are_ranked_at_the_paper_s_sparsity_and_controls_stand_beside() -> None:
    rows = [
        *_sparsity("dead_share", 90, neuron_mct=0, neuron_intgrad=0, greedy=45.4, random=40, active=0),
        *_sparsity("dead_share", 99, neuron_mct=99, greedy=1),
        *_sparsity("class_kept", 90, neuron_mct=75, greedy=0, random=10),
        *_sparsity("jaccard/greedy", 90, neuron_mct=0.1, random=0.9),
        *_sparsity("jaccard/neuron_intgrad", 90, neuron_mct=0.5),
        *_sparsity("site_kept/first", 90, neuron_intgrad=30, neuron_mct=90),
        *_sparsity("site_kept/last", 90, neuron_intgrad=3, neuron_mct=1),
        *_sparsity("site_dead_share/last", 90, neuron_intgrad=3, greedy=70),
        *_sparsity("site_jaccard/neuron_intgrad/first", 90, neuron_mct=0.4, greedy=0.1),
        *_sparsity("site_jaccard/neuron_intgrad/last", 90, neuron_mct=0.6, greedy=0.3),
    ]
    assert findings.path_analysis_findings(pd.DataFrame(rows)) == {
        "overlap": "At 90 % pruned: NeuronIntGrad and NeuronMCT overlap most (0.5), NeuronMCT and Greedy least "
        "(0.1); "
        "two random pathways of this size would by 0.0526.",
        "dead_share": "At 90 % pruned: The share of dead neurons is highest for Greedy (45.4 %), lowest for "
        "NeuronIntGrad and NeuronMCT (0 %); Random: 40 %, Active subnetwork: 0 %.",
        "responses": "At 90 % pruned: The share of images whose class survives is highest for NeuronMCT (75 %), "
        "lowest "
        "for Greedy (0 %); Random: 10 %.",
        "sites_kept": "At 90 % pruned: NeuronIntGrad keeps the largest share at first (30 %), the smallest at "
        "last (3 %).",
        "sites_overlap": "At 90 % pruned: The overlap with NeuronIntGrad, as mean over the sites, is highest for "
        "NeuronMCT (0.5), lowest for Greedy (0.2).",
        "sites_dead_share": "At 90 % pruned: The largest share of dead neurons is that of Greedy at last (70 %).",
    }


def test_distances_from_published_numbers_are_of_the_same_places() -> None:
    rows = [
        *_sparsity("dead_share", 90, greedy=45, dgr=10),
        *_sparsity("dead_share/published", 90, greedy=47, dgr=20),
    ]
    found = findings.path_analysis_findings(pd.DataFrame(rows))
    assert found["published"] == (
        "Dead share: 6 points from the published numbers in the mean, furthest for DGR (here 10 %, published 20 %)."
    )


def test_the_removal_of_pixels_is_ranked_where_the_paper_s_figure_ends() -> None:
    rows = [
        made_row(method, metric, value * up_to, x_name, up_to)
        for method, value in (("gbp", 0.01), ("gradcam", 0.002), ("random", 0.009))
        for metric, x_name in (("lerf_change", "percent_removed"), ("morf_area", "up_to_percent"))
        for up_to in (10.0, 90.0)
    ]
    rows.append(made_row("all", "rank_agreement/lerf/morf", -0.5, "up_to_percent", 90.0))
    assert findings.degradation_findings(pd.DataFrame(rows)) == {
        "degradation": "With 10 % of the pixels removed, LeRF (lower is better): the change is highest for GBP "
        "(0.1), "
        "lowest for GradCAM (0.02); Random: 0.09.",
        "areas": "Up to 90 % of the pixels, MoRF (higher is better): the area is highest for GBP (0.9), lowest for "
        "GradCAM (0.18); Random: 0.81.",
        "rank_agreement": "Agreement of the orders: LeRF and MoRF (τ = −0.5).",
    }


def test_the_course_of_the_randomisation_is_told_by_block() -> None:
    similar = {"gbp": (0.9, 0.8), "gradients": (0.4, 0.1), "neuron_mct": (0.6, -0.2)}
    rows = [
        made_row(method, "spearman_abs", value, "randomized_down_to", block)
        for method, values in similar.items()
        for block, value in zip(("fc", "conv1"), values, strict=True)
    ]
    assert findings.sanity_check_findings(pd.DataFrame(rows)) == {
        "sanity_checks": "With every block redrawn, the rank correlation of magnitudes is highest for GBP (0.8), "
        "lowest "
        "for NeuronMCT (−0.2).",
        "strip_*": "Mean over the images, the rank correlation falls below 0.5 at: fc (Gradients); conv1 "
        "(NeuronMCT); "
        "no block (GBP).",
    }


def test_of_a_pair_in_roar_the_one_with_the_lower_accuracy_is_ahead() -> None:
    rows = [
        made_row("gbp", "roar_difference/gradients", 4.0, half=1, n=3),
        made_row("gbp", "roar_difference/random", -6.0, half=1, n=3),
        made_row("gradients", "roar_difference/random", -9.0, half=10, n=3),
        *(
            made_row(name, "roar_accuracy", 50.0 + place, "percent_removed", 50)
            for place, name in enumerate(("gbp", "gradients", "random"))
        ),
        made_row("base", "test_accuracy", 90.0),
    ]
    found = findings.roar_findings(pd.DataFrame(rows))
    assert found == {
        "roar": "Without the 50 % most relevant pixels (lower is better), accuracy is highest for Gradients (51 "
        "%), "
        "lowest for GBP (50 %); Random: 52 %. On untouched images the explained network has 90 %.",
        "paired": "In ROAR, 2 of 3 pairs differ by an interval that excludes zero; GBP and Gradients are ahead of "
        "most "
        "others (1).",
    }


def test_decoded_pictures_and_gradients_are_told_with_the_number_of_images() -> None:
    rows = [
        *_sparsity("probability_original", 80, neuron_mct=0.5, input=0.9, random=0.1),
        *_sparsity("probability_original", 98, neuron_mct=0.25, input=0.9, random=0.1),
        *_sparsity("probability_own", 98, neuron_mct=0.75, random=0.1),
        *_sparsity("dead", 98, neuron_mct=40, random=0),
        *(
            made_row(name, "top_channel", channel, "image", image)
            for name, image, channel in (
                ("neuron_mct", "a", 3),
                ("greedy", "a", 3),
                ("neuron_mct", "b", 1),
                ("greedy", "b", 2),
            )
        ),
    ]
    found = findings.decoding_findings(pd.DataFrame(rows))
    assert found == {
        "speaks_for-80": "The probability in the original network is 0.5 for NeuronMCT; Random: 0.1; the images "
        "themselves get 0.9.",
        "speaks_for-98": "The probability in the original network is 0.25 for NeuronMCT; Random: 0.1; the images "
        "themselves get 0.9.",
        "decoded-98": "The probability in the own network is 0.75 for NeuronMCT; Random: 0.1. Images without a "
        "picture, "
        "as no gradient reaches the input: NeuronMCT 40 %.",
        "decoded-sweep-*": "As the network is pruned, the probability in the original network goes, in the mean "
        "over "
        "images, from 0.5 at 80 % to 0.25 at 98 % for NeuronMCT (n = 9); from 0.1 at 80 % to 0.1 at 98 % for "
        "Random "
        "(n = 9).",
        "top_neurons": "NeuronMCT and Greedy name the same channel on 1 of 2 images, the most of any two methods; "
        "all "
        "methods do on 1.",
    }
    assert findings.finding_of("decoded-sweep-2", found).startswith("As the network is pruned")
    assert findings.finding_of("decoded-80", found) == ""


def test_findings_on_classes_name_pairs_sites_and_controls():
    rows = [
        ("neuron_mct", "class", "cat", "class_jaccard/dog", 0.7),
        ("neuron_mct", "class", "cat", "class_jaccard/ship", 0.2),
        ("random", "class", "cat", "class_jaccard/ship", 0.9),
        ("neuron_mct", "images", "50", "class_stability", 0.5),
        ("neuron_mct", "images", "200", "class_stability", 0.8),
        *(("neuron_mct", "class", "cat", metric, value) for metric, value in CLASS_ACCURACIES.items()),
    ]
    found = class_pathway_findings(pd.DataFrame(rows, columns=["method", "x_name", "x", "metric", "value"]))
    assert found == {
        "similarity": "NeuronMCT: the Jaccard index of the pathways of two classes is highest for cat and "
        "dog (0.70), lowest for cat and ship (0.20).",
        "stability": "NeuronMCT: with 200 images the pathway of a class has a Jaccard index of 0.80 with the one "
        "from as many other images.",
        "restricted": "NeuronMCT: restricted to a class's pathway, the network is right on 80 % of that class (as "
        "many random units: 10 %), and takes 60 % of the other images for it, in the mean over classes.",
    }


CLASS_ACCURACIES = {"class_accuracy": 80.0, "class_accuracy/random": 10.0, "says_class": 60.0}


def test_findings_on_detection_hold_pathways_against_the_networks_output():
    rows = [
        ("network", "", "", "auroc/fgsm/energy", 0.7),
        ("network", "", "", "auroc/fgsm/entropy", 0.6),
        ("neuron_mct", "sparsity", "90.0", "auroc/fgsm/typicality", 0.8),
        ("neuron_mct", "sparsity", "80.0", "auroc/fgsm/typicality", 0.95),
        ("random", "sparsity", "90.0", "auroc/fgsm/typicality", 0.99),
        ("neuron_mct", "sparsity", "90.0", "fpr95/fgsm/typicality", 40.0),
        ("network", "", "", "fpr95/fgsm/energy", 60.0),
        ("neuron_mct", "sparsity", "90.0", "site_auroc/fgsm/relu1", 0.6),
        ("neuron_mct", "sparsity", "90.0", "site_auroc/fgsm/relu2", 0.85),
    ]
    found = detection_findings(pd.DataFrame(rows, columns=["method", "x_name", "x", "metric", "value"]))
    assert found == {
        "auroc": "AUROC, fgsm: pathways 0.80 against output 0.70 at best.",
        "fpr95": "False positives at 95 % found, fgsm: pathways 40 % against output 60 % at best.",
        "over_sparsity": "AUROC, fgsm: 0.95 at 80 % pruned (NeuronMCT).",
        "depth": "AUROC, fgsm: 0.85 at relu2.",
    }
