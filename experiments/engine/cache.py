"""The cache: anything costly is made once, and found again by everything that determines its content.

An *entry* is a folder ``ROOT/KIND/LABEL-HASH``. Jobs (``outputs/runs``), trained models, scores, ranks and
retrained cells (``outputs/artifacts``), and the parts of a job (``parts/`` in its folder) are all entries:

>>> with cache.entry(key) as entry:                      # doctest: +SKIP
...     if entry.missing:
...         write_tensors(entry.folder / "maps.safetensors", compute(), metadata)
>>> read_tensors(entry.folder / "maps.safetensors", …)   # doctest: +SKIP

**What is keyed.** The hash covers `Key.made_of`, whole: settings that determine the content, the content of files
that they name, the code of a user's modules, the weights of the model, the identity of the data and of the images,
and cpath's version. Every value keeps its type and all of its digits.

**What is not.** What changes no result but rounding (device, threads, batch sizes that bound the memory, worker
processes), where results go (outputs, tracker), and cpath's own code within one version. Fields of an experiment's
settings say so by `experiments.engine.fields.NOT_KEYED`; an experiment that measures the machine keys the machine
too.

**What happens when something changes.** Another setting, file, weight, user's module or version of cpath has
another hash: a new entry is made, and the old one stays for whoever needs it. An edit of cpath itself without a new
version is not noticed by finished entries: ``redo=true`` runs a job again, and removing a folder below
``outputs/artifacts`` has that entry made again.

**Interrupted, failed, damaged.** An entry is complete when its manifest says ``finished`` and the files that it
lists have their checksums. Until then its folder is a workplace: whoever asks next takes it up, with what is
finished in it. Files that serve only to go on, such as the checkpoints of a training, are removed after the
manifest says ``finished`` and not before: at no time would an interrupted process have to begin again. Of an entry
that was damaged later, the damaged files are removed and the rest is used again. Where the manifest is what is
damaged, nothing tells whether the files are whole: all are removed but entries inside, which have their own.

**Several processes.** A lock beside the folder lets one process make an entry while the others wait; the system
lifts it when that process dies. Files are written under another name and renamed, so that none is seen
half-written. Entries can be shared: files and locks have the mode that the user's umask gives them, and a colleague
who may only read finds what is finished, and waits for what is being made.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import shutil
import time
import traceback
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from cpath.errors import StorageError
from cpath.storage import replacing
from experiments.engine.locks import is_locked, locked
from experiments.engine.provenance import MANIFEST, Provenance, Status, now, read_manifest

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """Identity of a cache entry.

    Args:
        kind: folder that it is in, such as ``models``.
        label: readable beginning of its name; no part of the identity.
        made_of: everything that determines the content: strings, numbers, booleans, None, and lists, tuples and
            mappings of them.
    """

    kind: str
    label: str
    made_of: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the entry's folder."""
        return f"{slug(self.label)}-{digest(self.made_of)}"


def digest(value: object) -> str:
    """Hash a value of the kind that `Key.made_of` holds.

    Args:
        value: strings, numbers, booleans, None, and lists, tuples and mappings of them.

    Returns:
        12 hexadecimal digits, the same in every process.

    Raises:
        TypeError: if a part of the value has no canonical form.
    """
    text = json.dumps(value, sort_keys=True)  # numbers with all their digits, 1 and 1.0 and "1" told apart
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def slug(name: str) -> str:
    """Turn a name into a harmless file name.

    Args:
        name: any text.

    Returns:
        The text with ``_`` in place of everything but letters, digits, ``.``, ``=``, ``_`` and ``-``.
    """
    return re.sub(r"[^A-Za-z0-9.=_-]+", "_", name).strip("._") or "unnamed"


