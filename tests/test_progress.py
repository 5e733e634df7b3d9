from __future__ import annotations

import sys

import pytest
import tqdm.auto

from cpath.progress import steps


def test_steps_are_counted_with_a_bar_that_waits_and_needs_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}

    def bar(counted: range, **settings: object) -> range:
        asked.update(settings)
        return counted

    monkeypatch.setattr(tqdm.auto, "tqdm", bar)
    assert list(steps(3, "learned_ranking")) == [0, 1, 2]
    assert (asked["desc"], asked["delay"], asked["disable"]) == ("learned_ranking", 5.0, None)


def test_steps_are_counted_without_the_package_of_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert list(steps(3, "learned_ranking")) == [0, 1, 2]
