"""The docstrings of the public names say what a user must know: every argument, the result, in plain sentences."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import pytest
import typer
from typer.models import ArgumentInfo, OptionInfo

PACKAGES = ["cpath", "experiments"]
"""Packages whose public functions and classes are checked."""
EXCEPT: list[str] = ["experiments.__main__"]
"""Parts of them that are not."""

RIDDLES = re.compile(r"(What|Whether|How|Where|Who|Which|When|Why)\b")


def _modules(package: str) -> Iterator[str]:
    yield package
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not any(f"{module.name}.".startswith(f"{left_out}.") for left_out in EXCEPT):
            yield module.name


MODULES = [module for package in PACKAGES for module in _modules(package)]


def _is_public(name: str) -> bool:
    return not name.startswith("_") or name in ("__getitem__", "__call__")


def _functions(module: str) -> Iterator[tuple[str, Callable[..., Any], type | None]]:
    """Public functions of a module and methods of its public classes: (name, function, class)."""
    if any(part.startswith("_") for part in module.split(".")):
        return
    loaded = importlib.import_module(module)
    for name, value in vars(loaded).items():
        if not _is_public(name) or getattr(value, "__module__", None) != module:
            continue
        if inspect.isclass(value):
            for key, member in vars(value).items():
                inner = getattr(member, "__func__", member)  # of classmethod and staticmethod
                if _is_public(key) and inspect.isroutine(inner) and inner.__module__ == module:
                    yield f"{name}.{key}", inner, value
        elif inspect.isroutine(inspect.unwrap(value)):
            yield name, value, None


def _classes(module: str) -> Iterator[tuple[str, type]]:
    for name, value in vars(importlib.import_module(module)).items():
        if not name.startswith("_") and inspect.isclass(value) and value.__module__ == module:
            yield name, value


def _overrides(cls: type | None, name: str) -> bool:
    """A method that a base class documents: its arguments and result are told there."""
    key = name.rpartition(".")[2]
    return cls is not None and any(key in vars(base) for base in cls.__mro__[1:] if base is not object)


def _is_command(function: Callable[..., Any]) -> bool:
    """A command of Typer's: its docstring is the help text, and ``help=…`` describes each parameter there."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # of names that are imported for type checkers alone, or of no plain function
        return False
    parameters = [getattr(hints.get(name), "__metadata__", ()) for name in inspect.signature(function).parameters]
    return bool(parameters) and all(
        any(isinstance(mark, (ArgumentInfo, OptionInfo)) and mark.help for mark in marks) for marks in parameters
    )


def _section(docstring: str, title: str) -> str:
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)*)", inspect.cleandoc(docstring), re.MULTILINE)
    return found[1] if found else ""


def _names_in(section: str) -> set[str]:
    """Names at the beginning of the entries of a section: ``name: …``."""
    return set(re.findall(r"^ {4}\*{0,2}(\w+):", section, re.MULTILINE))


def missing_in_docstring(name: str, function: Callable[..., Any], cls: type | None) -> list[str]:
    """Complaints about the docstring of a function or method."""
    text = inspect.unwrap(function).__doc__
    if not text:
        return ["no docstring"]
    if _overrides(cls, name) or _is_command(function):
        return []
    signature = inspect.signature(function)
    told = _names_in(_section(text, "Args"))
    wanted = {key for key in signature.parameters if key not in ("self", "cls") and not key.startswith("_")}
    complaints = [f"argument '{key}' is not described" for key in sorted(wanted - told)]
    complaints += [f"there is no argument '{key}'" for key in sorted(told - set(signature.parameters))]
    returns = str(signature.return_annotation)
    if returns not in ("None", "NoReturn") and not (_section(text, "Returns") or _section(text, "Yields")):
        complaints.append("no Returns section")
    return complaints


