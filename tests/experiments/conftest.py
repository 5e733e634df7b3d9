from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from experiments.framework import job
from experiments.framework.choices import register_choices
from experiments.framework.store import ArtifactStore
from experiments.framework.subject import load_data, trained_model

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
    register_choices()

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


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register_choices()
    outputs = tmp_path_factory.mktemp("trained")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*SMALL, f"outputs={outputs}"])
    data = load_data(cfg)
    trained_model(cfg, data, ArtifactStore(outputs / "artifacts"))
    return outputs / "artifacts"


@pytest.fixture
def trained(_trained_once: Path, tmp_path: Path) -> Path:
    """The test's outputs, in which the small model is trained already: once for all tests."""
    shutil.copytree(_trained_once, tmp_path / "artifacts")
    return tmp_path
