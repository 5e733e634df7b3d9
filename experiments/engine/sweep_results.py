"""The outcome of a sweep: a summary of its jobs, one table of their results, and its figures."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from cpath.errors import CpathError
from cpath.viz import save_drawings
from experiments.engine.aggregate import aggregate
from experiments.engine.cache import write_text, writing_to
from experiments.engine.job import RESULTS, metrics_of_job
from experiments.engine.locks import locked
from experiments.engine.metric_entry import Metric
from experiments.engine.provenance import read_manifest
from experiments.engine.sweep import FAILED, FINISHED, STOPPED, SweepJob, read_sweep
from experiments.engine.table import read_table, write_table
from experiments.engine.terminal import print_table
from experiments.figures.sweep import sweep_figures

_LOG = logging.getLogger(__name__)
_STOPPED = "its process ended before the job did; the command of the sweep runs it again"
_ROWS = 12


def collect_sweep(folder: Path) -> bool:
    """Write ``summary.csv``, ``results.csv`` and ``figures`` into the folder of a sweep.

    Jobs that are not finished are left out of the results and stand in the summary with their error.

    Args:
        folder: of the sweep.

    Returns:
        Whether all jobs are finished.

    Raises:
        InputError: if it is not the folder of a sweep.
    """
    jobs = read_sweep(folder)
    with locked(folder / ".collect.lock", f"collects {folder}"):
        summary = _summary(jobs)
        write_text(folder / "summary.csv", summary.to_csv(index=False))
        finished = [job for job, status in zip(jobs, summary.status, strict=True) if status == FINISHED]
        metrics = metrics_of([job.folder for job in finished])
        table = aggregate({job.overrides: read_table(job.folder / RESULTS) for job in finished}, metrics)
        write_table(table, folder / RESULTS)
        save_drawings(sweep_figures(table, metrics), folder / "figures")
    _show(summary)
    _LOG.info("results of the sweep: %s", folder / RESULTS)
    return bool((summary.status == FINISHED).all())


def finish_sweep(folder: Path) -> bool:
    """Collect a sweep whose jobs have ended, for its command.

    Args:
        folder: of the sweep.

    Returns:
        Whether all jobs are finished.

    Raises:
        SystemExit: if its folder cannot be written.
    """
    try:
        with writing_to(folder):
            return collect_sweep(folder)
    except CpathError as error:
        sys.exit(f"error: {error}")


def metrics_of(folders: Sequence[Path]) -> dict[str, Metric]:
    """Collect the metrics of the experiments of finished jobs.

    Args:
        folders: of the jobs.

    Returns:
        Entries by name.
    """
    found: dict[str, Metric] = {}
    for folder in folders:
        found |= metrics_of_job(folder)
    return found


def _summary(jobs: Sequence[SweepJob]) -> pd.DataFrame:
    """A row for each job: status, seconds, error, overrides, folder."""
    rows = []
    for number, job in enumerate(jobs):
        status, manifest = job.status, read_manifest(job.folder)
        rows.append(
            {
                "job": number,
                "status": status,
                "seconds": manifest.get("seconds"),
                "error": {FAILED: manifest.get("error"), STOPPED: _STOPPED}.get(status) or "",
                "overrides": " ".join(job.overrides),
                "folder": f"{job.folder.parent.name}/{job.folder.name}",
            }
        )
    return pd.DataFrame(rows)


def _show(summary: pd.DataFrame) -> None:
    counts = summary.status.value_counts()
    unfinished = summary[summary.status != FINISHED]
    console = Console()
    if len(unfinished):
        rows = [
            (row.job, row.status, row.overrides, row.error.split("\n")[0])
            for row in unfinished.head(_ROWS).itertuples()
        ]
        print_table(("job", "status", "overrides", "error"), rows, fold=("overrides", "error"))
        if len(unfinished) > _ROWS:
            console.print(f"… and {len(unfinished) - _ROWS} more in summary.csv", markup=False)
    console.print(
        f"{len(summary)} jobs: " + ", ".join(f"{count} {status}" for status, count in counts.items()), markup=False
    )