@pytest.mark.parametrize("module", MODULES)
def test_functions_describe_their_arguments_and_results(module: str) -> None:
    complaints = [
        f"{module}.{name}: {complaint}"
        for name, function, cls in _functions(module)
        for complaint in missing_in_docstring(name, function, cls)
    ]
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("module", MODULES)
def test_classes_describe_their_settings(module: str) -> None:
    complaints = []
    for name, cls in _classes(module):
        text = cls.__doc__ or ""
        inherited = [key for base in cls.__mro__[1:] for key in _described(base)]
        if getattr(cls, "_is_protocol", False):
            wanted = []
        elif dataclasses.is_dataclass(cls):
            wanted = [field.name for field in dataclasses.fields(cls) if field.init]
            wanted = [name for name in wanted if not name.startswith("_")]
        elif "__init__" in vars(cls):
            wanted = [key for key in inspect.signature(vars(cls)["__init__"]).parameters if key != "self"]
        else:
            wanted = []
        told = {*_described(cls), *inherited}
        if module.startswith("experiments"):
            told |= {field for base in cls.__mro__ for field in _described_below(base)}
        complaints += [f"{module}.{name}: '{key}' is not described" for key in wanted if key not in told]
        if not text or text.startswith(f"{name}("):  # what dataclass writes in place of a docstring
            complaints.append(f"{module}.{name}: no docstring")
    assert not complaints, "\n".join(complaints)


def _described(cls: type) -> set[str]:
    text = vars(cls).get("__doc__") or ""
    return _names_in(_section(text, "Args")) | _names_in(_section(text, "Attributes"))


def _described_below(cls: type) -> set[str]:
    """Fields of a class of the experiments that have a text below them, as their settings have."""
    if not cls.__module__.startswith("experiments"):
        return set()
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id
        for field, below in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
        and isinstance(below.value.value, str)
    }


def _docstrings(module: str) -> Iterator[tuple[str, str]]:
    """Every docstring in a module's source, also of private and nested names, and of the values that it defines."""
    file = importlib.import_module(module).__file__
    assert file is not None
    for node in ast.walk(ast.parse(Path(file).read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", "module"), text
            yield from _texts_below(node)


def _texts_below(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[tuple[str, str]]:
    """Texts below the values that a body defines, with the values' names."""
    for value, below in itertools.pairwise(node.body):
        match value, below:
            case ast.Assign() | ast.AnnAssign(), ast.Expr(value=ast.Constant(value=str(text))):
                yield ast.unparse(value).partition(" ")[0].rstrip(":"), text


@pytest.mark.parametrize("module", MODULES)
def test_no_summary_is_an_indirect_question(module: str) -> None:
    found = [
        f"{module}.{name}: {text.splitlines()[0]}" for name, text in _docstrings(module) if RIDDLES.match(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_exported_functions_and_settings_have_examples(package: str) -> None:
    """What a package exports, functions and classes that users make, shows how it is called."""
    lacking = set()
    for module in MODULES:
        loaded = importlib.import_module(module)
        if f"{module}.".startswith(f"{package}.") and hasattr(loaded, "__all__"):
            for name in loaded.__all__:
                value = getattr(loaded, name)
                text = inspect.unwrap(value).__doc__ or "" if callable(value) else ""
                called = inspect.isroutine(inspect.unwrap(value)) or (inspect.isclass(value) and "Args:" in text)
                if called and ">>>" not in text:
                    lacking.add(f"{module}.{name}")
    assert not lacking, "\n".join(sorted(lacking))


@pytest.mark.parametrize("module", MODULES)
def test_properties_have_a_summary(module: str) -> None:
    lacking = [
        f"{module}.{name}.{key}"
        for name, cls in _classes(module)
        for key, member in vars(cls).items()
        if not key.startswith("_") and isinstance(member, (property, cached_property)) and not member.__doc__
    ]
    assert not lacking, "\n".join(lacking)


def test_a_docstring_that_lacks_something_is_found() -> None:
    def bad(first: int, second: int = 0) -> int:
        """Add.

        Args:
            first: A number.
            third: Not there.
        """
        return first + second

    assert missing_in_docstring("bad", bad, None) == [
        "argument 'second' is not described",
        "there is no argument 'third'",
        "no Returns section",
    ]


def test_a_command_is_told_from_a_function_by_the_help_of_its_parameters() -> None:
    def command(name: Annotated[str, typer.Option(help="A name.")]) -> int:
        return len(name)

    def without_help(name: Annotated[str, typer.Option()]) -> int:
        return len(name)

    def function(name: Annotated[str, "some mark"]) -> int:
        return len(name)

    assert [_is_command(one) for one in (command, without_help, function)] == [True, False, False]
