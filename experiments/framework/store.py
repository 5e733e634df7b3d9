"""The artifact store: what is costly to make is made once, and found again by what determines it."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from cpath.errors import StorageError
from cpath.storage import replacing

_LOG = logging.getLogger(__name__)
_MANIFEST = "artifact.json"


def digest(key: Mapping[str, Any]) -> str:
    """Short hash of a JSON-like ``key``, the same in every process."""
    text = json.dumps(key, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def slug(name: str) -> str:
    """``name`` as a harmless file name."""
    return re.sub(r"[^A-Za-z0-9.=_-]+", "_", name).strip("._") or "unnamed"


class ArtifactStore:
    """Folders ``<root>/<kind>/<name>-<hash>``, built once, whole or not at all.

    The hash covers ``key``: everything that determines the content. One process builds while others wait; an
    interrupted build is taken up by the next process that asks, in the same partial folder. An artifact is read
    whole and checked before it is handed out; of a damaged one, what is damaged is made again.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, kind: str, name: str, key: Mapping[str, Any]) -> Path:
        """Where the artifact is, or will be."""
        return self.root / kind / f"{slug(name)}-{digest(key)}"

    def build(self, kind: str, name: str, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The artifact's folder, made by ``make(folder)`` unless it is there already.

        ``make`` is given a folder that may hold what an interrupted build left, and goes on from it.
        """
        folder = self.path(kind, name, key)
        if _damage(folder) == []:
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _LOG.info("waiting for another job that makes %s", folder)
            lock.acquire()
        try:
            damage = _damage(folder)
            if damage != []:  # unless it was made while we waited
                partial = folder.with_name(f".{folder.name}.partial")
                if folder.exists():
                    _LOG.warning("%s is damaged (%s) and is made again", folder, ", ".join(damage or [_MANIFEST]))
                    _discard(folder, damage)
                    os.replace(folder, partial)
                partial.mkdir(exist_ok=True)
                clear_partials(partial)
                make(partial)
                manifest = {"key": dict(key), "files": _sizes(partial), "checksums": _checksums(partial)}
                write_json(partial / _MANIFEST, manifest)
                os.replace(partial, folder)
                _LOG.info("made: %s", folder)
        finally:
            lock.release()
        return folder


def _damage(folder: Path) -> list[str] | None:
    """Names of the artifact's files that are gone or changed; None where no manifest tells what it was."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
        files, checksums = dict(manifest["files"]), dict(manifest.get("checksums", {}))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    sizes = _sizes(folder)
    return [
        name
        for name, size in files.items()
        if sizes.get(name) != size or checksums.get(name) not in (None, file_checksum(folder / name))
    ]


def _discard(folder: Path, damage: list[str] | None) -> None:
    if damage is None:
        shutil.rmtree(folder)
        folder.mkdir()
    for name in damage or []:
        (folder / name).unlink(missing_ok=True)


def file_checksum(path: Path) -> str:
    """CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return f"{crc:08x}"


def clear_partials(folder: Path) -> None:
    """Removes what processes that were killed had not finished writing; nobody may be at work in ``folder``."""
    for file in folder.rglob(".*.partial"):
        file.unlink()


_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@contextmanager
def writing_to(outputs: Path) -> Iterator[None]:
    """Raises `StorageError` with what to do where ``outputs`` is full or read-only, whatever part noticed it."""
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str) else None
        ours = name is not None and Path(name).absolute().is_relative_to(outputs.absolute())
        if isinstance(error, StorageError):
            what = str(error)
        elif error.errno in _UNWRITABLE or (ours and error.errno in (errno.EACCES, errno.EPERM)):
            what = f"cannot write {name or outputs}: {error.strerror}."
        else:
            raise
        raise StorageError(
            f"{what} What is finished is kept: make room, or name another folder with outputs=FOLDER; the same "
            "command then goes on."
        ) from error


def write_json(path: Path, content: Any) -> None:
    """Writes JSON to ``path``; a reader sees the whole file or the previous one."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` to ``path``; a reader sees the whole file or the previous one."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _checksums(folder: Path) -> dict[str, str]:
    return {name: file_checksum(folder / name) for name in _sizes(folder)}


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }
