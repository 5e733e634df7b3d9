"""Results of several datasets and models, held against the claims of the paper: a column each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from cpath.errors import InputError
from experiments.engine.job import RESULTS
from experiments.engine.table import read_table
from experiments.paper.claims import NOT_MEASURED, Verdict, verdicts


def read_settings(folders: Iterable[Path]) -> dict[str, pd.DataFrame]:
    """Read the tables below some folders.

    Args:
        folders: of jobs, or above them.

    Returns:
        Tables by «dataset, model», each with all experiments of that setting.

    Raises:
        InputError: if there is none, or two of one experiment, or several numbers for one thing in a table.
    """
    tables: dict[str, dict[str, tuple[Path, pd.DataFrame]]] = {}
    for folder in folders:
        found = sorted(folder.rglob(RESULTS))
        if not found:
            raise InputError(f"no {RESULTS} below {folder}: name the folder of a job, or one that holds several.")
        for path in found:
            for (dataset, model, experiment), part in read_table(path).groupby(
                ["dataset", "model", "experiment"], sort=False
            ):
                setting = tables.setdefault(f"{dataset}, {model}", {})
                if experiment in setting:
                    raise InputError(
                        f"{experiment} of {dataset}, {model} is there twice: {setting[experiment][0]} and {path}. "
                        "Name the folders of those to look at."
                    )
                _check_unique(part, path)
                setting[experiment] = path, part
    return {
        name: pd.concat([part for _, part in parts.values()], ignore_index=True) for name, parts in tables.items()
    }


def _check_unique(table: pd.DataFrame, path: Path) -> None:
    """Refuse the table of a sweep over settings, which has several numbers for one thing."""
    repeated = table[table.duplicated(["method", "metric", "x_name", "x"])]
    if len(repeated):
        row = repeated.iloc[0]
        at = f" at {row.x_name} {row.x}" if row.x_name else ""
        variants = [f"'{name}'" for name in dict.fromkeys(table.get("variant", pd.Series(dtype=str)).dropna())]
        raise InputError(
            f"{path} has several numbers for {row.metric} of {row.method}{at}"
            + (f", of the variants {', '.join(variants)}" if variants else "")
            + ": name the folder of a single job."
        )


def as_markdown(settings: Mapping[str, pd.DataFrame], *, numbers: bool = False) -> str:
    """Hold settings against the claims.

    Args:
        settings: tables by setting.
        numbers: whether those that decided are added below the table.

    Returns:
        A Markdown table with a line for each claim and a column for each setting.

    Raises:
        InputError: if no table has numbers for any claim.
    """
    found = {name: verdicts(table) for name, table in settings.items()}
    found = {name: column for name, column in found.items() if any(one.comparisons for one in column)}
    if not found:
        raise InputError("these results have numbers for none of the paper's claims.")
    lines = [" | ".join(["| the paper says", *found]) + " |", "| --- " * (1 + len(found)) + "|"]
    columns = list(found.values())
    for line in zip(*columns, strict=True):
        claim = line[0].claim
        words = ["–" if one.word == NOT_MEASURED else one.word for one in line]
        lines.append(" | ".join([f"| {claim.place}: {claim.text.removesuffix('.')}", *words]) + " |")
    if numbers:
        for name, column in found.items():
            lines += ["", f"**{name}**", *(line for one in column if one.comparisons for line in _numbers(one))]
    return "\n".join(lines)


def _numbers(verdict: Verdict) -> list[str]:
    return [
        f"- {verdict.claim.text} {verdict.claim.numbers}: {verdict.word}.",
        *(f"  - {comparison.text}" for comparison in verdict.comparisons),
    ]
