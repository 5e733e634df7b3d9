"""Sweeps: identity, resuming, failures, launchers that die, and what is collected."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from cpath.errors import InputError
from experiments import CONF, collect
from experiments.framework import collect as collecting
from experiments.framework import sweep
from experiments.framework.job import Job, is_finished, job_folder, mark_failed, run_job
from experiments.framework.results import Row, read_table
from experiments.framework.store import write_json
from tests.experiments.conftest import SMALL

ROOT = CONF.parent
JOB = [*SMALL, "experiment=path_analysis", "experiment.images=8", "experiment.by_site=false"]


class _Composing:
    """Stands for Hydra's loader: composes the configuration of a job."""

    def __init__(self, configure) -> None:
        self.configure = configure

    def load_sweep_config(self, config: DictConfig, overrides: list[str]) -> DictConfig:
        cfg = self.configure(*overrides)
        OmegaConf.set_struct(cfg, False)
        cfg.hydra = {}
        return cfg


class _Launcher:
    """Runs jobs here, each in no time; as told, a job fails, or takes the launcher down with it."""

    def __init__(self, configure, fails: Sequence[str] = (), kills: Sequence[str] = (), together: int = 1) -> None:
        self.configure, self.fails, self.kills, self.together = configure, fails, kills, together
        self.launched: list[list[str]] = []

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[JobReturn]:
        self.launched.append([overrides[-1] for overrides in job_overrides])
        returned = []
        for start in range(0, len(job_overrides), self.together):
            running = job_overrides[start : start + self.together]
            lost = [overrides for overrides in running if overrides[-1] in self.kills]
            for overrides in running:
                folder = job_folder(self.configure(*overrides))
                if lost:
                    write_json(folder / "manifest.json", {"status": "running", "started": time.time_ns()})
                    continue
                returned.append(self._run(overrides))
            if lost:
                raise RuntimeError("a worker was killed")
        return returned

    def _run(self, overrides: list[str]) -> JobReturn:
        result = JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
        seed = int(overrides[-1].partition("=")[2])

        def compute(job: Job) -> list[Row]:
            if overrides[-1] in self.fails:
                raise InputError("this one fails on purpose")
            return [Row("random", "class_kept", float(seed), "sparsity", 90.0, n=8)]

        try:
            run_job(self.configure(*overrides), compute, lambda table: [])
        except Exception as error:
            result.status = JobStatus.FAILED
            result.return_value = error
        return result


@pytest.fixture
def configure(configure):
    """Composing takes a tenth of a second, and these tests compose the same jobs again and again."""
    composed = cache(configure)
    return lambda *overrides: deepcopy(composed(*overrides))


@pytest.fixture
def run(configure, tmp_path):
    """Runs a sweep over seeds with a launcher; (folder of the sweep, exit code)."""

    def go(
        launcher: _Launcher, seeds: Sequence[int] = (0, 1, 2, 3), common: Sequence[str] = ()
    ) -> tuple[Path, int]:
        config = OmegaConf.create({"hydra": {"sweep": {"dir": "unnamed"}, "overrides": {"hydra": []}}})
        try:
            sweep.run_sweep(config, [[*common, f"seed={seed}"] for seed in seeds], _Composing(configure), launcher)
            code = 0
        except SystemExit as stop:
            code = stop.code
        return Path(config.hydra.sweep.dir), code

    return go


def test_the_same_jobs_are_the_same_sweep_and_run_once(run, configure, tmp_path):
    first = _Launcher(configure)
    folder, code = run(first)
    assert code == 0
    assert folder.parent == tmp_path / "sweeps"
    assert folder.name.startswith("path_analysis-")
    assert first.launched == [["seed=0", "seed=1", "seed=2", "seed=3"]]
    again = _Launcher(configure)
    assert run(again, seeds=(3, 2, 1, 0), common=["tracker=csv"]) == (folder, 0)
    assert again.launched == []
    more = _Launcher(configure)
    assert run(more, seeds=(0, 1, 2, 3, 4))[0] != folder
    assert more.launched == [["seed=4"]]


