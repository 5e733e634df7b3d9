"""The artifact store: what is costly to make is made once, and found again by what determines it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

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
    interrupted build is taken up by the next process that asks, in the same partial folder.
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
        if self._complete(folder):
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _LOG.info("waiting for another job that makes %s", folder)
            lock.acquire()
        try:
            if not self._complete(folder):  # unless it was made while we waited
                partial = folder.with_name(f".{folder.name}.partial")
                if folder.exists():  # damaged: what is missing is made again
                    _LOG.warning("%s is damaged and is made again", folder)
                    os.replace(folder, partial)
                    (partial / _MANIFEST).unlink(missing_ok=True)
                partial.mkdir(exist_ok=True)
                make(partial)
                write_json(partial / _MANIFEST, {"key": dict(key), "files": _sizes(partial)})
                os.replace(partial, folder)
                _LOG.info("made: %s", folder)
        finally:
            lock.release()
        return folder

    def _complete(self, folder: Path) -> bool:
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (OSError, ValueError):
            return False
        sizes = _sizes(folder)
        return all(sizes.get(name) == size for name, size in manifest["files"].items())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON to ``path``; a reader sees the whole file or the previous one."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` to ``path``; a reader sees the whole file or the previous one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with open(partial, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }
