"""What the commands beside the experiments have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cpath.errors import CpathError


def exit_status(work: Callable[[], int]) -> int:
    """What ``work`` returns; for an error of cpath's own 2, with its message in one line."""
    try:
        return work()
    except CpathError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
