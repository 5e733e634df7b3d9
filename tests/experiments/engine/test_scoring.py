"""How many scorings several sparsities need."""

from __future__ import annotations

import pytest
import torch

import cpath
from cpath.methods import GreedyReleased, NeuronMCT
from experiments.engine.cache import is_complete
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.scoring import Scoring, Search, plan_searches
from tests import zoo


def test_one_scoring_serves_all_sparsities_unless_the_method_searches_for_one():
    found = plan_searches({"neuron_mct": NeuronMCT(), "greedy_released": GreedyReleased(rounds=2)}, [80, 90, 99])
    assert [(search.name, search.sparsities) for search in found] == [
        ("neuron_mct", [80, 90, 99]),
        ("greedy_released", [80]),
        ("greedy_released", [90]),
        ("greedy_released", [99]),
    ]
    assert found[2].method == GreedyReleased(rounds=2), "its default: the method as configured"
    assert found[1].method == GreedyReleased(rounds=2, sparsity=80)


def test_its_pathways_are_those_that_find_pathway_gives():
    model, images = zoo.make("sequential"), zoo.images()
    methods = {name: zoo.quick(name) for name in ("neuron_mct", "greedy_released", "active")}
    for search in plan_searches(methods, [50, 80]):
        scores = cpath.score(model, images, search.method)
        for sparsity, pathway in search.pathways(scores):
            expected = cpath.find_pathway(model, images, methods[search.name], sparsity)
            assert torch.equal(pathway.flat, expected.flat), (search, sparsity)


def test_sparsities_that_hardly_differ_are_all_there():
    (search,) = plan_searches({"neuron_mct": NeuronMCT()}, [90.00001, 90.00002, 99.99999])
    model, images = zoo.make("sequential"), zoo.images()
    found = [sparsity for sparsity, _ in search.pathways(cpath.score(model, images, search.method))]
    assert found == [90.00001, 90.00002, 99.99999]


class _Counting:
    """Stands for `cpath.score`, and counts its calls."""

    def __init__(self, monkeypatch):
        self.calls: list[str] = []
        self.score = cpath.score
        monkeypatch.setattr(cpath, "score", self)

    def __call__(self, model, inputs, method, **settings):
        self.calls.append(method.name)
        return self.score(model, inputs, method, **settings)


SETTINGS = ["method=neuron_intgrad", "method.neuron_intgrad.nodes=2", "experiment.images=3", "sparsity=[80,90]"]


def _scoring(job: Job, keep_gb: float = 1.0) -> tuple[Scoring, Batch, Search]:
    images = job.sample(3)
    searches = plan_searches(job.methods, [80, 90])
    scoring = Scoring.planned(job, images, searches, max_batch=4, keep_gb=keep_gb)
    (batch,) = images.batches(3)
    return scoring, batch, searches[0]


def test_costly_scores_are_kept_and_read_by_other_jobs_as_they_were(trained, job, monkeypatch):
    counting = _Counting(monkeypatch)
    scoring, batch, search = _scoring(job(*SETTINGS))
    assert scoring.keep
    made = scoring.scores(batch, search)
    other, batch, search = _scoring(job(*SETTINGS, "experiment=path_analysis", "experiment.by_site=false"))
    read = other.scores(batch, search)
    assert counting.calls == ["neuron_intgrad"]
    assert torch.equal(made.flat, read.flat)
    assert made.residual.keys() == read.residual.keys()
    (folder,) = (trained / "artifacts" / "scores").glob("neuron_intgrad-resnet8_narrow-digits-*")
    assert is_complete(folder)


@pytest.mark.parametrize("changed", [["method.neuron_intgrad.nodes=3"], ["seed=1"], ["sites=[relu,gelu]"]])
def test_other_settings_have_other_scores(trained, job, changed):
    keys = []
    for settings in ([], changed):
        scoring, batch, search = _scoring(job(*SETTINGS, "recipe.epochs=1", *settings))
        keys.append(scoring._key(batch, search.method))
    assert keys[0] != keys[1]


@pytest.mark.parametrize(("settings", "keep_gb"), [(SETTINGS, 0.0), (SETTINGS, 1e-9), (["method=random"], 1.0)])
def test_scores_that_are_cheap_or_too_large_are_not_kept(trained, job, monkeypatch, settings, keep_gb):
    counting = _Counting(monkeypatch)
    scoring, batch, search = _scoring(job(*settings), keep_gb)
    assert not scoring.keep
    assert torch.equal(scoring.scores(batch, search).flat, scoring.scores(batch, search).flat)
    assert len(counting.calls) == 2
    assert not (trained / "artifacts" / "scores").exists()


def test_scores_of_a_method_with_a_setting_that_no_key_can_hold_are_not_kept(trained, job, caplog):
    caplog.set_level("INFO")
    made = job(*SETTINGS)
    object.__setattr__(made.methods["neuron_intgrad"], "nodes", object())
    images = made.sample(3)
    scoring = Scoring.planned(made, images, plan_searches(made.methods, [80]), max_batch=4, keep_gb=1)
    assert not scoring.keep
    assert "scores are not kept: a setting of neuron_intgrad is no text, number or list of them" in caplog.text
