"""`python -m experiments.report FOLDER --to report.html`: the report of finished jobs, without running any."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from cpath.errors import InputError
from experiments.engine.command import command
from experiments.engine.job import CONFIG, RESULTS
from experiments.engine.provenance import MANIFEST
from experiments.engine.table import read_table
from experiments.paper.report import write_report
from experiments.paper.stages import FinishedStage

_ORDER = (
    *("train", "path_analysis", "path_decoding", "linearity", "saliency", "degradation"),
    *("sanity_checks", "roar_table", "faithfulness"),
)


def finished_stages(folders: Iterable[Path]) -> list[FinishedStage]:
    """Find finished jobs, and order them as the paper does.

    Args:
        folders: of jobs, or above them.

    Returns:
        The jobs under the names of their experiments; a further one of the same experiment has a number.

    Raises:
        InputError: if there is no finished job below one of the folders.
    """
    found: list[tuple[str, Path]] = []
    for folder in folders:
        files = (RESULTS, CONFIG, MANIFEST, "figures/captions.json")
        jobs = [path.parent for path in sorted(folder.rglob(RESULTS))]
        jobs = [job for job in jobs if all((job / file).exists() for file in files)]
        if not jobs:
            raise InputError(f"there is no finished job below {folder}: name the folder of a job, or one above.")
        found += [(str(read_table(job / RESULTS).experiment.iloc[0]), job) for job in jobs]
    found.sort(key=lambda job: _ORDER.index(job[0]) if job[0] in _ORDER else len(_ORDER))
    stages: list[FinishedStage] = []
    for name, job in found:
        before = sum(experiment == name for experiment, other in found[: len(stages)])
        stages.append(FinishedStage(f"{name}_{before + 1}" if before else name, job, read_table(job / RESULTS)))
    return stages


def report(
    folder: Annotated[
        list[Path], typer.Argument(help="Folders of jobs (outputs/runs/EXPERIMENT/…), or above them.")
    ],
    to: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("outputs/report"),
    title: Annotated[
        str, typer.Option(help="Dataset and network, for the head; those of the tables if empty.")
    ] = "",
) -> None:
    """Write the report of finished jobs, of one dataset and network, into one page.

    The figures are those in the jobs' folders: `python -m experiments.redraw` makes them again.
    """
    stages = finished_stages(folder)
    named = dict.fromkeys(
        f"{dataset}, {model}"
        for stage in stages
        for dataset, model in stage.table[["dataset", "model"]].dropna().drop_duplicates().itertuples(index=False)
    )
    to.mkdir(parents=True, exist_ok=True)
    print(write_report(to, title or "; ".join(named), stages))


main = command(report)

if __name__ == "__main__":
    sys.exit(main(None))
