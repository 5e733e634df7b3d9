from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments.framework import job
from experiments.framework.choices import register_torchvision_models

CONF = Path(__file__).resolve().parents[2] / "conf"

# The real configuration, made small: two epochs on 16×16 digits, a narrow network, a few images.
SMALL = [
    "dataset.size=16",
    "dataset.recipe.epochs=2",
    "model.width=4",
]


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes the project's configuration with overrides, into a temporary outputs folder."""
    register_torchvision_models()

    def make(*overrides: str, small: bool = True) -> DictConfig:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("config", [*(SMALL if small else []), f"outputs={tmp_path}", *overrides])

    return make


@pytest.fixture
def figures() -> None:
    """Asked for by a test that looks at a job's figures."""


@pytest.fixture(autouse=True)
def _no_figures_unless_asked_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing takes longer than all else in these small jobs.
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(job, "save_drawings", lambda drawings, folder: None)
