"""`python -m experiments.redraw FOLDER`: the figures of finished jobs made again, from their tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd

from cpath.errors import InputError
from cpath.viz import Drawing
from experiments.figures import (
    benchmark,
    degradation,
    linearity,
    path_analysis,
    path_decoding,
    quadrature,
    roar,
    saliency,
    sanity_checks,
    train,
)
from experiments.framework.command import exit_status
from experiments.framework.job import redraw
from experiments.framework.results import read_table

_FIGURES: dict[str, Callable[[pd.DataFrame], Iterable[Drawing]]] = {
    "train": train.training_figures,
    "path_analysis": path_analysis.path_analysis_figures,
    "linearity": linearity.linearity_figures,
    "path_decoding": path_decoding.decoding_figures,
    "saliency": saliency.saliency_figures,
    "degradation": degradation.degradation_figures,
    "sanity_checks": sanity_checks.sanity_check_figures,
    "roar": roar.roar_cell_figures,
    "roar_table": roar.roar_figures,
    "quadrature": quadrature.quadrature_figures,
    "benchmark": benchmark.benchmark_figures,
}


def main(arguments: list[str] | None = None) -> int:
    """Redraws all jobs below the folders on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.redraw",
        description="Makes the figures of finished jobs again, from results.csv alone. Pictures of images and maps "
        "stay as they are.",
    )
    parser.add_argument("folder", nargs="+", type=Path, help="of jobs (outputs/runs/EXPERIMENT/…) or above them")
    folders = parser.parse_args(arguments).folder
    return exit_status(lambda: _redraw_below(folders))


def _redraw_below(folders: Iterable[Path]) -> int:
    for folder in folders:
        tables = [path for path in sorted(folder.rglob("results.csv")) if (path.parent / "manifest.json").exists()]
        if not tables:
            raise InputError(f"no finished job below {folder}.")
        for path in tables:
            redraw(path.parent, _FIGURES[read_table(path).experiment.iloc[0]])
            print(path.parent / "figures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
