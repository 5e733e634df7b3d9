"""How many scorings several sparsities need."""

from __future__ import annotations

import torch

import cpath
from cpath.methods import GreedyPublished, NeuronMCT
from experiments.engine.scoring import plan_searches
from tests import zoo


def test_one_scoring_serves_all_sparsities_unless_the_method_searches_for_one():
    found = plan_searches({"neuron_mct": NeuronMCT(), "greedy_published": GreedyPublished(rounds=2)}, [80, 90, 99])
    assert [(search.name, search.label, search.sparsities) for search in found] == [
        ("neuron_mct", "neuron_mct", [80, 90, 99]),
        ("greedy_published", "greedy_published@80", [80]),
        ("greedy_published", "greedy_published", [90]),  # its default: the method as configured
        ("greedy_published", "greedy_published@99", [99]),
    ]
    assert found[1].method == GreedyPublished(rounds=2, sparsity=80)


def test_its_pathways_are_those_that_find_pathway_gives():
    model, images = zoo.make("sequential"), zoo.images()
    methods = {name: zoo.quick(name) for name in ("neuron_mct", "greedy_published", "active")}
    for search in plan_searches(methods, [50, 80]):
        scores = cpath.score(model, images, search.method)
        for sparsity, pathway in search.pathways(scores):
            expected = cpath.find_pathway(model, images, methods[search.name], sparsity)
            assert torch.equal(pathway.flat, expected.flat), (search.label, sparsity)
