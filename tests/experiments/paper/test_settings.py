"""The papers' configurations: the settings of the released code, as docs/paper-settings.md lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpath.methods import Greedy, GreedyReleased
from experiments import CONF
from experiments.engine.config import Config, parse
from experiments.engine.job import Job
from experiments.engine.scoring import plan_searches
from experiments.paper.published import has_published_schedule, published
from experiments.paper.stages import composed_stage, paper_of
from tests.experiments.paper.conftest import paper

NEURONS = ("neuron_mct", "neuron_intgrad")


@pytest.fixture
def stages(tmp_path: Path, hydra):
    def make(name: str) -> dict[str, Config]:
        whole = parse(paper(tmp_path, f"paper={name}"))
        return {stage: parse(composed_stage(whole, each)) for stage, each in paper_of(whole).stages.items()}

    return make


def _sparsity(config: Config) -> set[float]:
    return {Job(config).attributions[name].sparsity for name in NEURONS}


def _decodes_as_published(config: Config, size: int) -> None:
    decoding = config.experiment
    assert (decoding.size, decoding.steps, decoding.learning_rate) == (size, 512, 0.05)
    assert (decoding.parametrisation, decoding.transforms) == ("pixel_uncorrelated", [])
    pathways, neurons = decoding._looks()
    assert neurons.parametrisation == "fourier"
    assert neurons.transforms == [{"_target_": "cpath.decoding.standard_transforms"}]
    assert pathways != neurons
    decoding._check_looks()
    assert config.method["dgr"]["iterations"] == 1000


def _prunes_as_published(config: Config) -> None:
    """``prune_greedy(1, 99)`` at every sparsity; the definition stands beside it."""
    methods = Job(config).methods
    released = [
        search for search in plan_searches(methods, config.experiment.sparsity) if "greedy_r" in search.name
    ]
    assert [(search.name, search.sparsities) for search in released] == [("greedy_released", [80, 90, 99])]
    method = released[0].method
    assert isinstance(method, GreedyReleased)
    assert (method.rounds, method.sparsity, method.round_zero) == (99, 99, True)
    assert methods["greedy"] == Greedy()


def _checks_sanity_as_published(config: Config) -> None:
    checks = config.experiment
    assert (checks.repredict, checks.images, checks.init, checks.std) == (True, 1000, "normal", 0.1)
    assert checks.blocks is None
    assert checks.draws >= 5
    assert _sparsity(config) == {70}


def test_imagenet_has_the_papers_settings(stages):
    made = stages("imagenet")
    networks = {name: config.model["architecture"] for name, config in made.items()}
    assert networks == {
        "path_analysis": "vgg16",
        "path_decoding": "vgg16",
        "saliency": "resnet50",
        "saliency_vgg16": "vgg16",
        "degradation": "resnet50",
        "sanity_checks": "resnet50",
    }
    assert {config.model["weights"] for config in made.values()} == {"IMAGENET1K_V1"}
    analysis = made["path_analysis"]
    assert (analysis.experiment.images, analysis.experiment.sparsity) == (1000, [80, 90, 99])
    _prunes_as_published(analysis)
    assert {"dgr", "dgr_random_init", "random", *NEURONS} <= set(analysis.method)
    assert made["path_decoding"].experiment.sparsity == [98]
    _decodes_as_published(made["path_decoding"], 128)
    assert _sparsity(made["saliency"]) == {75}
    assert _sparsity(made["saliency_vgg16"]) == {90}
    assert Job(made["saliency_vgg16"]).attributions["gradcam"].layer == "features"
    assert Job(made["saliency"]).attributions["gradcam"].layer is None
    assert made["saliency_vgg16"].experiment.sparsity == [0, 70, 80, 85, 90, 95, 99]
    assert made["degradation"].experiment.images == 2000
    assert {*range(1, 11)} <= set(made["degradation"].experiment.percent)
    assert _sparsity(made["degradation"]) == {75}
    assert Job(made["degradation"]).attributions["input_intgrad"].nodes == 50
    _checks_sanity_as_published(made["sanity_checks"])


def test_cifar10_has_the_papers_network_and_settings(stages):
    made = stages("cifar10")
    for config in made.values():
        assert config.model == {"name": "resnet8", "_target_": "cpath.models.resnet8", "width": 64}
        assert has_published_schedule(config)
    _prunes_as_published(made["path_analysis"])
    degradation = made["degradation"].experiment
    assert (degradation.images, degradation.fill) == (2000, 0)
    assert degradation.percent == [*range(1, 11), *range(20, 100, 10)]
    _decodes_as_published(made["path_decoding"], 32)
    _checks_sanity_as_published(made["sanity_checks"])
    table = made["roar_table"].experiment
    assert (table.percent, table.fill) == ([10, 30, 50, 70, 90], 0)


def test_published_numbers_stand_beside_every_stage_that_has_any(stages):
    made = stages("imagenet")
    experiments = {"path_analysis": "path_analysis", "degradation": "lerf", "sanity_checks": "sanity_checks"}
    for stage, name in experiments.items():
        assert len(published(name, made[stage])), stage
    blocks = ["fc", *(f"block{number}" for number in range(16)), "conv1"]
    checks = made["sanity_checks"]
    found = checks.experiment._published(Job(checks), blocks)
    assert set(NEURONS) <= {row.method for row in found}
    analysis = made["path_analysis"]
    assert {row.x for row in analysis.experiment._published(Job(analysis))} == {90.0}
    cifar = stages("cifar10")
    assert len(published("lerf", cifar["degradation"])) == 136
    assert len(cifar["roar_table"].experiment._published(Job(cifar["roar_table"]))) == 48


def test_digits_have_the_narrow_network_and_no_published_number(stages):
    for config in stages("digits").values():
        assert config.model_name == "resnet8_narrow"
        for name in ("lerf", "roar", "sanity_checks", "path_analysis"):
            assert published(name, config).empty


def test_the_readme_links_the_table_of_settings():
    root = CONF.parent
    assert (root / "docs" / "paper-settings.md").exists()
    assert "(docs/paper-settings.md)" in (root / "README.md").read_text(encoding="utf-8")
