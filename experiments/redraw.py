"""`python -m experiments.redraw FOLDER`: the figures of finished jobs made again, from their tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from cpath.errors import InputError
from experiments.engine.command import command
from experiments.engine.job import CONFIG, RESULTS
from experiments.engine.job import redraw as redraw_job


def redraw_below(folders: Iterable[Path]) -> list[Path]:
    """Draw the figures of all jobs below some folders again.

    Args:
        folders: of jobs, or above them.

    Returns:
        Folders of the jobs.

    Raises:
        InputError: if there is no finished job below one of the folders.
    """
    drawn = []
    for folder in folders:
        jobs = [path.parent for path in sorted(folder.rglob(RESULTS)) if (path.parent / CONFIG).exists()]
        if not jobs:
            raise InputError(f"there is no finished job below {folder}: name the folder of a job, or one above.")
        for job in jobs:
            redraw_job(job)
            drawn.append(job)
    return drawn


def redraw(
    folder: Annotated[
        list[Path], typer.Argument(help="Folders of jobs (outputs/runs/EXPERIMENT/…), or above them.")
    ],
) -> None:
    """Make the figures of finished jobs again, from their tables alone.

    Pictures of images and maps stay as they are.
    """
    for job in redraw_below(folder):
        print(job / "figures")


main = command(redraw)

if __name__ == "__main__":
    sys.exit(main(None))
