"""The cache: made once, by one process; found, continued, repaired; nothing written where nothing is to be made."""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from cpath.errors import StorageError
from cpath.storage import replacing, write_tensors
from experiments.engine import cache as cache_module
from experiments.engine.cache import (
    Cache,
    Entry,
    Key,
    digest,
    is_being_made,
    is_complete,
    mark_failed,
    slug,
    write_text,
    writing_to,
)
from experiments.engine.locks import is_locked, locked
from experiments.engine.provenance import MANIFEST, read_manifest

KEY = Key("models", "resnet8", {"model": "resnet8", "seed": 0})


def _make(root: Path, key: Key = KEY, text: str = "42", redo: bool = False) -> tuple[Path, bool]:
    """Makes an entry of one file unless it is there; its folder, and whether it was made."""
    with Cache(root).entry(key, redo=redo) as entry:
        if entry.missing:
            write_text(entry.folder / "value.txt", text)
    return entry.folder, entry.missing


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_an_entry_is_made_once_and_found_by_its_key(tmp_path):
    folder, made = _make(tmp_path)
    assert made
    assert folder == Cache(tmp_path).folder(KEY)
    assert folder.parent == tmp_path / "models"
    assert Cache(tmp_path).holds(KEY)
    same = Key("models", "resnet8", dict(reversed(KEY.made_of.items())))
    assert _make(tmp_path, same, "13") == (folder, False)
    assert (folder / "value.txt").read_text() == "42"
    other, made = _make(tmp_path, Key("models", "resnet8", {**KEY.made_of, "seed": 1}))
    assert made
    assert other != folder


def test_the_manifest_says_what_it_is_made_of_with_what_and_when(tmp_path):
    folder, _ = _make(tmp_path)
    manifest = read_manifest(folder)
    assert (manifest["kind"], manifest["made_of"], manifest["status"]) == ("models", KEY.made_of, "finished")
    assert list(manifest["files"]) == ["value.txt"]
    assert (manifest["process"], manifest["versions"]["python"]) == (os.getpid(), sys.version.split()[0])
    assert manifest["started"] <= manifest["finished"]
    assert "error" not in manifest


def test_an_interrupted_entry_continues_in_its_folder_and_is_not_complete(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt), cache.entry(KEY) as entry:
        write_text(entry.folder / "half.txt", "half")
        raise KeyboardInterrupt
    assert not cache.holds(KEY)
    assert read_manifest(entry.folder)["status"] == "stopped"
    with cache.entry(KEY) as entry:
        assert entry.missing
        assert (entry.folder / "half.txt").read_text() == "half"
        write_text(entry.folder / "value.txt", "42")
    assert cache.holds(KEY)
    assert set(read_manifest(entry.folder)["files"]) == {"half.txt", "value.txt"}


def test_an_entry_whose_maker_raises_is_failed_and_tried_again(tmp_path):
    cache = Cache(tmp_path)
    with pytest.raises(ValueError, match="no such layer"), cache.entry(KEY) as entry:
        write_text(entry.folder / "half.txt", "half")
        raise ValueError("no such layer")
    manifest = read_manifest(entry.folder)
    assert (manifest["status"], manifest["error"]) == ("failed", "no such layer")
    assert "in test_an_entry_whose_maker_raises" in manifest["traceback"]
    assert not cache.holds(KEY)
    with cache.entry(KEY) as entry:
        assert entry.missing
        assert (entry.folder / "half.txt").exists(), "what was finished is used again"
    manifest = read_manifest(entry.folder)
    assert manifest["status"] == "finished"
    assert not {"error", "traceback"} & manifest.keys()


def test_an_error_without_words_is_named(tmp_path):
    with pytest.raises(AssertionError), Cache(tmp_path).entry(KEY) as entry:
        raise AssertionError
    assert read_manifest(entry.folder)["error"] == "AssertionError()"


def test_the_error_is_the_makers_even_if_it_cannot_be_noted(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="first"), Cache(tmp_path).entry(KEY) as entry:
        monkeypatch.setattr(cache_module, "write_json", _full)
        raise ValueError("first")
    monkeypatch.undo()
    assert not is_complete(entry.folder)
    assert _make(tmp_path)[1]


def _full(path: Path, content: object) -> None:
    raise StorageError(f"cannot write {path}: No space left on device.")


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


DAMAGES = [_flip, _truncate, lambda file: file.write_text(""), Path.unlink]


