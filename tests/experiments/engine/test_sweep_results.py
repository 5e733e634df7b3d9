"""The outcome of a sweep: its summary, its table, its figures, as far as it has come."""

from __future__ import annotations

import pandas as pd
import pytest

from cpath.errors import StorageError
from experiments import collect
from experiments.engine import sweep_results
from experiments.engine.cache import write_json
from experiments.engine.sweep import read_sweep
from experiments.engine.table import read_table
from experiments.engine.terminal import print_table
from experiments.metrics import pick
from tests.experiments.launching import Launcher, summary_of


def test_collect_on_demand_reads_what_is_finished(sweep, composed, capsys):
    folder, _ = sweep(Launcher(composed))
    jobs = read_sweep(folder)
    (folder / "results.csv").unlink()
    assert collect.main([str(folder)]) == 0
    assert len(read_table(folder / "results.csv")) == 1
    write_json(jobs[0].folder / "manifest.json", {"status": "running"})
    (jobs[1].folder / "manifest.json").unlink()
    assert collect.main([str(folder)]) == 1
    assert summary_of(folder).status.tolist() == ["stopped", "waiting", "finished", "finished"]
    assert read_table(folder / "results.csv").seed.tolist() == ["2 3"]
    assert collect.main([str(folder.parent)]) == 2
    assert "is not the folder of a sweep" in capsys.readouterr().err


def test_a_sweep_without_a_finished_job_has_an_empty_table(sweep, composed):
    folder, code = sweep(Launcher(composed, fails=["seed=0"]), seeds=(0,))
    assert code == 1
    table = read_table(folder / "results.csv")
    assert table.empty
    assert {"variant", "over", "value"} <= set(table.columns)


def test_a_job_whose_configuration_is_damaged_is_not_collected(sweep, composed):
    folder, _ = sweep(Launcher(composed), seeds=(0, 1))
    (read_sweep(folder)[0].folder / "config.yaml").write_text("{")
    assert not sweep_results.collect_sweep(folder)
    assert summary_of(folder).status.tolist() == ["stopped", "finished"]
    again = Launcher(composed)
    assert sweep(again, seeds=(0, 1)) == (folder, 0)
    assert again.launched == [["seed=0"]]


def test_the_figures_of_a_sweep_are_drawn(sweep, composed, figures):
    folder, _ = sweep(Launcher(composed), seeds=(0, 1))
    assert (folder / "figures" / "path_analysis-digits-resnet8_narrow-sparsity.png").exists()


def test_metrics_are_those_of_the_experiments_of_the_jobs(sweep, composed):
    folder, _ = sweep(Launcher(composed), seeds=(0, 1))
    found = sweep_results.metrics_of([job.folder for job in read_sweep(folder)])
    assert found["class_kept"] == pick("class_kept")[0]
    assert "test_accuracy" not in found


def test_a_full_disk_is_one_line(sweep, composed, monkeypatch):
    def full(*_):
        raise StorageError("cannot write results.csv: No space left on device.")

    monkeypatch.setattr(sweep_results, "write_table", full)
    _, code = sweep(Launcher(composed), seeds=(0,))
    assert str(code).startswith("error: cannot write results.csv: No space left on device. Finished work is kept.")


def test_cells_are_shown_as_they_are(sweep, composed, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    sweep(Launcher(composed, fails=["seed=1"]), seeds=(0, 1), common=["sites=[relu]"])
    shown = capsys.readouterr().out
    assert "sites=[relu] seed=1" in shown
    assert "2 jobs: 1 finished, 1 failed" in shown


@pytest.mark.parametrize("fold", [(), ("[bold]",)])
def test_brackets_are_no_markup(capsys, monkeypatch, fold):
    monkeypatch.setenv("COLUMNS", "200")
    print_table(["[bold]", "sparsity=[80,90]"], [["[red]a[/red]", "[/]"], ["\\[b]", 3]], fold=fold)
    assert capsys.readouterr().out.split() == ["[bold]", "sparsity=[80,90]", "[red]a[/red]", "[/]", "\\[b]", "3"]


def test_a_narrow_window_cuts_no_cell(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    folder = "digits-resnet8_narrow-5763771df14c"
    print_table(["status", "folder", "differs in"], [["finished", folder, "sparsity=80 " * 5]], fold=["differs in"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["finished", folder, *["sparsity=80"] * 3]
    assert "".join(lines[1:]).count("sparsity=80") == 5


@pytest.mark.parametrize("jobs", [12, 13])
def test_a_long_list_of_unfinished_jobs_is_cut_short(capsys, jobs):
    row = {"status": "failed", "overrides": "seed=[0]", "error": "it fails"}
    sweep_results._show(pd.DataFrame([{"job": number, **row} for number in range(jobs)]))
    shown = capsys.readouterr().out
    assert shown.count("seed=[0]") == 12
    assert ("… and 1 more in summary.csv" in shown) == (jobs == 13)
    assert f"{jobs} jobs: {jobs} failed" in shown