@dataclass
class Entry:
    """An entry as `Cache.entry` hands it out."""

    folder: Path
    """Folder of the entry."""
    missing: bool
    """True if the content has to be made, in `folder`, which may hold what an interrupted process left."""
    provenance: Provenance
    """Record of the entry, written into its manifest."""
    changeable: tuple[str, ...] = ()
    """Folders in it that may change later, such as figures: no part of what makes it complete."""
    scratch: tuple[str, ...] = ()
    """Patterns of files in it that serve only to go on after an interruption: removed when it is finished."""
    _started: float = field(default_factory=time.perf_counter)

    def finish(self, status: Status, error: BaseException | None = None) -> None:
        """Write the manifest with the final status.

        Args:
            status: ``finished``, ``failed`` or ``stopped``.
            error: exception that ended the work; noted with its traceback if the status is ``failed``.
        """
        record = self.provenance
        record.status, record.finished = status, now()
        record.seconds = round(time.perf_counter() - self._started, 2)
        record.describe_code()
        if error is not None and status == "failed":
            record.error = str(error) or repr(error)
            record.traceback = "".join(traceback.format_exception(error))
        if status == "finished":
            for lock in self.folder.rglob(".*.lock"):  # of entries inside, which nobody can be making now
                lock.unlink()
            record.files = {name: file_checksum(self.folder / name) for name in self._lasting_files()}
        write_json(self.folder / MANIFEST, record.as_json())
        if status == "finished":
            for file in self._scratch_files():
                file.unlink()

    def _lasting_files(self) -> list[str]:
        changeable = tuple(f"{folder}/" for folder in self.changeable)
        scratch = self._scratch_files()
        return [
            name
            for name in _files(self.folder)
            if not name.startswith(changeable) and self.folder / name not in scratch
        ]

    def _scratch_files(self) -> set[Path]:
        return {file for pattern in self.scratch for file in self.folder.glob(pattern)}


class Cache:
    """All entries below one folder.

    Args:
        root: the folder; made when the first entry is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: Key) -> Path:
        """Folder of an entry, which may not be made yet.

        Args:
            key: identity of the entry.

        Returns:
            Path of the folder.
        """
        return self.root / key.kind / key.name

    def holds(self, key: Key) -> bool:
        """Tell if an entry is complete.

        Args:
            key: identity of the entry.

        Returns:
            True if it was finished and its files are unchanged.
        """
        return is_complete(self.folder(key))

    @contextmanager
    def entry(self, key: Key, *, redo: bool = False) -> Iterator[Entry]:
        """Hand out an entry; the body of the ``with`` makes its content if it is missing.

        The entry is complete when the body ends, and marked as failed or stopped when an exception ends it.
        Nothing is written for one that is complete already: the folder may be read-only.

        Args:
            key: identity of the entry.
            redo: make it even if it is complete, unless another process did so while this one waited.

        Yields:
            The entry; of no use as a place to write to unless it is ``missing``.

        Raises:
            StorageError: if it is missing and cannot be written.
        """
        folder = self.folder(key)
        entry = Entry(folder, True, Provenance(kind=key.kind, made_of=dict(key.made_of)))
        before = read_manifest(folder)
        if not redo and is_complete(folder):
            entry.missing = False
            yield entry
            return
        with ExitStack() as lock:
            held = lock.enter_context(locked(_lock(folder), f"makes {folder}"))
            if (not redo or read_manifest(folder) != before) and is_complete(folder):
                lock.close()  # made while this process waited
                entry.missing = False
                yield entry
                return
            if not held:
                raise StorageError(f"cannot write {folder}: it belongs to another user, and is not finished.")
            begun = read_manifest(folder).get("begun")
            entry.provenance.begun = begun + 1 if isinstance(begun, int) else 1
            _prepare(folder, redo)
            write_json(folder / MANIFEST, entry.provenance.as_json())
            try:
                yield entry
            except Exception as error:
                with suppress(OSError):  # the error itself is what matters, and may be that the disk is full
                    entry.finish("failed", error)
                raise
            except BaseException:  # Ctrl-C, or a cluster that wants its node back: no fault of the work
                with suppress(OSError):
                    entry.finish("stopped")
                raise
            entry.finish("finished")


def is_complete(folder: Path) -> bool:
    """Tell if an entry was finished, and its files are still what they were.

    Args:
        folder: of the entry, which may not exist.

    Returns:
        True if so.
    """
    manifest = read_manifest(folder)
    return manifest.get("status") == "finished" and not _damaged(folder, manifest)


def is_being_made(folder: Path) -> bool:
    """Tell if a process is at work on an entry now.

    Args:
        folder: of the entry, which may not exist.

    Returns:
        True if one holds its lock.
    """
    return is_locked(_lock(folder))


def mark_failed(folder: Path, error: str) -> None:
    """Note that an entry failed which could not do so itself, unless it is complete.

    Args:
        folder: of the entry; made if it does not exist.
        error: message for the manifest.
    """
    if is_complete(folder):
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / MANIFEST, {**read_manifest(folder), "status": "failed", "error": error, "finished": now()})


def _lock(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _prepare(folder: Path, redo: bool) -> None:
    """Make the folder fit to work in: without half-written and damaged files, and empty for what is made anew."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.rglob(".*.partial"):  # of processes that were killed; nobody else is at work here
        file.unlink()
    manifest = read_manifest(folder)
    if redo:
        _clear(folder, keep_entries=False)
    elif not _tells_what_is_there(manifest):
        if any(folder.iterdir()):
            _LOG.warning("%s is damaged (%s) and is made again", folder, MANIFEST)
        _clear(folder, keep_entries=True)
    elif manifest["status"] == "finished":
        damaged = _damaged(folder, manifest)
        _LOG.warning("%s is damaged (%s) and is made again", folder, ", ".join(damaged))
        for name in damaged:
            (folder / name).unlink(missing_ok=True)


