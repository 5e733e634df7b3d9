"""What a sweep comes to: a summary of its jobs, one table of their results, and its plots."""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
from filelock import FileLock
from rich.console import Console
from rich.table import Table

from cpath.viz import save_drawings
from experiments.figures.sweep import sweep_figures
from experiments.framework.aggregate import aggregate
from experiments.framework.job import read_manifest
from experiments.framework.results import read_table, write_table
from experiments.framework.store import write_text
from experiments.framework.sweep import FAILED, FINISHED, STOPPED, SweepJob, read_sweep

_LOG = logging.getLogger(__name__)
_STOPPED = "its process ended before the job did; the sweep's command runs it again"
_SHOWN = 12


def collect_sweep(folder: Path) -> bool:
    """Writes summary.csv, results.csv and figures/ into a sweep's folder; whether all its jobs are finished.

    Jobs that are not finished are left out of the results and stand in the summary with their error.
    """
    jobs = read_sweep(folder)
    with FileLock(folder / ".collect.lock"):
        summary = _summary(jobs)
        write_text(folder / "summary.csv", summary.to_csv(index=False))
        tables = {
            job.overrides: read_table(job.folder / "results.csv")
            for job, status in zip(jobs, summary.status, strict=True)
            if status == FINISHED
        }
        table = aggregate(tables)
        write_table(table, folder / "results.csv")
        save_drawings(sweep_figures(table), folder / "figures")
    _show(summary)
    _LOG.info("results of the sweep: %s", folder / "results.csv")
    return bool((summary.status == FINISHED).all())


def _summary(jobs: list[SweepJob]) -> pd.DataFrame:
    """A row a job: status, seconds, error, overrides, folder."""
    rows = []
    for number, job in enumerate(jobs):
        status, manifest = job.status, read_manifest(job.folder)
        rows.append(
            {
                "job": number,
                "status": status,
                "seconds": manifest.get("seconds"),
                "error": {FAILED: manifest.get("error"), STOPPED: _STOPPED}.get(status),
                "overrides": " ".join(job.overrides),
                "folder": f"{job.folder.parent.name}/{job.folder.name}",
            }
        )
    return pd.DataFrame(rows).assign(error=[row["error"] or "" for row in rows])


def _show(summary: pd.DataFrame) -> None:
    counts = summary.status.value_counts()
    unfinished = summary[summary.status != FINISHED]
    console = Console()
    if len(unfinished):
        shown = Table(box=None, pad_edge=False)
        for column in ("job", "status", "overrides", "error"):
            shown.add_column(column, overflow="fold")
        for row in unfinished.head(_SHOWN).itertuples():
            shown.add_row(str(row.job), row.status, row.overrides, row.error.split("\n")[0])
        console.print(shown)
        if len(unfinished) > _SHOWN:
            console.print(f"… and {len(unfinished) - _SHOWN} more in summary.csv")
    console.print(f"{len(summary)} jobs: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
