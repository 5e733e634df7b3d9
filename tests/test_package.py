"""What ``import cpath`` brings, and what it leaves until it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cpath

SUBMODULES = ["analysis", "attribution", "data", "decoding", "evaluation", "methods", "models", "training", "viz"]


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_every_submodule_is_an_attribute_imported_when_it_is_asked_for() -> None:
    late = "[m for m in ('analysis', 'models', 'training', 'viz') if 'cpath.' + m in sys.modules]"
    code = f"import sys, cpath; print({late}, [getattr(cpath, m).__name__ for m in {SUBMODULES}], {late})"
    names = [f"cpath.{name}" for name in SUBMODULES]
    assert _python(code) == f"[] {names} ['analysis', 'models', 'training', 'viz']"
    assert set(SUBMODULES) <= set(dir(cpath))
    assert set(SUBMODULES) - {"training", "viz"} <= set(cpath.__all__)
    with pytest.raises(AttributeError, match="no attribute 'modles'"):
        cpath.modles  # noqa: B018


@pytest.mark.parametrize("use", ["cpath.viz", "cpath.training"])
def test_submodules_whose_packages_are_missing_say_what_to_install(use: str) -> None:
    hide = "sys.modules['matplotlib'] = sys.modules['pytorch_lightning'] = None"
    told = _python(f"import sys; {hide}; import cpath; {use}")
    package = "matplotlib" if use == "cpath.viz" else "pytorch_lightning"
    assert told.startswith(f"cpath.errors.MissingPackageError: {use} needs {package}, which is not installed")


def test_all_names_are_there_without_packages_that_only_submodules_need() -> None:
    hide = "sys.modules['matplotlib'] = sys.modules['pytorch_lightning'] = None"
    assert _python(f"import sys; {hide}; from cpath import *; print(models.resnet8.__name__)") == "resnet8"
