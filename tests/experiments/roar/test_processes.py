"""ROAR over several processes, and killed: subprocesses, so slow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from experiments import CONF
from experiments.engine.table import read_table

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "experiments"]
SETTINGS = [
    "dataset._target_=tests.experiments.tiny.digits",
    "dataset.size=8",
    "model.width=4",
    "recipe.batch_size=16",
    "device=cpu",
]
TABLE = [
    "experiment=roar_table",
    *SETTINGS,
    "attribution=gradients",
    "percent=[50]",
    "experiment.seeds=[0,1]",
    "recipe.epochs=40",
]


def _start(outputs: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*COMMAND, f"outputs={outputs}", *arguments],
        cwd=CONF.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _run(outputs: Path, *arguments: str) -> tuple[int, str]:
    process = _start(outputs, *arguments)
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


def _results(outputs: Path, experiment: str = "roar_table") -> pd.DataFrame:
    (file,) = outputs.glob(f"runs/{experiment}/*/results.csv")
    return pd.read_csv(file)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of one process that nothing disturbs."""
    outputs = tmp_path_factory.mktemp("whole")
    code, said = _run(outputs, *TABLE, "experiment.side_by_side=1")
    assert code == 0, said
    return _results(outputs)


@pytest.mark.parametrize("processes", [1, 2])
def test_killed_tables_end_with_the_numbers_of_an_undisturbed_one(tmp_path, processes, undisturbed):
    arguments = [*TABLE, f"experiment.side_by_side={processes}"]
    killed = tmp_path / "killed"
    process = _start(killed, *arguments)
    pattern = "artifacts/cells/*/last.ckpt"
    while process.poll() is None and not list(killed.glob(pattern)):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL, "it was over before it could be killed"
    assert not list(killed.glob("runs/*/*/results.csv"))
    assert list(killed.glob(pattern)), "a cell was killed in the middle"
    code, said = _run(killed, *arguments)
    assert code == 0, said
    pd.testing.assert_frame_equal(_results(killed), undisturbed, check_exact=True)


def test_a_sweep_of_cells_leaves_a_curve_a_method(tmp_path):
    cells = ["attribution=gradients,random", "percent=50,90", "seed=0,1"]
    code, said = _run(tmp_path, "experiment=roar", *SETTINGS, "recipe.epochs=2", *cells, "-m")
    assert code == 0, said
    (folder,) = tmp_path.glob("sweeps/roar-*")
    table = read_table(folder / "results.csv")
    jobs = pd.concat(read_table(file) for file in tmp_path.glob("runs/roar/*/results.csv"))
    curves = table[table.metric == "roar_accuracy"]
    assert (len(curves), set(curves.n), set(curves.variant.fillna(""))) == (4, {2}, {""})
    for row in curves.itertuples():
        seeds = jobs[(jobs.metric == row.metric) & (jobs.method == row.method) & (jobs.x == row.x)].value
        assert row.value == pytest.approx(seeds.mean())
    assert (folder / "figures" / "roar-digits-resnet8_narrow-percent_removed.png").exists()


def test_two_processes_train_as_one_does_and_not_in_a_sweep(tmp_path):
    # Batches of two halves; statistics of batches are a process's own, so the numbers are near, not equal.
    arguments = ["experiment=train", *SETTINGS, "recipe.epochs=30"]
    losses = {}
    for trainer in ("default", "ddp"):
        code, said = _run(tmp_path / trainer, *arguments, f"trainer={trainer}")
        assert code == 0, said
        table = _results(tmp_path / trainer, "train")
        assert len(table[table.metric == "val_accuracy"]) == 30
        losses[trainer] = table[table.metric == "loss"].value.to_numpy()
    for loss in losses.values():
        assert loss[-10:].mean() < 0.93 * loss[:3].mean()
    assert losses["ddp"][-10:].mean() == pytest.approx(losses["default"][-10:].mean(), rel=0.08)
    code, said = _run(tmp_path / "sweep", *arguments, "trainer=ddp", "seed=0,1", "-m")
    assert code == 1
    assert "inside a sweep" in said
    assert not list((tmp_path / "sweep").glob("artifacts/**/*.ckpt"))
