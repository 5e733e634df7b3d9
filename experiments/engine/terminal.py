"""Tables on the terminal. Their cells are shown as they are: brackets in them are no markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_ROWS = 24
_FOLDED = 40  # letters that a cell which may be broken has at least in a line


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = (), fold: Sequence[str] = ()
) -> None:
    """Print a table.

    Args:
        columns: headings.
        rows: cells of each row.
        right: headings of the columns that are aligned to the right.
        fold: headings of the columns whose cells may be broken; the others are never broken nor cut.
    """
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(
            Text(column),
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=bool(fold) and column not in fold,
        )
    cells = [[str(cell) for cell in row] for row in rows]
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console()
    if fold:  # wide enough for what is never cut: a window wraps longer lines, and a file has no width
        longest = [max(map(cell_len, texts)) for texts in zip(columns, *cells, strict=True)]
        needed = [_FOLDED if name in fold else width for name, width in zip(columns, longest, strict=True)]
        console.width = max(console.width, sum(needed) + len(needed))
    console.print(table)


def show_results(table: pd.DataFrame, findings: Iterable[str] = ()) -> None:
    """Print the numbers of whole networks in a tidy table, and what they say.

    Args:
        table: tidy table of a job. Numbers of single sites and epochs are left out.
        findings: sentences on them, which are printed below, each once.
    """
    rows = table[~table.metric.str.contains("/") & (table.x_name != "epoch")]
    if rows.empty:
        return
    cells = [
        (
            row.method,
            row.x.removesuffix(".0"),
            row.metric,
            f"{row.value:.4g}",
            "" if pd.isna(row.ci_low) else f"{row.ci_low:.4g} to {row.ci_high:.4g}",
            row.n,
        )
        for row in rows.head(_ROWS).itertuples()
    ]
    places = {name for name in rows.x_name if name}
    place = places.pop() if len(places) == 1 else "x"
    print_table(("method", place, "metric", "value", "interval", "n"), cells, right=(place, "value", "n"))
    if len(rows) > _ROWS:
        Console().print(f"… and {len(rows) - _ROWS} more in results.csv", markup=False)
    for sentence in dict.fromkeys(findings):
        Console().print(f"\n{sentence}", markup=False, highlight=False)
