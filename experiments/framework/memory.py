"""Memory of the process on a CPU: kept between batches, or given back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Has the C library keep what is freed, for the next batch; only glibc can.

    It gives tensors of more than 32 MB back to the system at once otherwise, and fetching fresh pages for the next
    ones takes up to a third of the time of a large batch.
    """
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Gives what is freed back to the system now."""
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_c_library(function: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), function, None)
    except (OSError, TypeError):  # Windows
        return None