@contextmanager
def _two_files(root: Path) -> Iterator[Path]:
    with Cache(root).entry(KEY) as entry:
        for name in ("value.txt", "deep/other.txt"):
            if entry.missing and not (entry.folder / name).exists():
                write_text(entry.folder / name, f"42 of {name}")
        yield entry.folder


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "other"), [("value.txt", "deep/other.txt"), ("deep/other.txt", "value.txt")])
def test_of_a_damaged_entry_the_damaged_file_is_made_again_and_said(tmp_path, caplog, damage, name, other):
    with _two_files(tmp_path) as folder:
        pass
    before = (folder / other).stat().st_mtime_ns
    damage(folder / name)
    assert not Cache(tmp_path).holds(KEY)
    with _two_files(tmp_path) as again:
        pass
    assert again == folder
    assert Cache(tmp_path).holds(KEY)
    assert (folder / name).read_text() == f"42 of {name}"
    assert (folder / other).stat().st_mtime_ns == before
    assert f"{folder} is damaged ({name}) and is made again" in caplog.text


@pytest.mark.parametrize(
    "manifest",
    ["", "{", "[]", "{}", '{"files": 3}', '{"status": "finished"}', '{"status": "finished", "files": 3}', "\udcff"],
)
def test_an_entry_whose_manifest_tells_nothing_is_made_again_whole(tmp_path, caplog, manifest):
    with _two_files(tmp_path) as folder:
        pass
    (folder / MANIFEST).write_bytes(manifest.encode(errors="surrogateescape"))
    (folder / "value.txt").write_text("13")
    (folder / "stray.txt").write_text("13")
    with _two_files(tmp_path):
        pass
    assert (folder / "value.txt").read_text() == "42 of value.txt"
    assert _files(folder) == {"value.txt", "deep/other.txt", MANIFEST}
    assert f"{folder} is damaged ({MANIFEST}) and is made again" in caplog.text


@pytest.mark.parametrize("place", range(0, 1000, 37))
def test_a_flipped_bit_of_the_manifest_never_passes_damaged_files(tmp_path, place):
    folder, _ = _make(tmp_path)
    _truncate(folder / "value.txt")
    text = bytearray((folder / MANIFEST).read_bytes())
    text[place % len(text)] ^= 1
    (folder / MANIFEST).write_bytes(text)
    with Cache(tmp_path).entry(KEY) as entry:
        assert entry.missing
        write_text(entry.folder / "value.txt", "42")
    assert _make(tmp_path) == (folder, False)


def _with_scratch(root: Path) -> tuple[Path, bool]:
    """Makes an entry with a file of use to an interrupted process; its folder, and whether that file was there."""
    with Cache(root).entry(KEY) as entry:
        entry.scratch = ("*.ckpt",)
        begun = (entry.folder / "last.ckpt").exists()
        if entry.missing:
            write_text(entry.folder / "last.ckpt", "1")
            write_text(entry.folder / "value.txt", "42")
    return entry.folder, begun


def test_scratch_files_go_with_the_manifest_that_says_finished_and_not_before(tmp_path, monkeypatch):
    finish = Entry.finish
    stops = iter([True])

    def stops_first(entry, status, error=None):
        if status == "finished" and next(stops, False):
            raise KeyboardInterrupt
        finish(entry, status, error)

    monkeypatch.setattr(Entry, "finish", stops_first)
    with pytest.raises(KeyboardInterrupt):
        _with_scratch(tmp_path)
    folder, begun = _with_scratch(tmp_path)
    assert begun
    assert set(read_manifest(folder)["files"]) == {"value.txt"}
    assert is_complete(folder)
    assert _files(folder) == {"value.txt", MANIFEST}
    assert _with_scratch(tmp_path) == (folder, False)


def _nested(root: Path) -> tuple[Path, list[int]]:
    """Makes an entry of three parts; its folder, and the parts that were made."""
    made = []
    with Cache(root).entry(KEY) as entry:
        entry.changeable = ("parts",)
        for number in range(3) if entry.missing else ():
            with Cache(entry.folder).entry(Key("parts", f"{number}", {"number": number})) as part:
                if part.missing:
                    made.append(number)
                    write_text(part.folder / "value.txt", f"{number}")
        if entry.missing:
            write_text(entry.folder / "sum.txt", "3")
    return entry.folder, made


def test_entries_inside_an_entry_are_used_again_and_leave_no_locks(tmp_path):
    folder, made = _nested(tmp_path)
    assert made == [0, 1, 2]
    assert _nested(tmp_path) == (folder, [])
    assert not list(folder.rglob(".*")), "nothing hidden is left"
    (folder / "sum.txt").unlink()
    _flip(next(folder.glob("parts/1-*")) / "value.txt")
    assert _nested(tmp_path)[1] == [1]
    (folder / MANIFEST).write_text("{")
    (next(folder.glob("parts/2-*")) / MANIFEST).write_text("{")
    assert _nested(tmp_path)[1] == [2], "parts have manifests of their own"


def test_what_may_change_later_or_is_gone_does_not_damage_an_entry(tmp_path):
    folder, _ = _nested(tmp_path)
    shutil.rmtree(folder / "parts")
    assert is_complete(folder)
    assert list(read_manifest(folder)["files"]) == ["sum.txt"]
    assert _nested(tmp_path) == (folder, [])


