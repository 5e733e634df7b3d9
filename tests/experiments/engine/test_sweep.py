"""Sweeps: identity, resuming, failures, launchers that die."""

from __future__ import annotations

import json
import os

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from omegaconf import OmegaConf

from cpath.errors import InputError
from experiments.engine import sweep as sweeps
from experiments.engine.cache import is_complete, write_json
from experiments.engine.provenance import read_manifest
from experiments.engine.table import read_table
from hydra_plugins.cpath_sweeps import combinations
from tests.experiments.launching import Launcher, summary_of


def test_the_same_jobs_are_the_same_sweep_and_run_once(sweep, composed, tmp_path):
    first = Launcher(composed)
    folder, code = sweep(first)
    assert code == 0
    assert folder.parent == tmp_path / "sweeps"
    assert folder.name.startswith("path_analysis-")
    assert first.launched == [["seed=0", "seed=1", "seed=2", "seed=3"]]
    again = Launcher(composed)
    assert sweep(again, seeds=(3, 2, 1, 0), common=["tracker=csv"]) == (folder, 0)
    assert again.launched == []
    more = Launcher(composed)
    assert sweep(more, seeds=(0, 1, 2, 3, 4))[0] != folder
    assert more.launched == [["seed=4"]]


def test_redo_runs_all_again(sweep, composed):
    sweep(Launcher(composed))
    again = Launcher(composed)
    sweep(again, common=["redo=true"])
    assert again.launched == [["seed=0", "seed=1", "seed=2", "seed=3"]]


def test_jobs_that_are_the_same_run_once(sweep, composed):
    launcher = Launcher(composed)
    sweep(launcher, seeds=(1, 1, 2))
    assert launcher.launched == [["seed=1", "seed=2"]]


def test_a_failed_job_leaves_the_others_alone_and_stands_in_the_summary(sweep, composed):
    folder, code = sweep(Launcher(composed, fails=["seed=1"]))
    assert code == 1
    summary = summary_of(folder)
    assert summary.status.tolist() == ["finished", "failed", "finished", "finished"]
    assert summary.error[1] == "this one fails on purpose"
    table = read_table(folder / "results.csv")
    assert (table.value[0], table.n[0], table.seed[0], table.over[0]) == (pytest.approx(5 / 3), 3, "0 2 3", "seeds")
    mended = Launcher(composed)
    assert sweep(mended) == (folder, 0)
    assert mended.launched == [["seed=1"]]


def test_a_killed_worker_costs_the_others_nothing(sweep, composed):
    # Two at a time: seed 1 takes seed 0 down with it. What had not begun goes on first, then each suspect alone.
    launcher = Launcher(composed, kills=["seed=1"], together=2)
    folder, code = sweep(launcher)
    assert code == 1
    assert launcher.launched == [
        ["seed=0", "seed=1", "seed=2", "seed=3"],
        ["seed=2", "seed=3"],
        ["seed=0"],
        ["seed=1"],
    ]
    summary = summary_of(folder)
    assert summary.status.tolist() == ["finished", "failed", "finished", "finished"]
    assert "without an error message: a worker was killed" in summary.error[1]


def test_a_launcher_that_never_starts_a_job_is_not_asked_for_ever(sweep, composed):
    class Broken(Launcher):
        def launch(self, job_overrides, initial_job_idx):
            self.launched.append([])
            raise RuntimeError("no such partition")

    launcher = Broken(composed)
    folder, code = sweep(launcher, seeds=(0, 1))
    assert (code, len(launcher.launched)) == (1, 1)
    assert summary_of(folder).error.str.contains("no such partition").all()


def test_a_stopped_sweep_says_how_it_goes_on(sweep, composed, caplog):
    class Interrupted(Launcher):
        def launch(self, job_overrides, initial_job_idx):
            super().launch(job_overrides[:2], initial_job_idx)
            raise KeyboardInterrupt

    folder, code = sweep(Interrupted(composed))
    assert code == 130
    assert "the same command continues from here" in caplog.text
    rest = Launcher(composed)
    assert sweep(rest) == (folder, 0)
    assert rest.launched == [["seed=2", "seed=3"]]


def test_the_whole_paper_is_no_job_of_a_sweep(sweep, composed):
    _, code = sweep(Launcher(composed), common=["experiment=reproduce_paper", "paper=digits"])
    assert "without -m" in code


def test_jobs_are_given_to_the_launcher_so_many_at_a_time_and_numbered_on(sweep, composed):
    launcher = Launcher(composed)
    assert sweep(launcher, at_most=3)[1] == 0
    assert launcher.launched == [["seed=0", "seed=1", "seed=2"], ["seed=3"]]
    assert launcher.first == [0, 3]


def test_a_folder_that_the_command_names_is_the_sweeps(sweep, composed, tmp_path):
    folder, code = sweep(Launcher(composed), hydra=["hydra.sweep.dir=elsewhere"], folder=tmp_path / "elsewhere")
    assert (folder, code) == (tmp_path / "elsewhere", 0)
    assert not (tmp_path / "sweeps").exists()
    assert len(sweeps.read_sweep(folder)) == 4


