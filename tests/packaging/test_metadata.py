"""What several files say about the distribution is said alike."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

import cpath

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
REQUIREMENTS = {*PROJECT["dependencies"], *(asked for extra in EXTRAS.values() for asked in extra)}
CODE = sorted(path for package in ("cpath", "experiments") for path in (ROOT / package).rglob("*.py"))


def test_citation_and_changelog_know_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == cpath.__version__
    assert citation["license"] == PROJECT["license"]
    assert f"\n## [{cpath.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_errors_send_users_to_this_distribution_and_to_its_extras() -> None:
    advice = {found for path in CODE for found in re.findall(r"pip install '([\w-]+)\[(\w+)\]'", path.read_text())}
    assert advice
    for name, extra in advice:
        assert name == PROJECT["name"]
        assert extra in EXTRAS


def test_requirements_named_in_errors_are_those_of_the_distribution() -> None:
    named = {found for path in CODE for found in re.findall(r'"([\w-]+>=[\d.]+)"', path.read_text())}
    assert named
    assert named <= REQUIREMENTS
