"""Pages of the documentation that are written from code: the API, the metrics, the settings and the methods."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_origin

from omegaconf import OmegaConf

PACKAGES = {
    "cpath": "Scores, pathways, maps",
    "cpath.methods": "Extraction methods",
    "cpath.attribution": "Attributions",
    "cpath.analysis": "Measures on pathways",
    "cpath.evaluation": "Tests of attributions and pathways",
    "cpath.decoding": "Path decoding",
    "cpath.data": "Datasets",
    "cpath.models": "Models",
    "cpath.viz": "Figures",
    "cpath.training": "Training",
    "cpath.stacked": "Training several networks at once",
    "experiments": "Results of experiments",
}
"""Modules of the API reference, with the titles of their pages."""

_GENERATED = "<!-- Written from code by docs/generated.py: changes are lost. -->\n"


def write_pages(folder: Path) -> list[Path]:
    """Write the pages that follow from code.

    Args:
        folder: The folder to write to. Files whose content stays as it is are not touched, so that Sphinx does not
            read them again.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{name}.rst": _api(name, title) for name, title in PACKAGES.items()}
    pages |= {"metrics.md": _metrics(), "settings.md": _settings(), "methods.md": _methods()}
    for name, text in pages.items():
        file = folder / name
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
    return [folder / name for name in pages]


def write_notebook(page: Path, folder: Path) -> Path:
    """Write a page as a notebook, which has no outputs yet.

    Args:
        page: The page. Its Python is cells of code; all else is text.
        folder: The folder to write to.

    Returns:
        The notebook.
    """
    import jupytext

    file = folder / f"{page.stem}.ipynb"
    jupytext.write(jupytext.read(page), file)
    return file


def public_names(module: ModuleType) -> list[str]:
    """List what a module offers: its `__all__`, or what it defines itself, without submodules.

    Args:
        module: The module.

    Returns:
        Names, in alphabetical order.
    """
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    offered = getattr(module, "__all__", [name for name in own if not name.startswith("_")])
    return sorted(name for name in offered if not isinstance(getattr(module, name), ModuleType))


def _api(name: str, title: str) -> str:
    module, top = import_module(name), import_module("cpath")
    heading = f"{title}: ``{name}``"
    lines = [heading, "=" * len(heading), "", f".. automodule:: {name}", "   :no-members:", ""]
    for member in public_names(module):
        value = getattr(module, member)
        # One page of an object is the one that links lead to: that of cpath itself where it is there too.
        twice = ["   :no-index:"] if module is not top and getattr(top, member, None) is value else []
        if inspect.isclass(value):
            lines += [f".. autoclass:: {name}.{member}", "   :members:", "   :show-inheritance:", *twice, ""]
        elif inspect.isroutine(value):
            lines += [f".. autofunction:: {name}.{member}", *twice, ""]
        else:
            lines += [f".. py:data:: {name}.{member}", *twice, "", f"   {_value(value)}", ""]
    return "\n".join(lines)


def _value(value: Any) -> str:
    """Names of a collection, or a type as it is written."""
    return f"``{value}``" if get_origin(value) else ", ".join(map(str, value))


def _metrics() -> str:
    from experiments.metrics import METRICS

    rows = [
        (
            f"`{entry.name}`",
            entry.unit or "–",
            _range(entry.range),
            entry.better or "–",
            entry.over,
            _sentence(entry),
        )
        for entry in sorted(METRICS.values(), key=lambda entry: entry.name)
    ]
    return (
        f"{_GENERATED}# Metrics\n\n"
        "Every number that a table of results can hold. A name may be qualified after a slash: `jaccard/greedy` is "
        "the metric `jaccard` with Greedy. Shares are in per cent.\n\n"
        + _table(("metric", "unit", "range", "better", "n counts", "meaning"), rows)
    )


def _sentence(entry: Any) -> str:
    return f"{entry.meaning} ({entry.source})" if entry.source else entry.meaning


def _range(bounds: tuple[float, float]) -> str:
    return " to ".join(f"{bound:g}".replace("inf", "∞") for bound in bounds)


def _settings() -> str:
    from experiments import CONF

    parts = [
        f"{_GENERATED}# Settings\n",
        "Each file under `conf/`, as it is. A setting is given on the command line by its path, such as "
        "`experiment.images=100`; `GROUP=NAME` picks a file of a group. Types and limits stand in the class that "
        "`_target_` names, and are checked before any work begins.\n",
    ]
    for group in ("", "experiment", "dataset", "model", "recipe", "trainer", "tracker", "paper"):
        files = sorted((CONF / group).glob("*.yaml"))
        parts.append(f"## {f'`{group}=…`' if group else 'Every job'}\n")
        for file in files:
            OmegaConf.load(file)  # a file that does not parse is no documentation
            parts.append(f"### `{file.relative_to(CONF)}`\n\n```yaml\n{file.read_text().strip()}\n```\n")
    return "\n".join(parts)


def _methods() -> str:
    import cpath

    parts = [
        f"{_GENERATED}# Methods and attributions by name\n",
        "`cpath.score`, `cpath.find_pathway` and `cpath.attribute` take these names, and objects of the classes "
        "where other settings are wanted: `cpath.methods.NeuronIntGrad(nodes=9)`. In the experiments they are "
        "`method=NAME`, `attribution=NAME`, and `method.NAME.SETTING=VALUE`.\n",
        "## Extraction methods\n",
        _table(("name", "class and settings", "summary"), _registered(cpath.methods)),
        "\n## Attributions\n",
        "Any extraction method is an attribution too: the gradient of the network restricted to its pathway.\n",
        _table(("name", "class and settings", "summary"), _registered(cpath.attribution)),
    ]
    return "\n".join(parts)


def _registered(package: Any) -> Iterator[tuple[str, str, str]]:
    import cpath

    for name in package.names():
        if package is cpath.attribution and name in cpath.methods.names():
            continue
        made = package.get(name)
        kind = type(made)
        settings = ", ".join(f"{field.name}={_default(field)}" for field in fields(kind))
        yield f"`{name}`", f"`{kind.__name__}({settings})`", (kind.__doc__ or "").strip().split("\n\n")[0]


def _default(field: Any) -> str:
    if field.default is not MISSING:
        return repr(field.default)
    return "…" if field.default_factory is MISSING else repr(field.default_factory())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    cells = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in cells) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