def test_redo_makes_it_again_from_nothing(tmp_path):
    folder, _ = _nested(tmp_path)
    with Cache(tmp_path).entry(KEY, redo=True) as entry:
        assert entry.missing
        assert _files(folder) == {MANIFEST}
        assert read_manifest(folder)["status"] == "running"
        assert not is_complete(folder)
    assert is_complete(folder)


def test_a_finished_entry_may_be_read_only(tmp_path, monkeypatch):
    folder, _ = _make(tmp_path)
    monkeypatch.setattr(cache_module, "locked", lambda *_: pytest.fail("it was locked"))
    monkeypatch.setattr(cache_module, "write_json", lambda *_: pytest.fail("it was written to"))
    assert _make(tmp_path) == (folder, False)


def test_only_what_is_not_finished_is_marked_failed(tmp_path):
    folder, _ = _make(tmp_path)
    mark_failed(folder, "killed")
    assert is_complete(folder)
    _truncate(folder / "value.txt")
    mark_failed(folder, "killed")
    assert (read_manifest(folder)["status"], read_manifest(folder)["error"]) == ("failed", "killed")
    mark_failed(tmp_path / "models" / "another", "never began")
    assert read_manifest(tmp_path / "models" / "another")["status"] == "failed"


# --- several processes ---


_CONTEXT = multiprocessing.get_context("fork")


class _Other:
    """Another process, perhaps of another user, that does ``work``; `said` is what it logs, returns or raises."""

    def __init__(self, work: Callable[[], object], umask: int | None = None, user: int | None = None) -> None:
        self._said, theirs = _CONTEXT.Pipe(duplex=False)
        self.process = _CONTEXT.Process(target=self._do, args=(work, theirs, umask, user), daemon=True)
        self.process.start()
        theirs.close()

    def said(self) -> object:
        assert self._said.poll(60), "it says nothing"
        return self._said.recv()

    @staticmethod
    def _do(work: Callable[[], object], said: Connection, umask: int | None, user: int | None) -> None:
        handler = logging.Handler()
        handler.emit = lambda record: said.send(record.getMessage())
        logging.getLogger().addHandler(handler)
        if umask is not None:
            os.umask(umask)
        if user is not None:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
        try:
            said.send(work())
        except Exception as error:
            said.send(f"{type(error).__name__}: {error}")


def _slow(root: Path, log: Path, redo: bool = False) -> None:
    with Cache(root).entry(KEY, redo=redo) as entry:
        if entry.missing:
            with log.open("a") as file:
                file.write("made\n")
            time.sleep(0.5)
            write_text(entry.folder / "value.txt", "42")
    assert (entry.folder / "value.txt").read_text() == "42"


