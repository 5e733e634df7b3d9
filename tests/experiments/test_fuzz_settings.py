"""Absurd configurations: refused with a cpath error before any work, or run to finite results."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cpath.errors import CpathError
from experiments import CONF
from experiments.engine.choices import register_choices
from experiments.engine.config import parse
from experiments.engine.job import run

EXPERIMENTS = [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))]
TINY = [
    "dataset._target_=tests.experiments.tiny.digits",
    "dataset.size=8",
    "recipe.epochs=1",
    "model.width=4",
    "device=cpu",
]
_NO_ATTACKS = ["experiment.held_out=4", "experiment.attacks.names=[]", "experiment.foreign.images=4"]
QUICK = {
    "path_analysis": ["method=random", "experiment.images=4"],
    "path_decoding": ["method=random", "sparsity=90", "experiment.images=1", "experiment.steps=2"],
    "saliency": ["attribution=gradients", "experiment.images=2"],
    "degradation": ["attribution=gradients", "experiment.images=4", "percent=[50]"],
    "sanity_checks": ["attribution=gradients", "experiment.images=2", "experiment.draws=1"],
    "linearity": ["method=random", "experiment.images=2", "experiment.neurons=4"],
    "explorer": ["method=random", "experiment.images=2"],
    "faithfulness": ["method=random", "experiment.images=2"],
    "quadrature": ["experiment.images=2"],
    "class_pathways": ["method=random", "experiment.counting.images=60", "experiment.held_out=4"],
    "detection": ["method=random", "experiment.counting.images=60", *_NO_ATTACKS],
    "roar": ["attribution=gradients"],
    "train": [],
}
NAN, INF = float("nan"), float("inf")
WRONG: list[Any] = [-1, 0, 1.5, NAN, INF, True, None, "", "x", "../x", [], [150], [True], [[]], {}]
# What more than one of these would be right for, or would take long.
SLOW = {"recipe.epochs", "experiment.steps", "experiment.images", "outputs", "imports", "device"}


@cache
def _composed(*overrides: str) -> DictConfig:
    register_choices()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


def composed(*overrides: str) -> DictConfig:
    return deepcopy(_composed(*overrides))


SETTINGS = ["seed", "threads", "redo", "imports", "trainer.precision", "trainer.workers", "recipe.batch_size"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_most_absurd_values_of_every_setting_are_refused(experiment):
    cfg = composed(f"experiment={experiment}")
    OmegaConf.set_struct(cfg, False)
    own = [f"experiment.{name}" for name in cfg.experiment if name not in ("name", "_target_")]
    for name in [*own, *(SETTINGS if experiment == EXPERIMENTS[0] else ())]:  # those that all have alike, once
        refused = 0
        for value in WRONG:
            changed = deepcopy(cfg)
            OmegaConf.update(changed, name, value, merge=False)
            try:
                parse(changed)
            except CpathError:
                refused += 1
        assert refused >= len(WRONG) // 3, name


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
        table = run(cfg)
    except CpathError:
        return
    assert len(table)
    assert table.value.abs().max() < float("inf")


def names_of(experiment: str) -> list[str]:
    cfg = composed(f"experiment={experiment}")
    node = OmegaConf.to_container(cfg.experiment)
    assert isinstance(node, dict)
    own = [f"experiment.{name}" for name in node if name not in ("name", "_target_")]
    general = [
        "seed",
        "sparsity",
        "sites",
        "checkpoint",
        "threads",
        "redo",
        "dataset.size",
        "dataset.channels",
    ]
    general += ["dataset.name", "recipe.batch_size", "model.name", "model.width", "trainer.precision"]
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
