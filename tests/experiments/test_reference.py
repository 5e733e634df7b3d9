"""Committed results: every number has an entry, every figure can be drawn again."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import CONF
from experiments.engine.job import RESULTS, read_job
from experiments.engine.metric_entry import base_name
from experiments.engine.table import COLUMNS, read_table
from experiments.paper.published import MARK

JOBS = sorted(path.parent for path in (CONF.parent / "outputs" / "reference").rglob(RESULTS))


@pytest.mark.parametrize("folder", JOBS, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_every_number_has_an_entry_and_lies_in_its_range_with_its_interval(folder: Path) -> None:
    table, experiment = read_table(folder / RESULTS), read_job(folder)
    assert tuple(table.columns) == COLUMNS
    entries = {metric.name: metric for metric in experiment.metrics}
    names = table.metric.map(base_name)
    assert set(names) <= set(entries)
    for name, rows in table[~table.metric.str.endswith(MARK)].groupby(names):
        low, high = entries[str(name)].range
        for number in ("value", "ci_low", "ci_high"):
            assert rows[number].dropna().between(low - 1e-9, high + 1e-9).all(), (name, number)


def test_there_are_committed_results() -> None:
    assert len(JOBS) >= 20
