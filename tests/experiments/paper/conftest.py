from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments import CONF
from experiments.engine.choices import register_choices


@pytest.fixture
def hydra() -> Iterator[None]:
    """The stages of a paper are composed while Hydra is initialised, as under the command line."""
    register_choices()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def paper(outputs: Path, *overrides: str, **stages: list[str]) -> DictConfig:
    """Configuration of a paper with the given stages, those of digits if there are none."""
    cfg = compose("config", ["experiment=reproduce_paper", "paper=digits", f"outputs={outputs}", *overrides])
    if stages:
        cfg.paper.stages = stages
        cfg.paper.seconds = dict.fromkeys(stages, 5)
    return cfg
