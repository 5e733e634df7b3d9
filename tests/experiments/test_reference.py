"""Committed results: every number has an entry, every figure can be drawn again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.text import Text

from experiments import CONF
from experiments.engine.job import RESULTS, read_job
from experiments.engine.metric_entry import base_name
from experiments.engine.table import COLUMNS, read_table
from experiments.figures.findings import finding_of
from experiments.paper.published import MARK
from experiments.paper.report import LEAST

JOBS = sorted(path.parent for path in (CONF.parent / "outputs" / "reference").rglob(RESULTS))


def _name(folder: Path) -> str:
    return "-".join(folder.parts[-2:])


@pytest.mark.parametrize("folder", JOBS, ids=_name)
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


@pytest.mark.parametrize("folder", [job for job in JOBS if (job / "figures").exists()], ids=_name)
def test_every_figure_has_a_sentence_of_result(folder: Path) -> None:
    found = read_job(folder).findings(read_table(folder / RESULTS))
    figures = json.loads((folder / "figures" / "captions.json").read_text())
    assert [name for name in figures if not finding_of(name, found)] == []


@pytest.mark.parametrize("folder", [job for job in JOBS if {"digits", "benchmark"} & set(job.parts)], ids=_name)
def test_no_text_is_smaller_than_eight_pixels_where_a_figure_is_shown(folder: Path) -> None:
    for drawing in read_job(folder).figures(read_table(folder / RESULTS)):
        figure = drawing.figure
        smallest = min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip())
        assert smallest / 72 * 96 * LEAST >= 8, f"{drawing.name}, in a report"
        assert smallest / 72 * 900 / figure.get_figwidth() >= 8, f"{drawing.name}, in a column of 900 pixels"


def test_there_are_committed_results() -> None:
    assert len(JOBS) >= 20
