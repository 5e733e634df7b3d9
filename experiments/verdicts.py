"""`python -m experiments.verdicts FOLDER`: results held against the claims of the paper, a column each setting."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.engine.command import command
from experiments.paper.verdicts import as_markdown, read_settings


def verdicts(
    folder: Annotated[
        list[Path], typer.Argument(help="Folders of jobs (outputs/runs/EXPERIMENT/…), or above them.")
    ],
    numbers: Annotated[bool, typer.Option("--numbers", help="Also print the numbers that decided.")] = False,
) -> None:
    """Hold finished results against the claims of the paper.

    Comparisons are paired by image, or by seed in ROAR, and corrected together (Holm). Prints a Markdown table with
    a column for each dataset and model.
    """
    print(as_markdown(read_settings(folder), numbers=numbers))


main = command(verdicts)

if __name__ == "__main__":
    sys.exit(main(None))
