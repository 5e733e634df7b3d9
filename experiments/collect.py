"""`python -m experiments.collect SWEEP`: the summary, table and plots of a sweep, as far as it has come."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.engine.command import command
from experiments.engine.sweep_results import collect_sweep


def collect(
    sweep: Annotated[list[Path], typer.Argument(help="Folders of sweeps: outputs/sweeps/EXPERIMENT-HASH.")],
) -> int:
    """Collect the finished jobs of a sweep.

    Writes summary.csv, results.csv (mean and interval over seeds) and figures into the folder of the sweep, from
    the jobs that are finished. Exits with 1 while some are not.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    finished = [collect_sweep(folder) for folder in sweep]
    return 0 if all(finished) else 1


main = command(collect)

if __name__ == "__main__":
    sys.exit(main(None))