def _tells_what_is_there(manifest: Mapping[str, Any]) -> bool:
    known = manifest.get("status") in get_args(Status)
    return known and (manifest["status"] != "finished" or isinstance(manifest.get("files"), dict))


def _clear(folder: Path, *, keep_entries: bool) -> None:
    for child in folder.iterdir():
        if child.is_symlink() or not child.is_dir():
            child.unlink()
        elif not (keep_entries and any(child.rglob(MANIFEST))):
            shutil.rmtree(child)


def _damaged(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Names of the files that are gone or changed."""
    files = manifest.get("files")
    if not isinstance(files, dict):
        return [MANIFEST]
    return [name for name, checksum in files.items() if _checksum_or_none(folder / name) != checksum]


def _checksum_or_none(path: Path) -> str | None:
    try:
        return file_checksum(path)
    except OSError:
        return None


def _files(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [path.as_posix() for path in found if path.name != MANIFEST and not path.name.startswith(".")]


def file_checksum(path: Path) -> str:
    """CRC-32 of a file.

    Args:
        path: the file.

    Returns:
        8 hexadecimal digits.
    """
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def writing_to(outputs: Path) -> Iterator[None]:
    """Turn the errors of a full or read-only outputs folder into a `StorageError` that says what to do.

    Args:
        outputs: folder that the body of the ``with`` writes to.

    Yields:
        Nothing.

    Raises:
        StorageError: if something below the folder cannot be written, whatever part of the program noticed it.
    """
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else None
        ours = name is not None and Path(name).absolute().is_relative_to(outputs.absolute())
        if isinstance(error, StorageError):
            problem = str(error)
        elif (
            error.errno in _UNWRITABLE
            or (ours and error.errno in (errno.EACCES, errno.EPERM))
            or (ours and not outputs.is_dir())  # a file, or a place where no folder can be made
        ):
            problem = f"cannot write {name or outputs}: {error.strerror}."
        else:
            raise
        raise StorageError(
            f"{problem} Finished work is kept. Make room, or name another folder with outputs=FOLDER, and run the "
            "same command again: it continues from here."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a reader sees the whole file or the previous one.

    Args:
        path: the file; its folder must exist.
        content: to be written; what JSON does not know is written as text.
    """
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; a reader sees the whole file or the previous one.

    Args:
        path: the file; its folder must exist.
        text: to be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
