"""Command lines of the commands beside ``python -m experiments``."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ParamSpec

import typer

from cpath.errors import CpathError

P = ParamSpec("P")
_SETTING = re.compile(r"([A-Za-z_][\w.]*)=(.*)")


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

    options = {option for parameter in typer.main.get_command(app).params for option in parameter.opts}

    def main(arguments: Sequence[str] | None = None) -> int:
        words = sys.argv[1:] if arguments is None else list(arguments)
        if (instead := _instead_of_settings(words, options)) is not None:
            typer.echo(f"error: {instead}", err=True)
            return 2
        try:
            app(words)
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    return main


def _instead_of_settings(words: Sequence[str], options: Iterable[str]) -> str | None:
    """Message for a command line with words of ``python -m experiments``, such as ``outputs=FOLDER``."""
    for before, word in pairwise(["", *words]):
        setting = _SETTING.fullmatch(word)
        if setting is None or before in options or Path(word).exists():
            continue
        name, value = setting.groups()
        if f"--{name}" in options:
            return f"'{word}' must be '--{name} {value}' here: settings are for `python -m experiments` alone."
        return (
            f"'{word}' is a setting, and settings are for `python -m experiments` alone. Here, name the folder "
            f"itself: '{value or 'outputs'}'."
        )
    return None
