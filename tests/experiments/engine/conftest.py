from __future__ import annotations

from copy import deepcopy
from functools import cache

import pytest

from experiments.engine import sweep_results
from tests.experiments.launching import Configure, Sweep


@pytest.fixture
def composed(configure: Configure) -> Configure:
    """As `configure`, which takes a tenth of a second; tests of sweeps compose the same jobs again and again."""
    known = cache(configure)
    return lambda *overrides: deepcopy(known(*overrides))


@pytest.fixture
def sweep(composed: Configure) -> Sweep:
    """Runs sweeps over seeds."""
    return Sweep(composed)


@pytest.fixture(autouse=True)
def _no_figures_of_sweeps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(sweep_results, "save_drawings", lambda drawings, folder: None)
