"""`python -m experiments.collect SWEEP`: the summary, table and plots of a sweep, as far as it has come."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from experiments.framework.collect import collect_sweep
from experiments.framework.command import exit_status


def main(arguments: list[str] | None = None) -> int:
    """Collects the sweeps named on the command line; 0 if all their jobs are finished."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.collect",
        description="Writes summary.csv, results.csv (mean and interval over seeds) and figures/ into the folder "
        "of a sweep, from the jobs that are finished. Exits with 1 while some are not.",
    )
    parser.add_argument("sweep", nargs="+", type=Path, help="folder: outputs/sweeps/EXPERIMENT-HASH")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folders = parser.parse_args(arguments).sweep

    def collect() -> int:
        finished = [collect_sweep(folder) for folder in folders]
        return 0 if all(finished) else 1

    return exit_status(collect)


if __name__ == "__main__":
    sys.exit(main())
