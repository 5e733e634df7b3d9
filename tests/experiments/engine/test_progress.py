"""Progress: how stages are weighed, counted and shown."""

from __future__ import annotations

import io

import pytest

from experiments.engine.progress import Stages, duration, progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal, where bars are shown."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Have bars shown; to be called by the test itself, as pytest sets the streams of each phase."""
    found = Terminal()
    monkeypatch.setattr("sys.stderr", found)
    return found


def shown(stages: Stages) -> dict:
    return stages._bar.format_dict


def test_stages_count_by_the_time_that_they_are_expected_to_take(monkeypatch):
    terminal = on_terminal(monkeypatch)
    with Stages({"one": 10.0, "two": 30.0}) as stages:
        assert (shown(stages)["n"], shown(stages)["total"]) == (0, 40.0)
        with stages.stage("one"):
            assert shown(stages)["n"] == 0, "a stage that is at work is not called done"
        assert shown(stages)["n"] == 10.0
        with stages.stage("two"):
            pass
        assert shown(stages)["n"] == 40.0
    assert "100 %" in terminal.getvalue()


def test_the_time_left_follows_the_pace_of_all_stages_so_far(monkeypatch):
    on_terminal(monkeypatch)
    now = 1000.0
    with Stages({"one": 10.0, "two": 10.0, "three": 60.0}) as stages:
        stages._bar._time, stages._bar.start_t = lambda: now, now
        with stages.stage("one"):
            now += 10
        with stages.stage("two"):
            now += 30  # twice as slow on the whole as expected
        assert "00:40 so far, 02:00 left" in str(stages._bar)


def test_a_stage_that_was_finished_before_tells_nothing_of_the_rest(monkeypatch):
    on_terminal(monkeypatch)
    with Stages({"one": 0.0, "two": 30.0, "three": None}) as stages:
        assert stages.expected == {"one": 0.0, "two": 30.0, "three": 30.0}
        with stages.stage("one"):
            pass
        assert (shown(stages)["n"], shown(stages)["total"]) == (0, 60.0)


def test_without_expectations_all_stages_count_the_same():
    assert Stages({"one": None, "two": None}).expected == {"one": 1.0, "two": 1.0}
    assert Stages({"one": 0.0, "two": None}).expected == {"one": 0.0, "two": 1.0}
    assert Stages({"one": None, "two": 10.0, "three": 20.0}).expected["one"] == 15.0


def test_all_stages_may_be_finished_before(monkeypatch):
    on_terminal(monkeypatch)
    with Stages({"one": 0.0}) as stages, stages.stage("one"):
        assert shown(stages)["n"] == 0


def test_the_display_counts_stages_and_survives_one_that_fails():
    with Stages({"one": 1.0, "two": 1.0}) as stages:
        with pytest.raises(ValueError), stages.stage("one") as number:
            assert number == "[1/2]"
            raise ValueError
        with stages.stage("two") as number:
            assert number == "[2/2]"


def test_nothing_is_left_of_the_display_when_it_is_stopped_by_hand(monkeypatch):
    terminal = on_terminal(monkeypatch)
    stages = Stages({"one": 1.0, "two": 1.0})
    with pytest.raises(KeyboardInterrupt), stages, stages.stage("one"):
        raise KeyboardInterrupt
    assert stages._bar.leave is False
    assert terminal.getvalue().split("\r")[-1].strip() == ""


@pytest.mark.parametrize(("seconds", "words"), [(12.4, "12 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations_read_naturally(seconds, words):
    assert duration(seconds) == words


class Clock:
    """Seconds that pass as told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_where_there_is_no_terminal_a_line_is_logged_every_ten_seconds(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr("experiments.engine.progress.time", clock)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level("INFO"):
        for item in progress(range(10), "measuring", "batch"):
            clock.now += 4
            assert item >= 0
    assert caplog.messages == [
        "measuring: 3 of 10 batches done, 28 s left",
        "measuring: 6 of 10 batches done, 16 s left",
        "measuring: 9 of 10 batches done, 4 s left",
    ]


def test_the_number_may_be_told_or_unknown(monkeypatch, caplog):
    clock = Clock()
    monkeypatch.setattr("experiments.engine.progress.time", clock)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level("INFO"):
        for _ in progress(iter(range(3)), "one", "map", total=3):
            clock.now += 10
        for _ in progress(iter(range(2)), "other", "map"):
            clock.now += 10
    assert caplog.messages == [
        "one: 1 of 3 maps done, 20 s left",
        "one: 2 of 3 maps done, 10 s left",
        "other: 1 map done",
    ]


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    terminal = on_terminal(monkeypatch)
    assert list(progress([1, 2], "measuring", "batch")) == [1, 2]
    assert "measuring: 100%" in terminal.getvalue()
