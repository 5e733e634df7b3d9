"""`python -m experiments.runs FOLDER`: lists all jobs, with their state and the settings that tell them apart."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cpath.errors import InputError
from experiments.engine.command import command
from experiments.engine.job_listing import Run, find_runs, telling_apart
from experiments.engine.terminal import print_table


def runs(
    folder: Annotated[Path, typer.Argument(help="An outputs folder, or any folder inside it.")] = Path("outputs"),
    experiment: Annotated[str | None, typer.Option(help="Only jobs of this experiment.")] = None,
) -> None:
    """List all jobs below a folder: state, time, and the settings in which jobs of an experiment differ.

    `experiments.load(FOLDER)` gives their results as one data frame.
    """
    every = find_runs(folder)
    found = [run for run in every if experiment in (None, run.experiment)]
    if not found:
        known = ", ".join(sorted({run.experiment for run in every}))
        raise InputError(f"there is no job of {experiment} below {folder}; there are jobs of {known}.")
    apart = telling_apart(found)
    rows = [
        (run.experiment, run.status, _seconds(run), run.folder.name, _words(apart[run.folder])) for run in found
    ]
    print_table(
        ("experiment", "status", "seconds", "folder", "differs in"), rows, right=("seconds",), fold=("differs in",)
    )


def _seconds(run: Run) -> str:
    seconds = run.manifest.get("seconds")
    return f"{seconds:.0f}" if isinstance(seconds, int | float) else ""


def _words(settings: dict[str, object]) -> str:
    return " ".join(
        f"{name}={list(value) if isinstance(value, tuple) else value}" for name, value in settings.items()
    )


main = command(runs)

if __name__ == "__main__":
    sys.exit(main(None))
