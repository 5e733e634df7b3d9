"""Devices, threads and memory: what a job is given, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from cpath.errors import InputError
from experiments.engine import devices
from experiments.engine.cache import is_complete
from experiments.engine.config import parse
from experiments.engine.devices import check_trainer, device_of, devices_of, hardware_of
from experiments.engine.job import Job, run
from experiments.engine.provenance import read_manifest
from experiments.engine.table import Row
from experiments.path_analysis import PathAnalysis

PROGRAM = """
import json, psutil, torch
from experiments.engine.devices import give_back_memory, keep_freed_memory

megabytes = lambda: psutil.Process().memory_info().rss / 1e6
def use():
    block = torch.ones(40_000_000)
before = megabytes()
use()
given_back = megabytes()
keep_freed_memory()
use()
kept = megabytes()
give_back_memory()
print(json.dumps([given_back - before, kept - before, megabytes() - before]))
"""


@pytest.mark.skipif(devices._of_c_library("malloc_trim") is None, reason="not glibc")
def test_freed_memory_is_kept_when_told_and_given_back_when_told():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    at_first, kept, given_back = json.loads(done.stdout)
    assert at_first < 40
    assert kept > 140  # of 160
    assert given_back < 40


@pytest.fixture
def gpus(monkeypatch):
    """Pretends that the machine has so many GPUs."""

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.fixture
def number(monkeypatch):
    """Pretends that the job has a number in a sweep."""
    return lambda place: monkeypatch.setattr(devices, "sweep_number", lambda: place)


@pytest.mark.parametrize(
    ("count", "place", "device"),
    [(0, None, "cpu"), (0, 3, "cpu"), (1, None, "cuda"), (1, 3, "cuda"), (2, None, "cuda"), (2, 3, "cuda:1")],
)
def test_the_jobs_of_a_sweep_take_turns_at_the_gpus(configure, gpus, number, count, place, device):
    gpus(count)
    number(place)
    assert device_of(parse(configure("device=auto"))) == torch.device(device)


def test_a_named_device_is_that_one(configure, gpus, number):
    gpus(2)
    number(3)
    for name in ("cpu", "cuda", "cuda:0", "cuda:1"):
        assert device_of(parse(configure(f"device={name}"))) == torch.device(name)


def test_processes_side_by_side_have_all_gpus_in_turn(configure, gpus, number):
    gpus(2)
    number(None)
    assert devices_of(parse(configure()), 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices_of(parse(configure("device=cuda:1")), 2) == ["cuda:1", "cuda:1"]
    number(1)
    assert devices_of(parse(configure()), 2) == ["cuda:1", "cuda:1"], "a job of a sweep has its own"
    gpus(0)
    assert devices_of(parse(configure()), 2) == ["cpu", "cpu"]


@pytest.mark.parametrize("name", ["banana", "cuda:x", "cuda:-1", "meta", "gpu"])
@pytest.mark.parametrize("finished", [False, True])
def test_an_impossible_device_is_an_error_even_for_a_finished_job(configure, monkeypatch, name, finished):
    if finished:
        _finish(configure, monkeypatch)
    with pytest.raises(InputError, match=rf"there is no device '{name}': say device=auto, cpu, cuda or cuda:N"):
        run(configure("experiment=path_analysis", f"device={name}"))


@pytest.mark.parametrize(
    ("count", "name", "words"),
    [
        (0, "cuda", "no CUDA device is available"),
        (0, "cuda:1", "no CUDA device"),
        (2, "cuda:2", "there are 2 such"),
    ],
)
def test_a_device_that_this_machine_has_not_is_an_error(configure, gpus, count, name, words):
    gpus(count)
    with pytest.raises(InputError, match=f"device={name} was asked for, but .*{words}"):
        device_of(parse(configure(f"device={name}")))


def _finish(configure, monkeypatch) -> Job:
    monkeypatch.setattr(PathAnalysis, "run", lambda experiment, job: [Row("random", "class_kept", 1.0)])
    monkeypatch.setattr(PathAnalysis, "figures", lambda experiment, table: [])
    run(configure("experiment=path_analysis", "device=cpu"))
    return Job(parse(configure("experiment=path_analysis")))


@pytest.mark.parametrize("settings", [["device=cuda"], ["device=cuda:3"], ["device=cuda", "trainer=ddp"]])
def test_a_finished_job_is_read_without_its_device(configure, monkeypatch, gpus, settings):
    gpus(0)
    job = _finish(configure, monkeypatch)
    monkeypatch.setattr(PathAnalysis, "run", lambda *_: pytest.fail("it was run again"))
    if "trainer=ddp" in settings:  # another training, and so another job
        check_trainer(parse(configure(*settings)))
        return
    table = run(configure("experiment=path_analysis", *settings))
    assert table.value.tolist() == [1.0]
    assert is_complete(job.folder)


def test_an_unfinished_job_needs_its_device(configure, monkeypatch, gpus):
    gpus(0)
    monkeypatch.setattr(PathAnalysis, "run", lambda *_: pytest.fail("work was started"))
    cfg = configure("experiment=path_analysis", "device=cuda")
    with pytest.raises(InputError, match="no CUDA device is available: say device=cpu"):
        run(cfg)
    assert read_manifest(Job(parse(cfg)).folder)["status"] == "failed"


def test_more_training_processes_than_gpus_are_refused(configure, gpus, number):
    gpus(2)
    number(None)
    with pytest.raises(InputError, match="there are 2 GPUs"):
        check_trainer(parse(configure("trainer.processes=3")))
    check_trainer(parse(configure("trainer.processes=2")))
    check_trainer(parse(configure("trainer.processes=3", "device=cpu")))
    number(0)
    with pytest.raises(InputError, match=r"inside a sweep"):
        hardware_of(parse(configure("trainer.processes=2")))
    check_trainer(parse(configure("trainer.processes=1")))
