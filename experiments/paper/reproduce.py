"""The whole paper: every experiment in turn, each continued where it was, and one report at the end."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pandas as pd

from cpath.errors import InputError
from experiments.engine.cache import slug, writing_to
from experiments.engine.experiment import Experiment
from experiments.engine.job import RESULTS, Job
from experiments.engine.table import Row, write_table
from experiments.paper.report import write_report
from experiments.paper.stages import checked_stages, command_of, paper_of, run_stages
from experiments.rank_agreement import agreement

_LOG = logging.getLogger(__name__)


class ReproducePaper(Experiment):
    """Runs the stages of ``paper=…``, jobs of other experiments, and makes one report of them."""

    title: ClassVar[str] = "The whole paper"
    runs_jobs: ClassVar[bool] = True

    def launch(self, job: Job) -> pd.DataFrame:
        """Run the stages that are not finished, and write the report.

        A stage that fails leaves the others alone: the report is written without it, and says so.

        Args:
            job: names the paper; it has no folder of its own.

        Returns:
            All results in one tidy table.

        Raises:
            InputError: if something is missing or wrong, before any work; or if a stage failed, after the others.
        """
        paper = paper_of(job.config)
        stages = checked_stages(job.config, paper)
        finished, failed = run_stages(stages, paper.seconds or {})
        done = [replace(stage, command=command_of(paper.stages[stage.name])) for stage in finished]
        outputs = Path(job.config.outputs)
        table = pd.DataFrame()
        if done:
            table = _whole([stage.table for stage in done])
            folder = outputs / "reproduce-paper" / slug(paper.name)
            with writing_to(outputs):
                write_table(table, folder / RESULTS)
                _LOG.info("report: %s", write_report(folder, paper.title, done, failed))
        if failed:
            raise InputError("; ".join(f"stage {name} failed: {error}" for name, error in failed.items()))
        return table

    def run(self, job: Job) -> Iterable[Row]:
        """Measure nothing: the results are those of the jobs that `launch` runs."""
        return ()


def _whole(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """One table, with how far criteria of different stages agree."""
    table = pd.concat(tables, ignore_index=True)
    found = agreement(table)
    if found is None or not found.compared:
        return table
    return pd.concat([table, found.rows(table.iloc[0])], ignore_index=True)
