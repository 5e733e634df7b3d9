"""Sweeps in processes of their own: killed halfway, and two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import CONF
from experiments.engine.cache import is_complete
from experiments.engine.provenance import read_manifest
from experiments.engine.sweep import read_sweep
from experiments.engine.table import read_table
from tests.experiments.conftest import SMALL

ROOT = CONF.parent
JOB = [*SMALL, "experiment=path_analysis", "experiment.images=8", "experiment.by_site=false"]


def _command(outputs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "experiments", "-m", f"outputs={outputs}", *JOB, *arguments]


def _finished(outputs: Path) -> dict[Path, int]:
    """Manifests of finished jobs and when they were written."""
    files = [file for file in outputs.glob("runs/*/*/manifest.json") if is_complete(file.parent)]
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
    assert f"12 jobs, {len(before)} already finished, {12 - len(before)} to run" in output
    after = _finished(trained)
    assert len(after) == 12
    assert {file: after[file] for file in before} == before, "finished jobs were not redone"
    (folder,) = (trained / "sweeps").glob("path_analysis-*")
    table = read_table(folder / "results.csv")
    kept = table[(table.metric == "class_kept") & (table.method == "random")]
    assert kept.seed.tolist() == ["0 1"] * 3
    assert (folder / "figures" / "path_analysis-digits-resnet8_narrow-sparsity.png").exists()


@pytest.mark.slow
def test_two_sweeps_at_once_share_artifacts_and_jobs(tmp_path):
    # They overlap in the jobs of sparsity 90; seed 5 has to be trained, scores to be made.
    first = _start(_command(tmp_path, "method=neuron_mct", "sparsity=80,90", "seed=5,6"))
    second = _start(_command(tmp_path, "method=neuron_mct", "sparsity=90,99", "seed=5,6"))
    outputs = [process.communicate(timeout=300)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outputs
    made = [read_manifest(file.parent) for file in tmp_path.glob("artifacts/*/*/manifest.json")]
    assert sorted(manifest["kind"] for manifest in made) == ["models", "models", "scores", "scores"]
    assert {manifest["begun"] for manifest in made} == {1}, "two models and two sets of scores, each made once"
    results = [line for output in outputs for line in output.splitlines() if line.startswith("results: ")]
    assert len(results) == len(set(results)) == 6
    assert {read_manifest(file.parent)["begun"] for file in tmp_path.glob("runs/*/*/manifest.json")} == {1}
    sizes = [len(read_sweep(folder)) for folder in (tmp_path / "sweeps").iterdir()]
    assert sizes == [4, 4]
    folders = {file.parent for file in tmp_path.rglob("manifest.json")}
    assert all(is_complete(folder) for folder in folders)
