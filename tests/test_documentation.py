"""The Python of the documentation's pages runs, each page as one program."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torchvision

from cpath import errors
from cpath.attribution.base import REGISTRY as ATTRIBUTIONS
from cpath.methods.base import REGISTRY as METHODS
from experiments.engine.experiment import REGISTERED as EXPERIMENTS
from experiments.engine.pathway_metric import REGISTERED as METRICS
from tests.test_examples import SmallClassifier, namespace_of_examples

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "generated" not in page.parts and "_build" not in page.parts)


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    registries: tuple[dict[str, Any], ...] = (METHODS, ATTRIBUTIONS, EXPERIMENTS, METRICS)
    before = [(registry, dict(registry)) for registry in registries]
    yield
    for registry, known in before:
        registry.clear()
        registry.update(known)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the blocks of a page in an empty folder, and returns the names that it defines."""

    def run(page: Path) -> dict[str, object]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(torchvision.models, "resnet18", SmallClassifier)
        module = ModuleType("page")
        monkeypatch.setitem(sys.modules, "page", module)  # dataclasses look their module up
        names = vars(module)
        names |= namespace_of_examples()
        for block in blocks_of(page):
            exec(compile(block, str(page), "exec"), names)
        return names

    return run


TUTORIAL = DOCS / "tutorial.md"


SLOW = {"text-model"}  # it asks a real network about 120 sentences


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.stem, marks=[pytest.mark.slow] if page.stem in SLOW else [])
        for page in PAGES
        if blocks_of(page) and page != TUTORIAL
    ],
)
def test_the_python_of_a_page(run, page: Path) -> None:
    run(page)


def test_what_the_tutorial_says_of_its_model_is_so(run, tmp_path: Path) -> None:
    names = run(TUTORIAL)
    assert names["accuracy"] > 0.85
    pathway, kept = names["pathway"], names["kept"]
    assert kept(pathway) > kept(names["chance"])
    assert pathway.jaccard(names["intgrad"]).mean() > pathway.jaccard(names["chance"]).mean()
    assert {file.name for file in tmp_path.glob("*.png")} == {"faithfulness.png", "maps.png", "pathway.png"}


def test_the_readme_names_every_experiment() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ", (DOCS.parent / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    conf = {file.stem for file in (DOCS.parent / "conf" / "experiment").glob("*.yaml")}
    assert len(conf) > 10
    assert sorted(row for row in rows if row in conf) == sorted(conf)


def test_pages_link_to_what_is_there() -> None:
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            if "generated" not in link:
                assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_links_of_source_code_lead_to_descriptions_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    lead_back = import_module("source_links").lead_back
    described = {
        name: f"reference/generated/{page}"
        for name, page in {"cpath.show": "cpath", "cpath.methods.get": "cpath.methods"}.items()
    }
    at = 'href="../../reference/generated/'
    for broken, mended in {
        "cpath.viz.html#cpath.viz.show": "cpath.html#cpath.show",
        "cpath.methods.html#cpath.get": "cpath.methods.html#cpath.methods.get",
        "cpath.html#cpath.show": "cpath.html#cpath.show",
        "cpath.data.html#cpath.data.nowhere": "cpath.data.html",
    }.items():
        assert lead_back(f'<a {at}{broken}">', described) == f'<a {at}{mended}">'


def test_every_kind_of_error_and_warning_is_in_the_troubleshooting() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.CpathError | Warning)
        and kind.__module__ == errors.__name__
    ]
    assert len(kinds) >= 10
    assert [kind.__name__ for kind in kinds if f"`{kind.__name__}`" not in text.replace("cpath.", "")] == []
