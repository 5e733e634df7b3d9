"""`python -m experiments.redraw FOLDER`: draws the figures of finished jobs again, from their tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cpath.errors import InputError
from experiments.engine.job import CONFIG, RESULTS, redraw


def redraw_below(folders: Iterable[Path]) -> list[Path]:
    """Draw the figures of all jobs below some folders again."""
    drawn = []
    for folder in folders:
        jobs = [path.parent for path in sorted(folder.rglob(RESULTS)) if (path.parent / CONFIG).exists()]
        if not jobs:
            raise InputError(f"there is no finished job below {folder}.")
        for job in jobs:
            redraw(job)
            drawn.append(job)
    return drawn
