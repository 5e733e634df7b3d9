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


def test_without_packages_that_only_submodules_need_all_else_is_there_and_they_say_what_to_install() -> None:
    code = """
import sys
sys.modules['matplotlib'] = sys.modules['pytorch_lightning'] = None
from cpath import *
import cpath
print(models.resnet8.__name__)
for name in ('viz', 'training'):
    try:
        getattr(cpath, name)
    except cpath.errors.MissingPackageError as error:
        print(error)
"""
    first, drawing, training = _python(code).splitlines()
    assert first == "resnet8"
    assert drawing.startswith("cpath.viz needs matplotlib, which is not installed")
    assert training.startswith("cpath.training needs pytorch_lightning, which is not installed")
