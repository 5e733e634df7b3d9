"""Locks between processes: a file that one of them holds at a time; the system lifts the lock when it dies.

The files have the mode of any new file of the user's. Whoever may write to them can hold the lock; whoever may only
read them can wait for it, and tell whether it is held.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

if sys.platform != "win32":
    import fcntl

_LOG = logging.getLogger(__name__)
_SECONDS = 0.1  # between two looks at a lock that may only be read


@contextmanager
def locked(path: Path, doing: str) -> Iterator[bool]:
    """Hold a lock, after waiting for the process that does.

    Args:
        path: file of the lock; its folder is made.
        doing: what the holder does, for the message about waiting.

    Yields:
        Whether it is held; not so one that the user may only read: it was free a moment ago, and nobody may write.

    Raises:
        OSError: if the file is not there and cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _LOG.info("waiting for another process that %s", doing)
        lock.acquire()
    except OSError:
        if not path.exists():
            raise
        _wait(path, doing)
    try:
        yield lock.is_locked
    finally:
        if lock.is_locked:
            lock.release()


def _wait(path: Path, doing: str) -> None:
    if is_locked(path):
        _LOG.info("waiting for another process that %s", doing)
    while is_locked(path):
        time.sleep(_SECONDS)


def is_locked(path: Path) -> bool:
    """Tell if a process holds a lock. Nothing is written to find out.

    Args:
        path: file of the lock, which need not exist.

    Returns:
        True if one does.
    """
    if sys.platform == "win32":
        return _is_taken(path)
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:  # it was never made, or may not be read
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # held; or a file system without locks, where a file that exists is one
        return True
    finally:
        os.close(file)
    return False


def _is_taken(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
