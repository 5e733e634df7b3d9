"""Records of where results come from."""

from __future__ import annotations

import shlex

import pytest

from experiments.engine.provenance import command_line


@pytest.mark.parametrize(
    ("program", "named"),
    [
        ("/site/experiments/__main__.py", ["python", "-m", "experiments"]),
        ("/env/bin/cpath", ["python", "-m", "experiments"]),
        ("/site/ipykernel/__main__.py", ["__main__.py"]),
        ("my_script.py", ["my_script.py"]),
    ],
)
def test_the_command_can_be_pasted_into_a_shell(monkeypatch, program, named):
    arguments = ["-m", "method=[random,active]", "unit={kind: channel}", 'checkpoint="a=b.ckpt"', "outputs=it's"]
    monkeypatch.setattr("sys.argv", [program, *arguments])
    assert shlex.split(command_line()) == [*named, *arguments]
