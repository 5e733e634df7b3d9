"""`python -m experiments.collect SWEEP`: the summary, table and plots of a sweep, as far as it has come."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from cpath.errors import CpathError
from experiments.framework.collect import collect_sweep


def main(arguments: list[str] | None = None) -> int:
    """Collects the sweeps named on the command line; 0 if all their jobs are finished."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.collect",
        description="Writes summary.csv, results.csv (mean and interval over seeds) and figures/ into the folder "
        "of a sweep, from the jobs that are finished. Exits with 1 while some are not.",
    )
    parser.add_argument("sweep", nargs="+", type=Path, help="folder: outputs/sweeps/EXPERIMENT-HASH")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        finished = [collect_sweep(folder) for folder in parser.parse_args(arguments).sweep]
    except CpathError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0 if all(finished) else 1


if __name__ == "__main__":
    sys.exit(main())
