"""Command lines: status, help and errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cpath.errors import InputError
from experiments.engine.command import command


def work(folder: list[Path], often: int = 1) -> int | None:
    """Count the folders."""
    if often < 0:
        raise InputError("--often: at least 0.")
    print([path.name for path in folder] * often)
    return None if often == 1 else often


main = command(work)


def test_arguments_have_the_types_of_the_function(capsys):
    assert main(["a", "b", "--often", "3"]) == 3
    assert capsys.readouterr().out == "['a', 'b', 'a', 'b', 'a', 'b']\n"
    assert main(["a"]) == 0


def test_an_error_of_cpath_is_one_line_and_status_2(capsys):
    assert main(["a", "--often", "-1"]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "error: --often: at least 0.\n")


@pytest.mark.parametrize("arguments", [[], ["a", "--nothing"], ["a", "--often", "x"]])
def test_wrong_arguments_are_status_2(capsys, arguments):
    assert main(arguments) == 2
    assert "Usage" in capsys.readouterr().err


def test_the_help_is_the_docstring(capsys):
    assert main(["--help"]) == 0
    assert "Count the folders." in capsys.readouterr().out


def test_other_errors_are_not_hidden():
    def breaks() -> None:
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        command(breaks)([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["outputs=results"], r"'outputs=results' is a setting.* name the folder itself: 'results'\."),
        (["outputs="], r"name the folder itself: 'outputs'\."),
        (["a", "often=3"], "'often=3' must be '--often 3' here"),
        (["--often", "3", "experiment.images=2"], "'experiment.images=2' is a setting"),
    ],
)
def test_settings_are_answered_with_what_the_command_takes(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(message, captured.err)


def test_a_folder_may_be_named_like_a_setting(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run=3").mkdir()
    assert main(["run=3", "./seed=4"]) == 0
    assert capsys.readouterr().out == "['run=3', 'seed=4']\n"