def test_redo_runs_all_again(run, configure):
    run(_Launcher(configure))
    again = _Launcher(configure)
    run(again, common=["redo=true"])
    assert again.launched == [["seed=0", "seed=1", "seed=2", "seed=3"]]


def test_jobs_that_are_the_same_run_once(run, configure):
    launcher = _Launcher(configure)
    run(launcher, seeds=(1, 1, 2))
    assert launcher.launched == [["seed=1", "seed=2"]]


def test_a_failed_job_leaves_the_others_alone_and_stands_in_the_summary(run, configure):
    folder, code = run(_Launcher(configure, fails=["seed=1"]))
    assert code == 1
    summary = read_csv(folder / "summary.csv")
    assert summary.status.tolist() == ["finished", "failed", "finished", "finished"]
    assert summary.error[1] == "this one fails on purpose"
    table = read_table(folder / "results.csv")
    assert (table.value[0], table.n[0], table.seed[0], table.over[0]) == (pytest.approx(5 / 3), 3, "0 2 3", "seeds")
    mended = _Launcher(configure)
    assert run(mended) == (folder, 0)
    assert mended.launched == [["seed=1"]]


def test_a_killed_worker_costs_the_others_nothing(run, configure):
    # Two at a time: seed 1 takes seed 0 down with it. What had not begun goes on first, then each suspect alone.
    launcher = _Launcher(configure, kills=["seed=1"], together=2)
    folder, code = run(launcher)
    assert code == 1
    assert launcher.launched == [
        ["seed=0", "seed=1", "seed=2", "seed=3"],
        ["seed=2", "seed=3"],
        ["seed=0"],
        ["seed=1"],
    ]
    summary = read_csv(folder / "summary.csv")
    assert summary.status.tolist() == ["finished", "failed", "finished", "finished"]
    assert "without a word: a worker was killed" in summary.error[1]


def test_a_launcher_that_never_starts_a_job_is_not_asked_for_ever(run, configure):
    class Broken(_Launcher):
        def launch(self, job_overrides, initial_job_idx):
            self.launched.append([])
            raise RuntimeError("no such partition")

    launcher = Broken(configure)
    folder, code = run(launcher, seeds=(0, 1))
    assert (code, len(launcher.launched)) == (1, 1)
    assert read_csv(folder / "summary.csv").error.str.contains("no such partition").all()


def test_a_stopped_sweep_says_how_it_goes_on(run, configure, caplog):
    class Interrupted(_Launcher):
        def launch(self, job_overrides, initial_job_idx):
            super().launch(job_overrides[:2], initial_job_idx)
            raise KeyboardInterrupt

    folder, code = run(Interrupted(configure))
    assert code == 130
    assert "goes on from here" in caplog.text
    rest = _Launcher(configure)
    assert run(rest) == (folder, 0)
    assert rest.launched == [["seed=2", "seed=3"]]


def test_the_whole_paper_is_no_job_of_a_sweep(run, configure):
    _, code = run(_Launcher(configure), common=["experiment=reproduce_paper", "paper=digits"])
    assert "without -m" in code


def test_collect_on_demand_reads_what_is_finished(run, configure, capsys):
    folder, _ = run(_Launcher(configure))
    jobs = sweep.read_sweep(folder)
    (folder / "results.csv").unlink()
    assert collect.main([str(folder)]) == 0
    assert len(read_table(folder / "results.csv")) == 1
    write_json(jobs[0].folder / "manifest.json", {"status": "running"})
    (jobs[1].folder / "manifest.json").unlink()
    assert collect.main([str(folder)]) == 1
    assert read_csv(folder / "summary.csv").status.tolist() == ["stopped", "waiting", "finished", "finished"]
    assert collect.main([str(folder.parent)]) == 2
    assert "is not the folder of a sweep" in capsys.readouterr().err


