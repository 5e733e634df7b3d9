"""The report: one self-contained page made from the tables and figures that jobs left."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from cpath.viz import criterion_label, in_order, label_of
from experiments.framework.claims import NOT_MEASURED, NOT_REPRODUCED, REPRODUCED, UNCLEAR, verdicts
from experiments.framework.criteria import Agreement, agreement
from experiments.framework.progress import duration
from experiments.framework.published import MARK
from experiments.framework.store import write_text

_MOST_COLUMNS = 8

_TITLES = {
    "train": "The model",
    "path_analysis": "Critical pathways: overlap, dead neurons, responses",
    "path_decoding": "Path decoding: what the pathways respond to",
    "linearity": "Local linearity of the restricted networks",
    "saliency": "Pathways as saliency maps",
    "degradation": "Input degradation: are the removed pixels the relevant ones?",
    "sanity_checks": "Sanity checks: do the maps depend on what the network learned?",
}
_RETRAININGS = {
    ("roar",): "ROAR: retraining without the relevant pixels",
    ("kar",): "KAR: retraining on the relevant pixels alone",
    ("roar", "kar"): "ROAR and KAR: retraining without the relevant pixels, and on them alone",
}


@dataclass(frozen=True)
class Stage:
    """A finished job of the paper."""

    name: str
    folder: Path
    table: pd.DataFrame

    @property
    def title(self) -> str:
        """Its heading; what kind of retraining there is, the table says."""
        modes = tuple(mode for mode in ("roar", "kar") if (self.table.metric == f"{mode}_accuracy").any())
        if modes:
            return _RETRAININGS[modes]
        return _TITLES.get(self.name, self.name.replace("_", " ").capitalize())

    @property
    def manifest(self) -> dict[str, Any]:
        """What it was made with."""
        manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return manifest

    @property
    def figures(self) -> list[dict[str, Any]]:
        """Its figures, to be put into the page itself, with captions, and how wide they want to be."""
        folder = self.folder / "figures"
        captions = json.loads((folder / "captions.json").read_text())
        found = []
        for name, caption in captions.items():
            width = _natural_width(folder / f"{name}.png", 150 if (folder / f"{name}.svg").exists() else 200)
            data = _inlined(folder / f"{name}.svg", folder / f"{name}.png")
            found.append(
                {"name": name, "caption": caption, "data": data, "width": width, "least": round(_LEAST * width)}
            )
        return found

    @property
    def tables(self) -> list[dict[str, Any]]:
        """Whole-network numbers by method and x, one table a metric; what has many x is a curve, and drawn."""
        rows = self.table[~self.table.metric.str.contains("/") & (self.table.x_name != "epoch")]
        metrics = [(str(metric), part) for metric, part in rows.groupby("metric", sort=False)]
        return [_matrix(metric, part) for metric, part in metrics if 0 < part.x.nunique() <= _MOST_COLUMNS]

    @property
    def published(self) -> list[dict[str, Any]]:
        """Our numbers with the paper's beside them, at some places of each curve; empty where there are none."""
        paper = self.table[self.table.metric.str.endswith(MARK)]
        tables = []
        for metric, theirs in paper.groupby("metric", sort=False):
            name = str(metric).removesuffix(MARK)
            ours = self.table[(self.table.metric == name) & self.table.method.isin(theirs.method)]
            both = sorted(set(ours.x.astype(str)) & set(theirs.x.astype(str)), key=_order(theirs))
            places = [both[round(i * (len(both) - 1) / (_BESIDE - 1))] for i in range(_BESIDE)] if both else []
            ours = ours[ours.x.astype(str).isin(places)]
            if len(ours):
                beside = {(row.method, str(row.x)): _number(row.value) for row in theirs.itertuples()}
                tables.append(_matrix(name, ours, beside))
        return tables

    @property
    def variants(self) -> list[dict[str, Any]]:
        """Definitions and, under each, what the released code computes in its place."""
        rows = self.table[self.table.method.isin(_VARIANTS)]
        if not rows.method.str.endswith("_published").any():
            return []
        rows = rows[~rows.metric.str.contains("/") & (rows.x_name == "sparsity")]
        return [_matrix(str(metric), part) for metric, part in rows.groupby("metric", sort=False)]


_BESIDE = 6  # places of a curve in a table beside the published numbers
_VARIANTS = ("neuron_intgrad", "neuron_intgrad_published", "greedy", "greedy_published")


def _order(rows: pd.DataFrame) -> Any:
    places = list(dict.fromkeys(rows.x.astype(str)))
    return places.index


_LEAST = 0.68  # of its natural width, below which a figure's labels are too small to read: then it scrolls


def _natural_width(file: Path, dots_per_inch: int) -> int:
    """Width at which its letters have the size they were drawn with, in a page's 96 pixels an inch."""
    from PIL import Image

    with Image.open(file) as picture:
        return round(picture.width / dots_per_inch * 96)


def _inlined(*files: Path) -> str:
    """The first of ``files`` that is there, as data: address."""
    file = next(file for file in files if file.exists())
    kind = "image/svg+xml" if file.suffix == ".svg" else "image/png"
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _matrix(metric: str, rows: pd.DataFrame, beside: dict[tuple[str, str], str] | None = None) -> dict[str, Any]:
    columns = list(dict.fromkeys(rows.x))
    cells = {(row.method, row.x): row for row in rows.itertuples()}
    return {
        "metric": metric.replace("_", " "),
        "x_name": str(rows.x_name.iloc[0]).replace("_", " "),
        "columns": [_number(column) for column in columns],
        "rows": [
            {
                "method": label_of(method),
                "cells": [
                    _cell(cells.get((method, column)))
                    | {"published": (beside or {}).get((method, str(column)), "")}
                    for column in columns
                ],
            }
            for method in in_order(rows.method)
        ],
    }


def _agreement_matrix(found: Agreement) -> dict[str, Any]:
    return {
        "metric": "Kendall's τ",
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


_ORDER = (NOT_REPRODUCED, UNCLEAR, REPRODUCED, NOT_MEASURED)


def write_report(folder: Path, title: str, stages: list[Stage], failed: dict[str, str] | None = None) -> Path:
    """Writes ``folder``/report.html and returns its path; ``failed`` are the errors of stages that it lacks."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent.parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = pd.concat([stage.table for stage in stages], ignore_index=True)
    found, agreed = verdicts(table), agreement(table)
    seconds = [float(stage.manifest["seconds"]) for stage in stages]
    page = environment.get_template("report.html.j2").render(
        title=title,
        stages=stages,
        failed=failed or {},
        times=[duration(part) for part in seconds],
        spent=duration(sum(seconds)),
        verdicts={word: [one for one in found if one.word == word] for word in _ORDER},
        agreement=None if agreed is None else _agreement_matrix(agreed),
        variants=next((stage.variants for stage in stages if stage.variants), []),
        made=_made(stages),
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _made(stages: list[Stage]) -> dict[str, str]:
    """What the whole page was made with: each fact once, or all its values where stages differ."""
    manifests = [stage.manifest for stage in stages]
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
