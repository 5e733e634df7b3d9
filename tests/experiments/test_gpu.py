"""The prepared run on a GPU: its parts are commands that would run, and each keeps to its time."""

from __future__ import annotations

import json

import pytest

from experiments import gpu
from experiments.gpu import FAILED, FINISHED, STOPPED, Part, parts, run_parts


def _python(name: str, code: str, share: float = 1.0) -> Part:
    return Part(name, share, ("-c", code))


def _overrides(part: Part) -> list[str]:
    return [word for word in part.words[2:] if not word.startswith("outputs=")]


@pytest.mark.parametrize("dry_run", [False, True])
def test_the_settings_of_every_part_can_be_used(job, tmp_path, dry_run, monkeypatch):
    archive = tmp_path / "cifar.tar.gz"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    listed = parts(tmp_path, cifar10=archive, dry_run=dry_run)
    assert [part.name for part in listed] == [
        "tests",
        "benchmark",
        "vgg16",
        "roar, resnet8_narrow",
        "roar, resnet8",
    ]
    assert sum(part.share for part in listed) == pytest.approx(1)
    made = [job(*_overrides(part), small=False) for part in listed[1:]]
    assert [one.config.experiment.name for one in made] == [
        "benchmark",
        "path_analysis",
        "roar_table",
        "roar_table",
    ]
    assert {one.config.device for one in made} == {"cpu" if dry_run else "cuda"}
    if not dry_run:
        assert [one.config.model_name for one in made[1:]] == ["vgg16", "resnet8_narrow", "resnet8"]
        assert made[3].config.model["width"] == 64  # the released network
        assert made[3].config.recipe.epochs == 50  # the published schedule
        assert len(made[3].attributions) == 8
        assert list(made[3].config.experiment.percent) == [10, 30, 50, 70, 90]


def test_without_the_archive_there_is_no_roar_table(tmp_path):
    assert [part.name for part in parts(tmp_path)] == ["tests", "benchmark", "vgg16"]


def test_each_part_keeps_to_its_time_and_what_it_leaves_goes_to_the_others(tmp_path):
    waiting = "print('begun', flush=True); time.sleep(60)"
    endless = f"import time\ntry:\n  {waiting}\nexcept KeyboardInterrupt:\n  print('kept')"
    todo = [
        _python("quick", "print('done')", 0.5),
        _python("broken", "raise SystemExit(3)"),
        _python("long", endless),
    ]
    outcomes = run_parts(todo, tmp_path, 3)
    assert [one.state for one in outcomes] == [FINISHED, FAILED, STOPPED]
    # A third of 3 s would be its share if the others had taken theirs.
    assert 1.5 < outcomes[2].seconds < 15
    assert (tmp_path / "long.log").read_text().split() == ["begun", "kept"]  # interrupted as by Ctrl-C
    recorded = json.loads((tmp_path / gpu.RECORD).read_text())
    assert [one["state"] for one in recorded] == [FINISHED, FAILED, STOPPED]
    assert recorded[0]["command"] == "python -c print('done')"


def test_a_part_that_does_not_stop_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "_GRACE", 0.2)
    deaf = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    )
    (outcome,) = run_parts([_python("deaf", deaf)], tmp_path, 1.5)
    assert outcome.state == STOPPED
    assert outcome.seconds < 20


def test_what_is_missing_is_said_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main([str(tmp_path / "out")]) == 2
    assert "there is no CUDA device: --dry-run tries the same parts" in capsys.readouterr().err
    assert gpu.main([str(tmp_path / "out"), "--dry-run", "--cifar10", str(tmp_path / "none")]) == 2
    assert "--cifar10: there is no" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_dry_run_goes_through_every_part_and_a_second_one_finds_the_jobs_finished(tmp_path, capsys):
    for _ in range(2):
        assert gpu.main([str(tmp_path / "out"), "--dry-run", "--minutes", "60"]) == 0
        recorded = json.loads((tmp_path / "out" / gpu.RECORD).read_text())
        assert {one["state"] for one in recorded} == {FINISHED}
    assert all("already finished" in (tmp_path / "out" / one["log"]).read_text() for one in recorded[1:])
    assert "passed" in (tmp_path / "out" / "tests.log").read_text()
    assert len(list((tmp_path / "out" / "runs").glob("*/*/results.csv"))) >= 4
    assert capsys.readouterr().out.count(FINISHED) >= 2 * 5