@pytest.mark.parametrize("redo", [False, True])
def test_processes_that_want_the_same_entry_make_it_once(tmp_path, redo):
    log, root = tmp_path / "log.txt", tmp_path / "cache"
    if redo:
        _make(root, text="41")
    processes = [_CONTEXT.Process(target=_slow, args=(root, log, redo)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert log.read_text() == "made\n"


def _killed(root: Path) -> None:
    with Cache(root).entry(KEY) as entry, replacing(entry.folder / "deep" / "value.txt") as partial:
        write_text(entry.folder / "half.txt", "half")
        partial.write_text("4")
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_maker_is_noticed_and_the_next_process_continues(tmp_path):
    process = _CONTEXT.Process(target=_killed, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    cache = Cache(tmp_path)
    folder = cache.folder(KEY)
    assert read_manifest(folder)["status"] == "running"
    assert not cache.holds(KEY)
    assert not is_being_made(folder)
    assert list(folder.rglob(".*.partial")), "it was killed while it wrote"
    with cache.entry(KEY) as entry:
        assert _files(folder) == {"half.txt", MANIFEST}
        assert is_being_made(folder)
        assert entry.missing
        write_text(folder / "value.txt", "42")
    assert (folder / "half.txt").read_text() == "half"
    assert cache.holds(KEY)


def _at_work(root: Path, started: Path) -> None:
    with Cache(root).entry(KEY):
        started.touch()
        time.sleep(60)


def test_who_waits_for_a_maker_that_is_killed_takes_over(tmp_path):
    root, started = tmp_path / "cache", tmp_path / "started"
    first = _Other(lambda: _at_work(root, started))
    while not started.exists():
        time.sleep(0.01)
    second = _Other(lambda: _make(root))
    assert second.said() == f"waiting for another process that makes {Cache(root).folder(KEY)}"
    first.process.kill()
    assert second.said() == (Cache(root).folder(KEY), True)
    assert Cache(root).holds(KEY)


def test_to_ask_whether_something_is_made_writes_nothing(tmp_path):
    assert not is_being_made(tmp_path / "models" / "there-is-none")
    assert not list(tmp_path.iterdir())
    path = tmp_path / "lock"
    assert not is_locked(path)
    with locked(path, "works") as held:
        assert held
        assert is_locked(path)
    assert not is_locked(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o007, 0o660, 0o770), (0o077, 0o600, 0o700)]
)
def test_files_locks_and_folders_have_the_mode_of_the_users_umask(tmp_path, umask, file, folder):
    root = tmp_path / "outputs"

    def work() -> None:
        with Cache(root).entry(KEY) as entry:
            write_text(entry.folder / "value.txt", "42")
            write_tensors(entry.folder / "deep" / "value.safetensors", {"a": torch.zeros(1)}, {})

    assert _Other(work, umask).said() is None
    modes = {path.relative_to(root).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*")}
    name = Cache(root).folder(KEY).relative_to(root).as_posix()
    files = ["value.txt", "deep/value.safetensors", MANIFEST]
    assert modes == {
        **dict.fromkeys(("models", name, f"{name}/deep"), folder),
        **{f"{name}/{one}": file for one in files},
        f"models/.{KEY.name}.lock": file,
    }


_COLLEAGUE = 12345  # number of another user


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that others may read; the test is skipped for users who cannot be somebody else."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be two users")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _read(root: Path, key: Key = KEY) -> str:
    with writing_to(root), Cache(root).entry(key) as entry:
        assert not entry.missing
    return (entry.folder / "value.txt").read_text()


def test_a_colleague_who_may_only_read_reads_and_waits(shared):
    with Cache(shared).entry(KEY) as entry:
        waiting = _Other(lambda: _read(shared), user=_COLLEAGUE)
        assert waiting.said() == f"waiting for another process that makes {entry.folder}"
        assert _Other(lambda: is_being_made(entry.folder), user=_COLLEAGUE).said() is True
        write_text(entry.folder / "value.txt", "42")
    assert waiting.said() == "42"
    assert _Other(lambda: _read(shared), user=_COLLEAGUE).said() == "42"
    assert _Other(lambda: is_being_made(entry.folder), user=_COLLEAGUE).said() is False


def test_a_colleague_who_may_only_read_is_told_what_is_not_finished(shared):
    with pytest.raises(KeyboardInterrupt), Cache(shared).entry(KEY) as entry:
        raise KeyboardInterrupt
    before = _files(shared)
    said = str(_Other(lambda: _read(shared), user=_COLLEAGUE).said())
    assert said.startswith(
        f"StorageError: cannot write {entry.folder}: it belongs to another user, and is not finished."
    )
    assert "outputs=FOLDER" in said
    new = Key("models", "new", {})
    assert str(_Other(lambda: _read(shared, new), user=_COLLEAGUE).said()).startswith("StorageError: cannot write")
    assert _files(shared) == before


# --- errors of the disk, names ---


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/elsewhere/file"), "cannot write /elsewhere/file: No space left"),
        (OSError(30, "Read-only file system"), "cannot write {outputs}: Read-only file system"),
        (StorageError("cannot write this."), "cannot write this."),
        (PermissionError(13, "Permission denied", "{outputs}/deep/file"), "deep/file: Permission denied"),
    ],
)
def test_an_unwritable_folder_says_what_to_do(tmp_path, error, words):
    if error.filename:
        error.filename = error.filename.format(outputs=tmp_path)
    with pytest.raises(StorageError, match=r"outputs=FOLDER.*continues from here") as raised, writing_to(tmp_path):
        raise error
    assert words.format(outputs=tmp_path) in str(raised.value)


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied", "/etc/shadow"), FileNotFoundError(2, "no")]
)
def test_other_errors_of_files_stay_what_they_are(tmp_path, error):
    with pytest.raises(type(error)) as raised, writing_to(tmp_path):
        raise error
    assert raised.value is error


def test_names_cannot_leave_the_cache():
    assert slug("../../etc/passwd") == "etc_passwd"
    assert slug("..") == "unnamed"


def test_digest_does_not_depend_on_order_and_is_stable():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest({"a": 1}) == digest(json.loads('{"a": 1}')) == "f9d86028c6e0"


def test_digest_keeps_types_and_all_digits():
    values = [1, 1.0, "1", True, None, "None", 0.1, math.nextafter(0.1, 1), 90.00001, 90.000011, [1], {"1": 1}, ""]
    assert len({digest({"x": value}) for value in values}) == len(values)
    assert digest({"x": (1, 2)}) == digest({"x": [1, 2]})
    with pytest.raises(TypeError):
        digest({"x": object()})
    with pytest.raises(TypeError):
        digest({"x": {1: "a", "1": "b"}})


@pytest.fixture(autouse=True)
def _messages(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
