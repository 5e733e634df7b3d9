"""Sweeps on a real Slurm: jobs that are killed, preempted or out of time, and a sweep that is killed itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from experiments.engine.cache import is_complete
from experiments.engine.provenance import read_manifest
from experiments.engine.sweep import read_sweep
from experiments.engine.table import read_table
from tests import slurm
from tests.experiments.test_sweeps import JOB, ROOT
from tests.slurm import Slurm

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(slurm.missing()),
        reason=f"Slurm is not installed (apt install {slurm.PACKAGES}): no {', '.join(slurm.missing())}",
    ),
]

SIX = ["method=neuron_mct,random", "sparsity=80,90,99"]


@pytest.fixture
def cluster() -> Iterator[Slurm]:
    with slurm.cluster() as running:
        yield running
    assert running.processes() == [], "nothing is left of it"
    assert not running.folder.exists()


@pytest.fixture
def start(cluster: Slurm, trained: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a sweep with the launcher's settings as they are; none outlives the test."""
    started = []

    def go(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "experiments", "-m", "hydra/launcher=slurm", f"outputs={trained}", *JOB]
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=ROOT,
            env={**cluster.environment, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield go
    for process in started:
        process.kill()
        process.wait()


def _wait_until(done: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 240
    while not done():
        assert process is None or process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "nothing happened in four minutes"
        time.sleep(0.05)


def _finished(outputs: Path) -> dict[Path, int]:
    """Manifests of the finished jobs, and when they were written."""
    files = [file for file in outputs.glob("runs/*/*/manifest.json") if is_complete(file.parent)]
    return {file: file.stat().st_mtime_ns for file in files}


def _running(outputs: Path) -> list[Path]:
    manifests = outputs.glob("runs/*/*/manifest.json")
    return [file.parent for file in manifests if read_manifest(file.parent).get("status") == "running"]


def _kill_one(outputs: Path, killed: list[Path]) -> bool:
    """Kills a job that is at work; whether there was one."""
    for folder in _running(outputs):
        process = read_manifest(folder)["process"]
        try:
            os.kill(process, signal.SIGSTOP)  # so that it does not finish between the look and the shot
            if folder in _running(outputs):
                os.kill(process, signal.SIGKILL)
                killed.append(folder)
                return True
            os.kill(process, signal.SIGCONT)
        except ProcessLookupError:
            continue
    return False


def _summary(outputs: Path) -> pd.DataFrame:
    (file,) = outputs.glob("sweeps/*/summary.csv")
    return pd.read_csv(file)


def _scores(outputs: Path) -> dict[str, int]:
    """Batches of scores by name, and when they were written."""
    files = outputs.glob("artifacts/scores/*/[!.]*.safetensors")
    return {file.parent.name: file.stat().st_mtime_ns for file in files}


def _tasks(cluster: Slurm, *fields: str) -> list[tuple[str, ...]]:
    return [tuple(job[field] for field in fields) for job in cluster.jobs() if job["JobName"] == "cpath"]


def _computed(outputs: Path) -> Counter[str]:
    """How often the jobs' logs say that results were made, by the job's folder."""
    logs = outputs.glob("sweeps/*/.submitit/*/*_log.out")
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return Counter(line.rpartition("/")[2] for line in lines if line.startswith("results: "))


def test_a_killed_job_is_noticed_and_the_same_command_runs_it_alone(start, trained):
    process = start(*SIX)
    killed: list[Path] = []
    _wait_until(lambda: len(_finished(trained)) >= 2 and _kill_one(trained, killed), process)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 1, output
    summary = _summary(trained)
    assert summary.status.value_counts().to_dict() == {"finished": 5, "failed": 1}
    assert summary.folder[summary.status == "failed"].tolist() == [f"path_analysis/{killed[0].name}"]
    assert summary.error[summary.status == "failed"].str.contains("has not produced any output").all()
    before = _finished(trained)
    again = start(*SIX)
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0, output
    assert "6 jobs, 5 already finished, 1 to run" in output
    after = _finished(trained)
    assert len(after) == 6
    assert {file: after[file] for file in before} == before, "finished jobs were not redone"


@pytest.mark.parametrize("queue", ["goes on", "cancelled"])
def test_a_killed_sweep_goes_on_and_no_job_is_computed_twice(start, trained, cluster, queue):
    process = start(*SIX)
    _wait_until(lambda: len(_finished(trained)) >= 2, process)
    process.kill()
    process.communicate()
    if queue == "cancelled":
        cluster.run("scancel", "--name=cpath")
        _wait_until(lambda: not cluster.run("squeue", "--noheader").strip())
    before = _finished(trained)
    assert 2 <= len(before) < 6, "it was killed halfway"
    again = start(*SIX)
    output = again.communicate(timeout=300)[0]
    assert again.returncode == 0, output
    assert f"{6 - len(before)} to run" in output or queue == "goes on"
    after = _finished(trained)
    assert len(after) == 6
    assert {file: after[file] for file in before} == before, "finished jobs were not redone"
    assert set(_computed(trained).values()) == {1}
    assert len(_computed(trained)) == 6
    (table,) = trained.glob("sweeps/*/results.csv")
    kept = read_table(table).query("metric == 'class_kept'")
    assert sorted(zip(kept.method, kept.x, strict=True)) == sorted(
        (method, x) for method in ("neuron_mct", "random") for x in ("80.0", "90.0", "99.0")
    )


@pytest.mark.parametrize("how", ["preempted", "out of time"])
def test_a_job_that_is_stopped_by_slurm_is_queued_again_and_goes_on(start, trained, cluster, how):
    # One makes the scores, and keeps them batch by batch; the other waits for them.
    slow = [
        "method=neuron_intgrad",
        "method.neuron_intgrad.nodes=192",
        "experiment.images=128",
        "experiment.batch=8",
    ]
    process = start(*slow, "sparsity=80,90")
    _wait_until(lambda: len(_running(trained)) == 2 and len(_scores(trained)) >= 2, process)
    kept = _scores(trained)
    if how == "preempted":
        urgent = ["--partition=urgent", "--cpus-per-task=4", "--job-name=urgent", "--output=/dev/null"]
        cluster.run("sbatch", *urgent, "--wrap", "sleep 600")
    else:  # what Slurm sends signal_delay_s before the time is up
        cluster.run("scancel", "--signal=USR2", "--name=cpath")
    _wait_until(lambda: _tasks(cluster, "Restarts", "JobState") == [("1", "PENDING")] * 2, process)
    (sweep,) = trained.glob("sweeps/*")
    assert [job.status for job in read_sweep(sweep)] == ["stopped", "stopped"]
    if how == "preempted":
        cluster.run("scancel", "--name=urgent")
    else:  # Slurm would wait two minutes
        for (task,) in _tasks(cluster, "JobId"):
            cluster.run("scontrol", "update", f"JobId={task}", "StartTime=now")
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert _tasks(cluster, "Restarts", "JobState") == [("1", "COMPLETED")] * 2
    assert _summary(trained).status.tolist() == ["finished", "finished"]
    assert len(_scores(trained)) == 16
    assert {name: _scores(trained)[name] for name in kept} == kept, "it went on where it was"
