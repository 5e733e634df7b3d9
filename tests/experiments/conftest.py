from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from textwrap import dedent

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from cpath import attribution, methods
from experiments import CONF
from experiments.engine import digests, experiment, pathway_metric
from experiments.engine import job as job_module
from experiments.engine.choices import register_choices
from experiments.engine.config import parse
from experiments.engine.job import Job

# The real configuration, made small: two epochs on 16×16 digits, a narrow network, a few images.
SMALL = [
    "dataset.size=16",
    "recipe.epochs=2",
    "model.width=4",
]


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., DictConfig]:
    """Composes the project's configuration with overrides, into a temporary outputs folder."""
    known = (methods.names(), attribution.names(), experiment.REGISTERED, pathway_metric.REGISTERED)
    _register(*(tuple(names) for names in known))

    def make(*overrides: str, small: bool = True) -> DictConfig:
        config = deepcopy(_composed((*(SMALL if small else []), *overrides)))
        if not any(override.startswith("outputs=") for override in overrides):
            config.outputs = str(tmp_path)
        return config

    return make


@cache
def _register(*_: tuple[str, ...]) -> None:
    """Make choices of what is registered, which takes an eighth of a second: again only where there is more."""
    register_choices()


# Composing takes a seventh of a second, which many small tests of the same settings would add up.
@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(overrides))


@pytest.fixture
def job(configure: Callable[..., DictConfig]) -> Callable[..., Job]:
    """Makes the job of a configuration with overrides; nothing of it runs."""

    def make(*overrides: str, small: bool = True) -> Job:
        return Job(parse(configure(*overrides, small=small)))

    return make


@pytest.fixture
def figures() -> None:
    """Asked for by a test that looks at a job's figures."""


@pytest.fixture(autouse=True)
def _no_figures_unless_asked_for(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    # Drawing takes longer than all else in these small jobs.
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(job_module, "save_drawings", lambda drawings, folder: None)


@pytest.fixture(scope="session")
def _trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register_choices()
    outputs = tmp_path_factory.mktemp("trained")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*SMALL, f"outputs={outputs}"])
    assert Job(parse(cfg)).model is not None
    return outputs / "artifacts"


@pytest.fixture
def trained(_trained_once: Path, tmp_path: Path) -> Path:
    """The test's outputs, in which the small model is trained already: once for all tests."""
    shutil.copytree(_trained_once, tmp_path / "artifacts")
    return tmp_path


class Users:
    """A user's modules, in a folder on Python's path. After an edit all is as in a new process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.packages: set[str] = set()

    def write(self, name: str, source: str) -> None:
        """Writes or edits the module ``name``, which may be dotted."""
        file = self.folder / f"{name.replace('.', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source))
        self.packages.add(name.partition(".")[0])
        self.forget()

    def forget(self) -> None:
        """Has the modules imported and read again."""
        for name in [name for name in sys.modules if name.partition(".")[0] in self.packages]:
            del sys.modules[name]
        importlib.invalidate_caches()
        digests.source_digest.cache_clear()
        digests._is_installed.cache_clear()


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Users]:
    """The user's modules, gone after the test."""
    folder = tmp_path / "users"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two edits in one second look alike to its cache
    found = Users(folder)
    yield found
    found.forget()
