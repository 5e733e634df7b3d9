"""Jobs that are killed, interrupted, or lose their disk: nothing finished is lost, and the rest is made as ever."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments import CONF
from experiments.engine.cache import is_complete

pytestmark = pytest.mark.slow

SMALL = [
    "dataset._target_=tests.experiments.tiny.digits",
    "dataset.size=16",
    "recipe.batch_size=16",
    "recipe.epochs=8",
    "model.width=4",
    "device=cpu",
]
METHODS = ["method=random", "+method.neuron_intgrad={}", "sparsity=[80,90]"]
MAPS = ["attribution=gradcam", "+attribution.neuron_mct={sparsity: 80}"]
# Each takes a few seconds after its start; batches are small, so that there is much to be stopped between.
EXPERIMENTS = {
    "path_analysis": [*METHODS, "experiment.images=24", "experiment.batch=2", "experiment.by_site=false"],
    "path_decoding": [*METHODS, "sparsity=90", "experiment.images=3", "experiment.steps=24"],
    "saliency": [*MAPS, "experiment.images=3", "sparsity=[0,80]"],
    "degradation": [*MAPS, "experiment.images=24", "experiment.batch=2", "percent=[5,50]"],
    "sanity_checks": ["attribution=gradients", "experiment.images=6", "experiment.batch=2", "experiment.draws=2"],
    "linearity": [*METHODS, "experiment.images=16", "experiment.batch=2", "experiment.neurons=4"],
    "train": ["recipe.epochs=60"],
    "roar": ["attribution=gradcam", "percent=50", "experiment.batch=8", "recipe.epochs=20"],
}
KILLS = 3


def arguments(experiment: str) -> list[str]:
    return [f"experiment={experiment}", *SMALL, *EXPERIMENTS[experiment]]


def start(outputs: Path, *arguments: str) -> subprocess.Popen[str]:
    sweeping = ["-m"] if "-m" in arguments else []  # must be the first
    arguments = tuple(argument for argument in arguments if argument != "-m")
    return subprocess.Popen(
        [sys.executable, "-m", "experiments", *sweeping, f"outputs={outputs}", *arguments],
        cwd=CONF.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(outputs: Path, *arguments: str) -> tuple[int, str]:
    process = start(outputs, *arguments)
    said = process.communicate(timeout=300)[0]
    return process.returncode, said


def results(outputs: Path) -> bytes:
    (file,) = outputs.glob("runs/*/*/results.csv")
    return file.read_bytes()


def manifest(outputs: Path) -> dict[str, object]:
    """The job's; empty before it is written."""
    files = list(outputs.glob("runs/*/*/manifest.json"))
    return json.loads(files[0].read_text()) if files else {}


def at_work(process: subprocess.Popen[str], outputs: Path) -> bool:
    """Waits until the process has begun its job; False where it ended before that."""
    while process.poll() is None:
        if manifest(outputs).get("process") == process.pid:
            return True
        time.sleep(0.01)
    return False


def finished_files(outputs: Path) -> dict[str, int]:
    """When each file was written that a rerun may not make again: those of finished entries."""
    files = [*outputs.glob("artifacts/*/*/*.safetensors"), *outputs.glob("runs/*/*/parts/*/*.safetensors")]
    return {str(file): file.stat().st_mtime_ns for file in files if is_complete(file.parent)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[str], Path]:
    """The outputs of an experiment that nothing happened to; run once."""
    made: dict[str, Path] = {}

    def outputs_of(experiment: str) -> Path:
        if experiment not in made:
            made[experiment] = tmp_path_factory.mktemp(experiment)
            code, said = run(made[experiment], *arguments(experiment))
            assert code == 0, said
        return made[experiment]

    return outputs_of


@pytest.mark.parametrize("experiment", list(EXPERIMENTS))
def test_killed_experiments_end_with_the_results_of_undisturbed_ones(tmp_path, undisturbed, experiment):
    whole = undisturbed(experiment)
    seconds = float(manifest(whole)["seconds"])
    moments = random.Random(experiment)
    killed = 0
    for number in range(KILLS):
        process = start(tmp_path, *arguments(experiment))
        if at_work(process, tmp_path):
            # The first falls into the first half, the others at once or later in what is left.
            time.sleep(moments.uniform(0, seconds / 2**number))
        with contextlib.suppress(ProcessLookupError):  # it was faster, and is counted below
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
    assert killed >= KILLS - 1, "it was over before it could be killed"
    before = finished_files(tmp_path)
    code, said = run(tmp_path, *arguments(experiment))
    assert code == 0, said
    assert "damaged" not in said
    assert results(tmp_path) == results(whole)
    after = finished_files(tmp_path)
    assert {file: after.get(file) for file in before} == before, "what was finished was not made again"
    assert _relative(after, tmp_path) == _relative(finished_files(whole), whole)
    assert not list(tmp_path.rglob(".*.partial")), "nothing half-written is left"
    assert not list(tmp_path.glob("runs/*/*/**/.*.lock")), "no lock is left in a finished job"


