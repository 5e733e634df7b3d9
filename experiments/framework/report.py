"""The report: one self-contained page made from the tables and figures that jobs left."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from cpath.plots import in_order, label_of
from experiments.framework.store import write_text

_MOST_COLUMNS = 8

_TITLES = {
    "train": "The model",
    "path_analysis": "Critical pathways: overlap, dead neurons, responses",
    "path_decoding": "Path decoding: what the pathways respond to",
    "linearity": "Local linearity of the restricted networks",
    "saliency": "Pathways as saliency maps",
    "degradation": "Input degradation: are the removed pixels the relevant ones?",
    "roar_table": "ROAR and KAR: retraining without the pixels that matter",
    "roar": "ROAR and KAR: retraining without the pixels that matter",
    "sanity_checks": "Sanity checks: do the maps depend on what the network learned?",
}


@dataclass(frozen=True)
class Stage:
    """A finished job of the paper."""

    name: str
    folder: Path
    table: pd.DataFrame

    @property
    def title(self) -> str:
        """Its heading."""
        return _TITLES.get(self.name, self.name.replace("_", " ").capitalize())

    @property
    def manifest(self) -> dict[str, Any]:
        """What it was made with."""
        manifest: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        return manifest

    @property
    def figures(self) -> list[dict[str, str]]:
        """Its figures, to be put into the page itself, with captions."""
        folder = self.folder / "figures"
        captions = json.loads((folder / "captions.json").read_text())
        return [
            {
                "name": name,
                "caption": caption,
                "data": _inlined(folder / f"{name}.svg", folder / f"{name}.png"),
            }
            for name, caption in captions.items()
        ]

    @property
    def tables(self) -> list[dict[str, Any]]:
        """Whole-network numbers by method and x, one table a metric; what has many x is a curve, and drawn."""
        rows = self.table[~self.table.metric.str.contains("/") & (self.table.x_name != "epoch")]
        metrics = [(str(metric), part) for metric, part in rows.groupby("metric", sort=False)]
        return [_matrix(metric, part) for metric, part in metrics if 0 < part.x.nunique() <= _MOST_COLUMNS]


def _inlined(*files: Path) -> str:
    """The first of ``files`` that is there, as data: address."""
    file = next(file for file in files if file.exists())
    kind = "image/svg+xml" if file.suffix == ".svg" else "image/png"
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


def _matrix(metric: str, rows: pd.DataFrame) -> dict[str, Any]:
    columns = list(dict.fromkeys(rows.x))
    cells = {(row.method, row.x): row for row in rows.itertuples()}
    methods = in_order(rows.method)
    return {
        "metric": metric.replace("_", " "),
        "x_name": str(rows.x_name.iloc[0]),
        "columns": [_number(column) for column in columns],
        "rows": [
            {"method": label_of(method), "cells": [_cell(cells.get((method, column))) for column in columns]}
            for method in methods
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


def write_report(folder: Path, title: str, stages: list[Stage], seconds: float) -> Path:
    """Writes ``folder``/report.html and returns its path."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent.parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    spent = sum(float(stage.manifest["seconds"]) for stage in stages)
    page = environment.get_template("report.html.j2").render(
        title=title, stages=stages, seconds=seconds, spent=spent
    )
    path = folder / "report.html"
    write_text(path, page)
    return path
