from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from experiments.framework.store import ArtifactStore, digest, slug

KEY = {"model": "resnet8", "seed": 0}


def _write(folder: Path) -> None:
    (folder / "value.txt").write_text("42")


def test_an_artifact_is_built_once_and_found_by_its_key(tmp_path):
    store, calls = ArtifactStore(tmp_path), []

    def make(folder: Path) -> None:
        calls.append(folder)
        _write(folder)

    first = store.build("models", "resnet8", KEY, make)
    second = store.build("models", "resnet8", dict(reversed(KEY.items())), make)
    assert first == second == store.path("models", "resnet8", KEY)
    assert (first / "value.txt").read_text() == "42"
    assert len(calls) == 1
    assert store.build("models", "resnet8", {**KEY, "seed": 1}, make) != first


def test_an_interrupted_build_goes_on_in_its_folder_and_is_never_seen_half_done(tmp_path):
    store = ArtifactStore(tmp_path)

    def stops(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.build("models", "resnet8", KEY, stops)
    assert not store.path("models", "resnet8", KEY).exists()

    def goes_on(folder: Path) -> None:
        assert (folder / "half.txt").read_text() == "half"
        _write(folder)

    assert (store.build("models", "resnet8", KEY, goes_on) / "value.txt").exists()


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [_flip, lambda file: file.write_text(""), Path.unlink])
def test_of_a_damaged_artifact_what_is_damaged_is_made_again_and_said(tmp_path, caplog, damage):
    store = ArtifactStore(tmp_path)

    def make(folder: Path) -> None:
        for name in ("value.txt", "other.txt"):
            if not (folder / name).exists():
                (folder / name).write_text(f"42 of {name}")

    folder = store.build("models", "resnet8", KEY, make)
    before = (folder / "other.txt").stat().st_mtime_ns
    damage(folder / "value.txt")
    assert store.build("models", "resnet8", KEY, make) == folder
    assert (folder / "value.txt").read_text() == "42 of value.txt"
    assert (folder / "other.txt").stat().st_mtime_ns == before
    assert f"{folder} is damaged (value.txt) and is made again" in caplog.text


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", '{"files": 3}'])
def test_an_artifact_whose_manifest_tells_nothing_is_made_again_whole(tmp_path, caplog, manifest):
    store = ArtifactStore(tmp_path)
    folder = store.build("models", "resnet8", KEY, _write)
    (folder / "artifact.json").write_text(manifest)
    (folder / "value.txt").write_text("13")
    assert store.build("models", "resnet8", KEY, _write) == folder
    assert (folder / "value.txt").read_text() == "42"
    assert "is damaged" in caplog.text


def test_artifacts_from_before_there_were_checksums_are_kept(tmp_path):
    store = ArtifactStore(tmp_path)
    folder = store.build("models", "resnet8", KEY, _write)
    about = json.loads((folder / "artifact.json").read_text())
    del about["checksums"]
    (folder / "artifact.json").write_text(json.dumps(about))
    store.build("models", "resnet8", KEY, lambda folder: pytest.fail("it was made again"))


def _slow_build(root: Path, log: Path) -> None:
    def make(folder: Path) -> None:
        with log.open("a") as file:
            file.write("built\n")
        time.sleep(0.3)
        _write(folder)

    ArtifactStore(root).build("models", "resnet8", KEY, make)


def test_processes_that_want_the_same_artifact_build_it_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    log = tmp_path / "log.txt"
    processes = [context.Process(target=_slow_build, args=(tmp_path / "store", log)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "built\n"


def _killed_build(root: Path) -> None:
    def make(folder: Path) -> None:
        (folder / ".half.txt.1.partial").write_text("ha")
        (folder / "half.txt").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    ArtifactStore(root).build("models", "resnet8", KEY, make)


def test_a_killed_build_is_taken_up_by_the_next_process(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_killed_build, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    store = ArtifactStore(tmp_path)
    assert not store.path("models", "resnet8", KEY).exists()

    def goes_on(folder: Path) -> None:
        assert [file.name for file in folder.iterdir()] == ["half.txt"]
        _write(folder)

    assert (store.build("models", "resnet8", KEY, goes_on) / "half.txt").read_text() == "half"


def test_names_cannot_leave_the_store():
    assert slug("../../etc/passwd") == "etc_passwd"
    assert slug("..") == "unnamed"


def test_digest_does_not_depend_on_order_and_is_stable():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": 1}) == digest(json.loads('{"a": 1}'))
