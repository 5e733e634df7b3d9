"""`python -m experiments.verdicts FOLDER`: results held against what the paper claims, a column each setting."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from cpath.errors import InputError
from experiments.framework.claims import NOT_MEASURED, Verdict, verdicts
from experiments.framework.command import exit_status
from experiments.framework.results import read_table


def read_settings(folders: Iterable[Path]) -> dict[str, pd.DataFrame]:
    """The tables below ``folders`` by «dataset, model», each with all experiments of that setting.

    Raises `InputError` where there is none, or two of one experiment, or several numbers for one thing in a table.
    """
    tables: dict[str, dict[str, tuple[Path, pd.DataFrame]]] = {}
    for folder in folders:
        found = sorted(folder.rglob("results.csv"))
        if not found:
            raise InputError(f"no results.csv below {folder}: name the folder of a job, or one that holds several.")
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
    """A sweep over settings leaves a table with a number for each of them: none of them is the setting's."""
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
    """A table with a line a claim and a column a setting; ``numbers`` adds those that decided, below it."""
    found = {name: verdicts(table) for name, table in settings.items()}
    found = {name: column for name, column in found.items() if any(one.comparisons for one in column)}
    if not found:
        raise InputError("these results speak to none of the paper's claims.")
    lines = [" | ".join(["| the paper says", *found]) + " |", "| --- " * (1 + len(found)) + "|"]
    columns = list(found.values())
    for line in zip(*columns, strict=True):
        claim = line[0].claim
        said = claim.text.rsplit(". ", 1)[0]  # the rest names the numbers
        words = ["–" if one.word == NOT_MEASURED else one.word for one in line]
        lines.append(" | ".join([f"| {claim.place}: {said}", *words]) + " |")
    if numbers:
        for name, column in found.items():
            lines += ["", f"**{name}**", *(line for one in column if one.comparisons for line in _numbers(one))]
    return "\n".join(lines)


def _numbers(verdict: Verdict) -> list[str]:
    return [
        f"- {verdict.claim.text} {verdict.word}.",
        *(f"  - {comparison.text}" for comparison in verdict.comparisons),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Prints the table for the folders on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.verdicts",
        description="Holds finished results against the claims of the paper: reproduced, not reproduced, or "
        "unclear where intervals overlap or are missing. Prints a Markdown table, a column each dataset and model.",
    )
    parser.add_argument("folder", nargs="+", type=Path, help="of jobs (outputs/runs/EXPERIMENT/…) or above them")
    parser.add_argument("--numbers", action="store_true", help="also print the numbers that decided")
    asked = parser.parse_args(arguments)

    def show() -> int:
        print(as_markdown(read_settings(asked.folder), numbers=asked.numbers))
        return 0

    return exit_status(show)


if __name__ == "__main__":
    sys.exit(main())
