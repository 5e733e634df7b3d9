"""All jobs below a folder, what tells them apart, and their results as one frame."""

from __future__ import annotations

import shutil

import pytest

import experiments
from cpath.errors import InputError
from experiments import runs as command
from experiments.engine.job_listing import find_runs, telling_apart
from experiments.keep import keep_jobs

JOB = ["experiment=path_analysis", "method=random", "experiment.images=2", "experiment.by_site=false"]


@pytest.fixture
def outputs(job, trained):
    """Three finished jobs, and one that failed."""
    for overrides in (["sparsity=80"], ["sparsity=90"], ["sparsity=90", "seed=0", "experiment.batch=1"]):
        job(*JOB, *overrides).run()
    with pytest.raises(InputError):
        job(*JOB, "experiment.images=1000").run()
    return trained


def test_jobs_are_told_apart_by_the_settings_that_differ(outputs):
    found = find_runs(outputs)
    assert sorted(run.status for run in found) == ["failed", "finished", "finished", "finished"]
    finished = [run for run in found if run.status == "finished"]
    settings = [tuple(sorted(one.items())) for one in telling_apart(finished).values()]
    assert sorted(settings) == sorted(
        tuple(sorted({"experiment.sparsity": s, "experiment.batch": batch}.items()))
        for s, batch in ((80, 32), (90, 32), (90, 1))
    )


def test_results_are_one_frame_with_a_column_for_each_differing_setting(outputs):
    table = experiments.load(outputs)
    assert table.folder.nunique() == 3
    whole = table[table.metric == "class_kept"]
    assert sorted(zip(whole.x.astype(float), whole["experiment.batch"], strict=True)) == [
        (80, 32),
        (90, 1),
        (90, 32),
    ]
    assert set(experiments.load(outputs, experiment=["path_analysis"]).columns) == set(table.columns)
    with pytest.raises(InputError, match=r"no finished job of \['train'\].*there are jobs of path_analysis"):
        experiments.load(outputs, experiment="train")
    with pytest.raises(InputError, match="there is no job below"):
        experiments.load(outputs / "artifacts" / "models")


def test_copies_that_come_with_a_checkout_are_listed_where_they_are_asked_for(outputs, capsys):
    reference = outputs / "reference" / "mine"
    newest = next(run.folder for run in find_runs(outputs) if run.status == "finished")
    (copied,) = keep_jobs(newest, reference)
    copied.rename(reference / "path_analysis-80")  # a name of one's own, for there are several of one experiment
    (reference / "path_analysis-80" / "per_image.csv.gz").write_bytes(b"fewer numbers")

    assert [run.folder for run in find_runs(outputs) if "reference" in run.folder.parts] == []
    assert experiments.load(outputs).folder.nunique() == 3
    (kept,) = find_runs(reference.parent)
    assert (kept.status, kept.experiment) == ("kept", "path_analysis")
    assert experiments.load(reference, experiment="path_analysis").folder.unique() == [str(kept.folder)]
    shutil.rmtree(outputs / "runs")
    assert command.main([str(outputs)]) == 2
    assert f"are listed by {outputs / 'reference'})" in capsys.readouterr().err


def test_axes_of_units_are_one_setting(job, trained, capsys, monkeypatch):
    units = ["channel", "{kind: channel, axis: -1}", "{kind: channel, axis: {stage1.*: [0, 1]}}"]
    for unit in units:
        job(*JOB, f"unit={unit}").run()
    assert sorted(experiments.load(trained).unit.unique()) == sorted(units)
    monkeypatch.setenv("COLUMNS", "200")
    assert command.main([str(trained)]) == 0
    said = capsys.readouterr().out
    assert all(f"unit={unit}" in said for unit in units)


def test_the_command_lists_them(outputs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert command.main([str(outputs)]) == 0
    said = capsys.readouterr().out
    assert said.count("finished") == 3
    assert "failed" in said
    assert "experiment.batch=1" in said
    assert command.main([str(outputs / "nowhere")]) == 2
    assert "error: there is no job below" in capsys.readouterr().err
    assert command.main([str(outputs), "--experiment", "train"]) == 2
    assert "there is no job of train below" in (said := capsys.readouterr().err)
    assert said.endswith("; there are jobs of path_analysis.\n")
