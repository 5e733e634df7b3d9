"""Private names of other packages: one file uses them, and says so when one is gone."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import experiments
from cpath.errors import InputError
from experiments import dashboard
from experiments.engine import _wandb
from tests.test_torch import private, private_uses

ROOT = Path(experiments.__file__).parent
FILES = sorted(ROOT.rglob("*.py")) + sorted((ROOT.parent / "hydra_plugins").glob("*.py"))
PUBLIC = {"_asdict", "_fields", "_exit", "_repr_html_"}  # documented, of named tuples, os and IPython

# wandb-workspaces is written for an older pydantic.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic V1 style")


def _given_names(source: str) -> set[str]:
    """Every name that a file itself gives to something."""
    found = set(PUBLIC)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def _private_imports(source: str) -> list[str]:
    """Modules, and what is imported of them, with a private part, which are not the project's own."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{name.name}" for name in node.names]
    return [
        path
        for path in found
        if any(map(private, path.split("."))) and path.partition(".")[0] not in ("experiments", "cpath")
    ]


def test_private_imports_are_seen():
    source = "import hydra._internal.utils\nfrom wandb.sdk import _x\nfrom experiments.engine._wandb import view_of"
    assert _private_imports(source) == ["hydra._internal.utils", "wandb.sdk._x"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT.parent)))
def test_no_other_file_uses_a_private_name(file):
    source = file.read_text()
    assert not _private_imports(source)
    found = set(private_uses(source, _given_names(source)))
    assert found == ({"_spec"} if file.name == "_wandb.py" else set())


def test_a_wandb_workspaces_without_the_name_is_refused_before_anything_is_written(monkeypatch, tmp_path, capsys):
    from wandb_workspaces.workspaces import Workspace

    out = tmp_path / "dashboard.json"
    with monkeypatch.context() as patch:
        patch.delattr(next(cls for cls in Workspace.__mro__ if "_spec" in vars(cls)), "_spec")
        assert dashboard.main(["--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "wandb-workspaces" in told
    assert "has no Workspace._spec as older versions have. Version 0.4.13 is known to work: pip install" in told
    assert not out.exists()


@pytest.mark.parametrize("spec", [None, {}, {"spec": "text"}])
def test_a_view_in_another_form_is_refused(spec):
    class Workspace:
        _spec = spec

    with pytest.raises(InputError, match=r"has no Workspace\._spec\['spec'\] .* 0\.4\.13 is known to work"):
        _wandb.view_of(Workspace())


def test_the_view_is_the_one_that_the_class_would_send(tmp_path):
    made = dashboard.workspace("lab", "digits", "mine")
    view = json.loads(json.dumps(_wandb.view_of(made)))
    assert [section["name"] for section in view["section"]["panelBankConfig"]["sections"]] == [
        *dashboard.CURVES,
        "Pictures",
    ]
