"""The command without any argument: a first look, in less than a minute."""

from __future__ import annotations

import sys

import pytest
from hydra import compose, initialize_config_dir

from experiments import CONF, __main__
from experiments.__main__ import FIRST_LOOK
from experiments.engine.choices import register_choices
from experiments.engine.config import parse


def _arguments(monkeypatch: pytest.MonkeyPatch, *given: str) -> list[str]:
    """What the command line is when Hydra reads it."""
    monkeypatch.setattr(sys, "argv", ["experiments", *given])
    seen: list[str] = []

    def stand_in(**_: object) -> object:
        return lambda _function: lambda: seen.extend(sys.argv[1:])

    monkeypatch.setattr("hydra.main", stand_in)
    __main__.main()
    return seen


def test_no_argument_is_the_first_look_and_says_so(monkeypatch, capsys):
    assert _arguments(monkeypatch) == list(FIRST_LOOK)
    said = capsys.readouterr().out
    assert " ".join(FIRST_LOOK) in said
    assert "--help" in said


def test_any_argument_is_taken_as_it_is(monkeypatch, capsys):
    assert _arguments(monkeypatch, "sparsity=80") == ["sparsity=80"]
    assert capsys.readouterr().out == ""


def test_the_first_look_is_small_and_explains_the_network_that_later_commands_use():
    register_choices()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config, usual = (parse(compose("config", list(given))) for given in (FIRST_LOOK, ()))
    assert list(config.method) == ["neuron_mct", "random"]
    assert config.experiment.sparsity == [90]
    assert config.experiment.images <= 64
    same = ("model", "recipe", "dataset", "trainer", "seed")
    assert [getattr(config, name) for name in same] == [getattr(usual, name) for name in same]