def test_a_job_that_another_process_runs_is_waited_for_and_then_found_finished(configure, tmp_path):
    cfg = configure(*JOB)
    script = (
        "import sys, time\n"
        "from omegaconf import OmegaConf\n"
        "from pathlib import Path\n"
        "from experiments.framework.job import run_job\n"
        "from experiments.framework.results import Row\n"
        "def compute(job):\n"
        f"    Path(r'{tmp_path}', 'computed').open('a').write('x')\n"
        "    time.sleep(0.5)\n"
        "    return [Row('random', 'class_kept', 1.0)]\n"
        "cfg = OmegaConf.load(sys.argv[1])\n"
        "print(len(run_job(cfg, compute, lambda table: [])))\n"
    )
    OmegaConf.save(cfg, tmp_path / "cfg.yaml")
    command = [sys.executable, "-c", script, str(tmp_path / "cfg.yaml")]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [output.strip() for output in outputs] == ["1", "1"]
    assert (tmp_path / "computed").read_text() == "x"
    assert is_finished(job_folder(cfg))


def test_a_finished_job_is_never_marked_failed(configure):
    cfg = configure(*JOB)
    run_job(cfg, lambda job: [Row("random", "class_kept", 1.0)], lambda table: [])
    mark_failed(job_folder(cfg), "killed")
    assert is_finished(job_folder(cfg))


def read_csv(path: Path):
    import pandas as pd

    return pd.read_csv(path)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch, request):
    if "figures" not in request.fixturenames:
        monkeypatch.setattr(collecting, "save_drawings", lambda drawings, folder: None)


# --- with real processes ---


def _command(outputs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "experiments", "-m", f"outputs={outputs}", *JOB, *arguments]


def _finished(outputs: Path) -> dict[Path, int]:
    """Manifests of finished jobs and when they were written."""
    files = [file for file in outputs.glob("runs/*/*/manifest.json") if is_finished(file.parent)]
    return {file: file.stat().st_mtime_ns for file in files}


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib", "slurm_local"])
def test_twelve_jobs_killed_halfway_go_on_and_none_that_was_finished_is_redone(trained, launcher):
    arguments = ["method=neuron_mct,random", "sparsity=80,90,99", "seed=0,1", f"hydra/launcher={launcher}"]
    process = _start(_command(trained, *arguments))
    try:
        deadline = time.monotonic() + 240
        while len(_finished(trained)) < 4 and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    time.sleep(0.5)
    before = _finished(trained)
    assert 4 <= len(before) < 12, "it was killed halfway"
    resumed = _start(_command(trained, *arguments))
    output = resumed.communicate(timeout=300)[0]
    assert resumed.returncode == 0, output
    assert f"12 jobs, {len(before)} finished before, {12 - len(before)} to do" in output
    after = _finished(trained)
    assert len(after) == 12
    assert {file: after[file] for file in before} == before, "finished jobs were not redone"
    (folder,) = (trained / "sweeps").glob("path_analysis-*")
    table = read_table(folder / "results.csv")
    kept = table[(table.metric == "class_kept") & (table.method == "random")]
    assert kept.seed.tolist() == ["0 1"] * 3
    assert (folder / "figures" / "path_analysis-digits-resnet8-sparsity.png").exists()


@pytest.mark.slow
def test_two_sweeps_at_once_share_artifacts_and_jobs(tmp_path):
    # They overlap in the jobs of sparsity 90; seed 5 has to be trained, scores to be made.
    first = _start(_command(tmp_path, "method=neuron_mct", "sparsity=80,90", "seed=5,6"))
    second = _start(_command(tmp_path, "method=neuron_mct", "sparsity=90,99", "seed=5,6"))
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    made = [line for output in outputs for line in output.splitlines() if "made: " in line]
    assert len(made) == len(set(made)) == 4, "two models and two sets of scores, each once"
    results = [line for output in outputs for line in output.splitlines() if line.startswith("results: ")]
    assert len(results) == len(set(results)) == 6
    sizes = [len(sweep.read_sweep(folder)) for folder in (tmp_path / "sweeps").iterdir()]
    assert sizes == [4, 4]
    for file in tmp_path.rglob("artifact.json"):
        for name, size in json.loads(file.read_text())["files"].items():
            assert (file.parent / name).stat().st_size == size