@pytest.mark.parametrize("name", ["it's", "a b", "x=1,y=[2]"])
def test_jobs_read_the_sweeps_folder_as_it_is(tmp_path, name):
    jobs = [sweeps.SweepJob((), tmp_path / name / "runs" / "train" / "digits-1")]
    config = OmegaConf.create({"hydra": {"sweep": {"dir": "unnamed"}, "overrides": {"hydra": []}}})
    folder = sweeps._sweep_folder(config, jobs)
    assert folder.parent == tmp_path / name / "sweeps"
    (override,) = OverridesParser.create().parse_overrides(list(config.hydra.overrides.hydra))
    assert override.value() == str(folder)


def test_the_listing_names_the_command_and_every_job(sweep, composed, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/anywhere/experiments/__main__.py", "-m", "seed=0,1"])
    folder, _ = sweep(Launcher(composed), seeds=(0, 1))
    listing = json.loads((folder / "sweep.json").read_text())
    assert [job["overrides"] for job in listing["jobs"]] == [["seed=0"], ["seed=1"]]
    assert listing["command"] == "python -m experiments -m seed=0,1"
    # Relative: a folder of outputs can be moved.
    jobs = sweeps.read_sweep(folder)
    assert [os.path.relpath(job.folder, folder) for job in jobs] == [job["folder"] for job in listing["jobs"]]
    assert all(is_complete(job.folder) for job in jobs)


def test_the_status_of_a_job(sweep, composed, monkeypatch):
    folder, _ = sweep(Launcher(composed), seeds=(0,))
    (job,) = sweeps.read_sweep(folder)
    assert job.status == "finished"
    (job.folder / "results.csv").unlink()
    assert job.status == "stopped", "it has to be run again"
    for noted, being_made, status in [
        ("failed", False, "failed"),
        ("stopped", False, "stopped"),
        ("stopped", True, "running"),
        ("running", False, "stopped"),
        ("running", True, "running"),
    ]:
        write_json(job.folder / "manifest.json", {"status": noted})
        monkeypatch.setattr(sweeps, "is_being_made", lambda _, answer=being_made: answer)
        assert job.status == status, (noted, being_made)
    (job.folder / "manifest.json").unlink()
    assert job.status == "running"
    monkeypatch.setattr(sweeps, "is_being_made", lambda _: False)
    assert job.status == "waiting"


@pytest.mark.parametrize("then", ["finished", "failed", "running"])
def test_a_job_that_ends_or_begins_during_the_look_is_not_called_stopped(sweep, composed, monkeypatch, then):
    folder, _ = sweep(Launcher(composed), seeds=(0,))
    (job,) = sweeps.read_sweep(folder)
    finished = read_manifest(job.folder)
    write_json(job.folder / "manifest.json", {"status": "running" if then != "running" else "stopped"})

    def ends_now(folder):
        write_json(job.folder / "manifest.json", {**finished, "status": then})
        return False

    monkeypatch.setattr(sweeps, "is_being_made", ends_now)
    assert job.status == then


def test_the_error_of_a_job_that_could_not_note_it_itself_stands_in_the_summary(sweep, composed, capsys):
    class Silent(Launcher):
        def launch(self, job_overrides, initial_job_idx):
            returned = super().launch(job_overrides[:1], initial_job_idx)
            lost = JobReturn(overrides=job_overrides[1], status=JobStatus.FAILED)
            lost.return_value = RuntimeError("its node was lost")
            return [*returned, lost]

    folder, code = sweep(Silent(composed), seeds=(0, 1))
    assert code == 1
    assert summary_of(folder).error[1] == "its node was lost"
    assert "Error executing job" not in capsys.readouterr().err, "Hydra's property prints"


def test_a_job_that_cannot_be_configured_ends_the_sweep_before_any_runs(sweep, composed):
    launcher = Launcher(composed)
    _, code = sweep(launcher, common=["sparsity=120"])
    assert str(code).startswith("error: ")
    assert "0 ≤ sparsity < 100" in str(code)
    assert launcher.launched == []


@pytest.mark.parametrize("content", ["", "{", None])
def test_a_folder_that_is_no_sweeps_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "sweep.json").write_text(content)
    with pytest.raises(InputError, match="is not the folder of a sweep"):
        sweeps.read_sweep(tmp_path)


def _combinations(*arguments: str) -> list[list[str]]:
    return combinations(OverridesParser.create().parse_overrides(list(arguments)))


def test_a_sweep_is_every_combination_of_the_values():
    assert _combinations("a=1,2", "b=x", "+c=range(2)", "d=[1,2],[3]", "~e", "a.b='q,r'") == [
        [f"a={a}", "b=x", f"+c={c}", f"d={d}", "~e=null", "a.b='q,r'"]
        for a in (1, 2)
        for c in (0, 1)
        for d in ("[1,2]", "[3]")
    ]
    assert _combinations() == [[]]
    assert _combinations("a=1,2", "a=3") == [["a=3"]], "the last one counts"


def test_a_range_without_single_values_is_no_sweep():
    with pytest.raises(
        HydraException, match=r"a=interval\(0,1\): a sweep needs its values one by one, as in a=1,2,3"
    ):
        _combinations("a=interval(0,1)")
