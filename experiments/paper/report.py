"""The report: one self-contained page made from the tables and figures that jobs left."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from PIL import Image

from cpath.viz import criterion_label, in_order, label_of
from experiments.engine.cache import write_text
from experiments.engine.job import read_job
from experiments.engine.metric_entry import Metric, base_name, by_name, told_apart
from experiments.engine.progress import duration
from experiments.engine.provenance import read_manifest
from experiments.engine.settings import ExperimentSettings
from experiments.figures.findings import finding_of
from experiments.metrics import METRICS
from experiments.paper.published import MARK
from experiments.paper.remarks import equals_gradcam, remarks
from experiments.paper.stages import FinishedStage
from experiments.paper.verdicts import (
    FAILS,
    HOLDS,
    NO_DIFFERENCE,
    NOT_DECIDED,
    RULE,
    Verdict,
    results_of,
    verdicts,
)
from experiments.rank_agreement import Agreement, agreement

_MOST_COLUMNS = 8
_BESIDE = 6  # places of a curve in a table beside the published numbers
_RELEASED = "_released"  # end of the name of a method as the released code computes it
LEAST = 0.86
"""Share of its natural width below which a figure scrolls: its smallest text (7 points) is 8 pixels high there."""
_FIRST = ("overlays", "maps", "overlap", "degradation")  # pictures for the head of the page, the best first


@dataclass(frozen=True)
class Section:
    """Part of the page about one finished stage."""

    stage: FinishedStage
    """The finished stage."""
    remarks: Sequence[str] = ()
    """Sentences on what the numbers leave out, or cannot tell."""

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.stage.name

    @property
    def table(self) -> pd.DataFrame:
        """Tidy table of the job."""
        return self.stage.table

    @cached_property
    def experiment(self) -> ExperimentSettings:
        """ExperimentSettings of the job, with its settings."""
        return read_job(self.stage.folder)

    @property
    def title(self) -> str:
        """Heading, of the experiment, with the network where the stage's name has it too."""
        heading, network = self.experiment.heading(self.table), self.table.model.iloc[0]
        return f"{heading} ({network})" if self.name.endswith(f"_{network}") else heading

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Record of the job."""
        return read_manifest(self.stage.folder)

    @property
    def job(self) -> dict[str, str]:
        """Origin of the section's numbers: folder, command, revision of the code, machine and time."""
        manifest = self.manifest
        return {
            "folder": str(self.stage.folder),
            "command": self.stage.command or str(manifest.get("command", "")),
            "commit": str(manifest.get("git") or "unknown"),
            "machine": f"{manifest['device']}, threads: {manifest['threads']}",
            "spent": duration(float(manifest["seconds"])),
        }

    @cached_property
    def figures(self) -> list[dict[str, Any]]:
        """Figures of the job, to be put into the page itself, with results, captions and widths."""
        findings = self.experiment.findings(self.table)
        folder = self.stage.folder / "figures"
        captions = json.loads((folder / "captions.json").read_text())
        found = []
        for name, caption in captions.items():
            width = _natural_width(folder / f"{name}.png", 150 if (folder / f"{name}.svg").exists() else 200)
            data = _inlined(folder / f"{name}.svg", folder / f"{name}.png")
            sizes = {"width": width, "least": round(LEAST * width)}
            result = finding_of(name, findings)
            found.append({"name": name, "finding": result, "caption": caption, "data": data, **sizes})
        return found

    @property
    def tables(self) -> list[dict[str, Any]]:
        """Numbers of whole networks by method and x, a table for each metric; what has many x is drawn alone."""
        rows = self.table[~self.table.metric.str.contains("/") & (self.table.x_name != "epoch")]
        metrics = [(str(metric), part) for metric, part in rows.groupby("metric", sort=False)]
        return [self._matrix(metric, part) for metric, part in metrics if 0 < part.x.nunique() <= _MOST_COLUMNS]

    @property
    def published(self) -> list[dict[str, Any]]:
        """Tables of our numbers with the paper's beside them, at some places of a curve, or by pairs of methods."""
        paper = self.table[self.table.metric.str.endswith(MARK)]
        paper = paper.assign(metric=paper.metric.str.removesuffix(MARK))
        of_pairs = paper.metric.str.contains("/")
        return [*self._published_curves(paper[~of_pairs]), *self._published_pairs(paper[of_pairs])]

    def _published_curves(self, paper: pd.DataFrame) -> list[dict[str, Any]]:
        tables = []
        for metric, theirs in paper.groupby("metric", sort=False):
            name = str(metric)
            ours = self.table[(self.table.metric == name) & self.table.method.isin(theirs.method)]
            both = sorted(set(ours.x) & set(theirs.x), key=list(dict.fromkeys(theirs.x)).index)
            places = [both[round(i * (len(both) - 1) / (_BESIDE - 1))] for i in range(_BESIDE)] if both else []
            ours = ours[ours.x.isin(places)]
            if len(ours):
                tables.append(self._matrix(name, ours, _beside(theirs)))
        return tables

    def _published_pairs(self, paper: pd.DataFrame) -> list[dict[str, Any]]:
        """A table for each metric and place, with the second method of a pair as the column."""
        tables = []
        for (base, x), theirs in paper.groupby([paper.metric.map(base_name), "x"], sort=False):
            ours = self.table[(self.table.x == x) & self.table.metric.isin(theirs.metric)]
            ours = ours[ours.method.isin(theirs.method)]
            where = f"{theirs.x_name.iloc[0]} {_number(x)}, with"
            if len(ours):
                tables.append(self._matrix(base, _by_other(ours).assign(x_name=where), _beside(_by_other(theirs))))
        return tables

    @property
    def variants(self) -> list[dict[str, Any]]:
        """Tables of the methods that the released code computes in another way: as defined, and as released."""
        released = [name for name in self.table.method.unique() if name.endswith(_RELEASED)]
        both = [*released, *(name.removesuffix(_RELEASED) for name in released)]
        rows = self.table[self.table.method.isin(both)]
        rows = rows[~rows.metric.str.contains("/") & (rows.x_name == "sparsity")]
        return [self._matrix(str(metric), part) for metric, part in rows.groupby("metric", sort=False)]

    def _matrix(
        self, metric: str, rows: pd.DataFrame, beside: Mapping[tuple[str, str], str] | None = None
    ) -> dict[str, Any]:
        names = list(dict.fromkeys([*(name for name in self.table.metric.unique() if "/" not in name), metric]))
        known = by_name(self.experiment.metrics)
        words = _words(told_apart(names, known)[metric], known.get(metric))
        return {**words, **_matrix(rows, beside or {}, self._twins)}

    @cached_property
    def _twins(self) -> dict[str, str]:
        """Methods whose numbers are those of another one, by the other: both are one row."""
        return {"gradcam": "neuron_intgrad_star"} if equals_gradcam(self.table) else {}