def _relative(files: dict[str, int], outputs: Path) -> set[str]:
    return {os.path.relpath(file, outputs) for file in files}


@pytest.mark.parametrize("part", ["start", "training", "measuring"])
def test_an_interrupt_is_one_line_and_resumable(tmp_path, undisturbed, part):
    job = arguments("path_analysis")
    process = start(tmp_path, *job)
    if part == "start":
        time.sleep(1.5)  # imports take longer
    else:
        wanted = {"training": "artifacts/models/*/last.ckpt", "measuring": "runs/*/*/parts/*/*.safetensors"}[part]
        while process.poll() is None and not list(tmp_path.glob(wanted)):
            time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "stopped; the same command continues from here"
    assert "Traceback" not in said
    assert all(line.startswith(("model: ", "made: ")) for line in said.splitlines()[:-1])
    if part != "start":
        assert manifest(tmp_path)["status"] == "stopped"
    code, said = run(tmp_path, *job)
    assert code == 0, said
    assert results(tmp_path) == results(undisturbed("path_analysis"))


def test_an_interrupted_sweep_is_one_line_and_resumable(tmp_path):
    sweep = ["-m", "experiment=path_analysis", *SMALL, "method=random", "sparsity=80,90", "experiment.images=4"]
    process = start(tmp_path, *sweep, "recipe.epochs=30")
    while process.poll() is None and not list(tmp_path.glob("artifacts/models/*/last.ckpt")):
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[0]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "stopped; the same command continues from here"
    assert "Traceback" not in said
    code, said = run(tmp_path, *sweep, "recipe.epochs=30")
    assert code == 0, said
    assert "2 jobs: 2 finished" in said


@pytest.fixture
def disk(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own, mounted with options, or again with others; skips the test where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def mount(options: str) -> Path:
        nonlocal mounted
        how = ["-o", f"remount,{options}"] if mounted else ["-t", "tmpfs", "-o", options, "tmpfs"]
        done = subprocess.run(["mount", *how, str(folder)], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
        mounted = True
        return folder

    try:
        yield mount
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


# From a disk that holds nothing at all to one that is full when the figures are drawn.
@pytest.mark.parametrize("kilobytes", [8, 120, 300, 500])
def test_a_full_disk_is_one_line_and_what_is_finished_stays(disk, undisturbed, kilobytes):
    outputs, job = disk(f"size={kilobytes}k"), arguments("path_analysis")
    code, said = run(outputs, *job)
    assert code == 1, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(f"cannot write {outputs}.*No space left on device.*it continues from here", errors[0])
    assert "Traceback" not in said
    before = finished_files(outputs)
    disk("size=100m")
    code, said = run(outputs, *job)
    assert code == 0, said
    assert "damaged" not in said
    assert results(outputs) == results(undisturbed("path_analysis"))
    after = finished_files(outputs)
    assert {file: after.get(file) for file in before} == before


def test_a_full_disk_ends_a_sweep_with_one_line(disk, tmp_path):
    outputs = disk("size=100k")
    code, said = run(outputs, "-m", "experiment=train", *SMALL, "seed=0,1")
    assert code == 1
    assert "No space left on device" in said
    assert "Traceback" not in said


def test_a_read_only_folder_is_one_line_and_what_is_finished_is_read(disk, tmp_path):
    outputs, job = disk("size=100m"), ["experiment=train", *SMALL]
    assert run(outputs, *job)[0] == 0
    disk("ro")
    code, said = run(outputs, *job)
    assert code == 0, said
    assert "already finished" in said
    for more in (["seed=1"], ["-m", "seed=1,2"]):
        code, said = run(outputs, *job, *more)
        assert code == 1
        assert re.search("cannot write .*Read-only file system.*outputs=FOLDER", said)
        assert "Traceback" not in said
        assert said.count("error: ") == 1
