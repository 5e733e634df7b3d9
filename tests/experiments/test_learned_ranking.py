"""The paper's questions, asked of the learned ranking: its numbers in every experiment are the library's."""

from __future__ import annotations

import pytest
import torch

import cpath
from cpath.attribution import PathwayGradient
from cpath.methods import LearnedRanking
from experiments.engine.measuring import read_per_image
from tests.rows import row_of

METHOD = ["method=learned_ranking", "method.learned_ranking.steps=3", "method.learned_ranking.nodes=2"]
SETTINGS = "+attribution.learned_ranking={steps: 3, nodes: 2, sparsity: 80}"
OURS, MAPS = LearnedRanking(steps=3, nodes=2), PathwayGradient(method=LearnedRanking(steps=3, nodes=2), sparsity=80)
"""What both say."""


def test_dead_share_and_overlap_of_its_pathways(job, trained):
    made = job(
        *("experiment=path_analysis", "experiment.images=4", "sparsity=20", "+method.neuron_mct={}"),
        *(*METHOD, "method.learned_ranking.dead_units=true", "method.learned_ranking.learning_rate=1"),
    )
    table = made.run()
    images, model = made.sample(4).batch(slice(0, 4)), made.model
    pathway = cpath.find_pathway(
        model, images, LearnedRanking(steps=3, nodes=2, dead_units=True, learning_rate=1), 20
    )
    with cpath.observe(model) as seen, torch.no_grad():
        model(images)
    dead = 100 * pathway.dead_share(seen.activations).mean().item()
    assert 1 < row_of(table, "learned_ranking", "dead_share", 20).value == pytest.approx(dead)
    overlap = pathway.jaccard(cpath.find_pathway(model, images, "neuron_mct", 20)).mean().item()
    assert 0.1 < row_of(table, "learned_ranking", "jaccard/neuron_mct", 20).value == pytest.approx(overlap)


def test_its_pathways_are_decoded(job, trained):
    table = job(
        *("experiment=path_decoding", "experiment.images=1", "experiment.steps=2", "sparsity=80", *METHOD)
    ).run()
    assert 0 <= row_of(table, "learned_ranking", "probability_original", 80).value <= 1
    assert row_of(table, "learned_ranking", "probability_original", 80).n == 1


def test_its_maps_are_saliency_maps_and_rank_pixels(job, trained):
    shown = job("experiment=saliency", "experiment.images=2", "attribution=gradients", SETTINGS)
    assert shown.attributions["learned_ranking"] == MAPS
    assert "learned_ranking" in set(shown.run().method)
    made = job(
        *("experiment=degradation", "experiment.images=3", "percent=[10,50]", "experiment.road.images=0"),
        *("attribution=gradients", SETTINGS),
    )
    images = made.sample(3).batch(slice(0, 3))
    found = cpath.evaluation.degrade(
        made.model, images, cpath.attribute(made.model, images, MAPS), percent=[10, 50]
    )
    assert row_of(made.run(), "learned_ranking", "lerf_change", 10).value == pytest.approx(
        found.change[:, 0].mean().item(), rel=1e-4
    )


def test_its_maps_are_checked_for_sanity(job, trained):
    made = job(
        *("experiment=sanity_checks", "experiment.images=2", "experiment.draws=1", "experiment.blocks=[fc]"),
        *("experiment.measures=[spearman]", "experiment.strip.images=0", "attribution=gradients", SETTINGS),
    )
    made.run()
    each = read_per_image(made.folder)
    values = each[(each.method == "learned_ranking") & (each.metric == "spearman")].value
    assert len(values) == 2
    assert values.between(-1, 0.999).all()  # other weights, other maps


def test_its_maps_rank_pixels_for_retraining(configure):
    from experiments.engine.job import run
    from tests.experiments.roar.shared import TINY

    table = run(
        configure(
            *("experiment=roar", "percent=50", "attribution=learned_ranking", *TINY),
            *("attribution.learned_ranking.steps=2", "attribution.learned_ranking.nodes=2"),
        )
    )
    assert 0 <= row_of(table, "learned_ranking", "roar_accuracy", 50).value <= 100