def _beside(rows: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Published numbers by method and column."""
    return {(row.method, row.x): _number(row.value) for row in rows.itertuples()}


def _by_other(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of pairs, with the label of the second method, which the metric names, in the place of ``x``."""
    others = rows.metric.str.partition("/")[2]
    order = {name: place for place, name in enumerate(in_order(others))}
    return rows.assign(x=others.map(label_of)).iloc[others.map(order).argsort(kind="stable")]


def _natural_width(file: Path, dots_per_inch: int) -> int:
    """Width at which letters have the size that they were drawn with, at a page's 96 pixels an inch."""
    with Image.open(file) as picture:
        return round(picture.width / dots_per_inch * 96)


def _inlined(*files: Path) -> str:
    """Content of the first of ``files`` that is there, as an address with the scheme ``data:``."""
    file = next(file for file in files if file.exists())
    kind = "image/svg+xml" if file.suffix == ".svg" else "image/png"
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _matrix(rows: pd.DataFrame, beside: Mapping[tuple[str, str], str], twins: Mapping[str, str]) -> dict[str, Any]:
    """Cells of a table by method and x, with further numbers beside some of them, and one row for equal methods."""
    twins = {one: other for one, other in twins.items() if {one, other} <= set(rows.method)}
    published = {method for method, _ in beside}
    twins = {one: other for one, other in twins.items() if not {one, other} & published}
    columns = list(dict.fromkeys(rows.x))
    cells = {(row.method, row.x): row for row in rows.itertuples()}
    return {
        "x_name": str(rows.x_name.iloc[0]).replace("_", " "),
        "columns": [_number(column) for column in columns],
        "rows": [
            {
                "method": f"{label_of(method)} = {label_of(twins[method])}"
                if method in twins
                else label_of(method),
                "cells": [
                    _cell(cells.get((method, column))) | {"published": beside.get((method, column), "")}
                    for column in columns
                ],
            }
            for method in in_order(rows.method)
            if method not in twins.values()
        ],
    }


def _words(label: str, entry: Metric | None) -> dict[str, str]:
    """Heading and explanation of a table of a metric."""
    if entry is None:  # of a user's experiment
        return {"metric": label, "meaning": ""}
    better = f", {entry.better} is better" if entry.better else ""
    return {"metric": label + better, "meaning": entry.meaning}


def _agreement_matrix(found: Agreement) -> dict[str, Any]:
    return {
        **_words(METRICS["rank_agreement"].axis, METRICS["rank_agreement"]),
        "x_name": "",
        "columns": [criterion_label(name) for name in found.criteria],
        "rows": [
            {
                "method": criterion_label(name),
                "cells": [
                    {"published": "", **_cell(None if name == other else found.between(name, other))}
                    for other in found.criteria
                ],
            }
            for name in found.criteria
        ],
    }


def _cell(row: Any) -> dict[str, str]:
    if row is None or pd.isna(row.value):
        return {"value": "–", "interval": ""}
    interval = "" if pd.isna(row.ci_low) else f"{_number(row.ci_low)} to {_number(row.ci_high)}"
    return {"value": _number(row.value), "interval": interval}


def _number(value: Any) -> str:
    try:
        return f"{float(value):.3g}" if abs(float(value)) < 1000 else f"{float(value):.0f}"
    except (TypeError, ValueError):
        return str(value)


def write_report(
    folder: Path, title: str, stages: list[FinishedStage], failed: Mapping[str, str] | None = None
) -> Path:
    """Write the report.

    Args:
        folder: where ``report.html`` goes.
        title: dataset and networks.
        stages: all that are finished.
        failed: errors of those that are not, by their name.

    Returns:
        Path of the page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = pd.concat([stage.table for stage in stages], ignore_index=True)
    results = results_of((stage.folder, stage.table) for stage in _deciding(stages))
    found, agreed = verdicts(results), agreement(table)
    sections = [Section(stage, _remarks(stage, stages)) for stage in stages]
    page = environment.get_template("report.html.j2").render(
        title=title,
        sections=sections,
        failed=failed or {},
        picture=_picture(sections),
        facts=_facts(sections),
        claims=[
            {"verdict": one, "section": _section_of(one, sections), "numbers": METRICS[one.claim.metric].label}
            for one in found
        ],
        held=_held(found),
        rule=RULE,
        undecided=_others(stages),
        sites=results.sites,
        agreement=None if agreed is None else _agreement_matrix(agreed),
        variants=next((section.variants for section in sections if section.variants), []),
        varied=next((section.name for section in sections if section.variants), ""),
        made=_made(sections),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _deciding(stages: list[FinishedStage]) -> list[FinishedStage]:
    """The first stage of each experiment: a claim is held against one set of numbers."""
    first: dict[str, FinishedStage] = {}
    for stage in stages:
        first.setdefault(next(iter(stage.table.experiment), stage.name), stage)
    return list(first.values())


def _remarks(stage: FinishedStage, stages: list[FinishedStage]) -> list[str]:
    """Remarks on a stage, in the light of the other experiments."""
    experiment = next(iter(stage.table.experiment), stage.name)
    others = [other for other in _deciding(stages) if next(iter(other.table.experiment), None) != experiment]
    results = results_of(((one.folder, one.table) for one in [*others, stage]), images=False)
    return remarks(results).get(str(experiment), [])


def _others(stages: list[FinishedStage]) -> list[str]:
    """Names of the stages that no claim is held against."""
    deciding = [stage.name for stage in _deciding(stages)]
    return [stage.name for stage in stages if stage.name not in deciding]


def _picture(sections: list[Section]) -> dict[str, Any] | None:
    """The figure for the head of the page, with the section that it is from; None where there is no figure."""
    figures = {figure["name"]: {**figure, "section": section} for section in sections for figure in section.figures}
    name = next((name for name in _FIRST if name in figures), next(iter(figures), ""))
    return figures.get(name)


def _section_of(verdict: Verdict, sections: list[Section]) -> str:
    """Name of the section that has the numbers behind a verdict; empty where nothing was measured."""
    names = {section.name: set(section.table.metric.map(base_name)) for section in sections}
    return next((name for name in names if verdict.claim.metric in names[name]), "") if verdict.comparisons else ""


def _held(found: list[Verdict]) -> str:
    """The outcome of the claims that a measurement could refute, in a sentence."""
    words = [one.word for one in found]
    counts = {word: words.count(word) for word in (HOLDS, FAILS, NO_DIFFERENCE, NOT_DECIDED)}
    tested = sum(counts.values())
    if not tested:
        return "No claim of the paper was put to the test."
    others = {FAILS: "do not hold", NO_DIFFERENCE: "without a difference", NOT_DECIDED: "not decided"}
    rest = [f"{counts[word]} {text}" for word, text in others.items() if counts[word]]
    return f"Of {tested} claims that were put to the test {', '.join([f'{counts[HOLDS]} hold', *rest])}."


def _facts(sections: list[Section]) -> dict[str, str]:
    """Time, network, data and machine, for the head of the page."""
    table = pd.concat([section.table for section in sections], ignore_index=True)
    accuracies = table[(table.experiment == "train") & (table.metric == "test_accuracy")]
    accuracy = {row.model: f"{row.model}, test accuracy {_number(row.value)} %" for row in accuracies.itertuples()}
    made = _made(sections)
    return {
        "Time": duration(sum(float(section.manifest["seconds"]) for section in sections)),
        "Network": "; ".join(accuracy.get(model, str(model)) for model in table.model.dropna().unique()),
        "Data": ", ".join(map(str, table.dataset.dropna().unique())),
        "Machine": f"{made['Device']}, threads: {made['Threads']}",
        "Code": made["Code revision"],
        "Finished": made["Finished"].replace("T", " ").replace("+00:00", " UTC"),
    }


def _made(sections: list[Section]) -> dict[str, str]:
    """Facts on all jobs: each once, or all its values where jobs differ."""
    manifests = [section.manifest for section in sections]
    facts = {
        "Device": [str(manifest["device"]) for manifest in manifests],
        "Threads": [str(manifest["threads"]) for manifest in manifests],
        "Seed": [str(manifest["seed"]) for manifest in manifests],
        "Code revision": [str(manifest["git"]) for manifest in manifests],
        "Finished": [max(str(manifest["finished"]) for manifest in manifests)],
        **{
            name: [str(manifest["versions"].get(name)) for manifest in manifests]
            for name in ("cpath", "python", "torch", "torchvision", "captum")
        },
    }
    return {name: ", ".join(dict.fromkeys(values)) for name, values in facts.items()}
