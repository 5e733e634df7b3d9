"""Command lines of the commands beside ``python -m experiments``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import ParamSpec

import typer

from cpath.errors import CpathError

P = ParamSpec("P")


def command(work: Callable[P, int | None]) -> Callable[[Sequence[str] | None], int]:
    """Make a command of a function: its parameters are the arguments, its docstring is the help.

    Args:
        work: does what the command is for; returns the exit status, None for 0.

    Returns:
        A function that takes the words of a command line, None for those that the process was started with, and
        returns the exit status: 2, with one line on stderr, for a wrong argument and for an error of cpath's own.

    Example:
        >>> from experiments.engine.command import command
        >>> def greet(name: str) -> None:
        ...     print(f"Hello {name}.")
        >>> main = command(greet)
        >>> main(["you"])
        Hello you.
        0
    """

    @functools.wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            status = work(*args, **kwargs)
        except CpathError as error:
            typer.echo(f"error: {error}", err=True)
            status = 2
        raise typer.Exit(status or 0)

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(run)

    def main(arguments: Sequence[str] | None = None) -> int:
        try:
            app(arguments)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return main
