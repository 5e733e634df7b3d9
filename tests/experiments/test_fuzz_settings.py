"""Absurd configurations: refused with a cpath error before any work, or run to finite results."""

from __future__ import annotations

import importlib
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cpath.errors import CpathError, InputError, UnknownNameError
from experiments import CONF
from experiments.__main__ import run
from experiments.framework.choices import check_choices, register_choices
from experiments.framework.job import job_folder
from experiments.framework.store import ArtifactStore
from experiments.framework.values import RULES, check_values

EXPERIMENTS = [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))]
TINY = [
    "dataset._target_=tests.experiments.tiny.digits",
    "dataset.size=8",
    "dataset.recipe.epochs=1",
    "model.width=4",
    "device=cpu",
]
QUICK = {
    "path_analysis": ["method=random", "experiment.images=4"],
    "path_decoding": ["method=random", "sparsity=90", "experiment.images=1", "experiment.steps=2"],
    "saliency": ["attribution=gradients", "experiment.images=2"],
    "degradation": ["attribution=gradients", "experiment.images=4", "experiment.percents=[50]"],
    "sanity_checks": ["attribution=gradients", "experiment.images=2", "experiment.draws=1"],
    "linearity": ["method=random", "experiment.images=2", "experiment.neurons=4"],
    "quadrature": ["experiment.images=2"],
    "roar": ["attribution=gradients"],
    "train": [],
}
NAN, INF = float("nan"), float("inf")
WRONG: list[Any] = [-1, 0, 1.5, NAN, INF, True, None, "", "x", "../x", [], [150], [True], [[]], {}]
# What more than one of these would be right for, or would take long.
SLOW = {"dataset.recipe.epochs", "experiment.steps", "experiment.images", "outputs", "imports", "device"}


@cache
def _composed(*overrides: str) -> DictConfig:
    register_choices()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def composed(*overrides: str) -> DictConfig:
    return deepcopy(_composed(*overrides))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_defaults_of_every_experiment_pass(experiment):
    for extra in ([], ["trainer=ddp"], ["dataset=cifar10"], ["model=vgg11"]):
        check_values(composed(f"experiment={experiment}", *extra))


@pytest.mark.parametrize("paper", [path.stem for path in sorted((CONF / "paper").glob("*.yaml"))])
def test_every_stage_of_a_paper_passes(paper):
    for overrides in composed("experiment=reproduce_paper", f"paper={paper}").paper.stages.values():
        check_values(composed(*overrides))


@pytest.mark.parametrize(
    ("added", "meant"),
    [
        ("+experiment.image=3", "experiment.images"),
        ("+experiment.road.image=3", "experiment.road.images"),
        ("+trainer.tf_32=true", "trainer.tf32"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused_with_the_one_that_was_meant(added, meant):
    with pytest.raises(UnknownNameError, match=rf"unknown setting.*Did you mean {meant}"):
        check_values(composed("experiment=degradation", added))


@pytest.mark.parametrize("name", list(RULES))
def test_every_rule_is_of_a_value_that_an_experiment_has_and_refuses_most(name):
    found = 0
    for experiment in EXPERIMENTS:
        cfg = composed(f"experiment={experiment}")
        OmegaConf.set_struct(cfg, False)
        where, _, last = name.rpartition(".")
        node = OmegaConf.select(cfg, where) if where else cfg
        if not isinstance(node, DictConfig) or last not in node:
            continue
        found += 1
        refused = 0
        for value in WRONG:
            node[last] = value
            try:
                check_values(cfg)
            except InputError:
                refused += 1
        assert refused >= len(WRONG) // 2
    assert found


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Shared by all examples: the tiny network is trained once."""
    return tmp_path_factory.mktemp("outputs")


def attempt(experiment: str, name: str, value: Any, outputs: Any) -> None:
    """Runs a small job with one absurd value: a cpath error, or finite results."""
    cfg = composed(f"experiment={experiment}", *TINY, *QUICK[experiment], f"outputs={outputs}")
    OmegaConf.set_struct(cfg, False)
    try:
        OmegaConf.update(cfg, name, value, merge=isinstance(value, dict))  # as the command line does
    except OmegaConfBaseException:
        return  # Hydra says that a list is no mapping
    try:
        table = importlib.import_module(f"experiments.{experiment}").run(cfg)
    except CpathError:
        return
    assert len(table)
    assert table.value.abs().max() < float("inf")


def names_of(experiment: str) -> list[str]:
    cfg = composed(f"experiment={experiment}")
    node = OmegaConf.to_container(cfg.experiment)
    assert isinstance(node, dict)
    own = [f"experiment.{name}" for name in node if name != "name"]
    general = [
        "seed",
        "sparsity",
        "activations",
        "checkpoint",
        "threads",
        "redo",
        "dataset.size",
        "dataset.channels",
    ]
    general += ["dataset.name", "dataset.recipe.batch_size", "model.name", "model.width", "trainer.precision"]
    return [name for name in own + general if name not in SLOW]


MIXTURES = [(experiment, name) for experiment in QUICK for name in names_of(experiment)]


@given(st.sampled_from(MIXTURES), st.sampled_from(WRONG))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_absurd_value_is_refused_or_harmless(outputs, where, value):
    attempt(*where, value, outputs)


@pytest.mark.slow
@given(st.sampled_from(MIXTURES), st.sampled_from(WRONG))
@settings(max_examples=600, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_many_absurd_values(outputs, where, value):
    attempt(*where, value, outputs)


@pytest.mark.parametrize("name", ["../../x", "framework.store", "", "os", "path_analysis.py", "roar/x"])
def test_only_experiments_are_run(configure, name):
    with pytest.raises(UnknownNameError, match="unknown experiment"):
        run(configure(f"experiment.name='{name}'"))


@pytest.mark.parametrize("name", ["../../x", "/x", "..", "a/../../b", "~/x", "x\\0", "C:\\x"])
def test_no_name_leads_out_of_the_outputs(configure, tmp_path, name):
    cfg = configure()
    OmegaConf.set_struct(cfg, False)
    for key in ("dataset.name", "model.name"):
        OmegaConf.update(cfg, key, name)
    folder = job_folder(cfg).resolve()
    assert folder.parent == (tmp_path / "runs" / "path_analysis").resolve()
    kept = ArtifactStore(tmp_path / "artifacts").path("models", f"{name}-{name}", {}).resolve()
    assert kept.parent == (tmp_path / "artifacts" / "models").resolve()


@pytest.mark.parametrize(
    "choice", ["method=../all", "model=../../x", "dataset=..", "experiment=roar.py", "tracker=x"]
)
def test_choices_are_files_of_their_group(choice):
    with pytest.raises(UnknownNameError, match="Known: "):
        check_choices([choice])
