"""Digests of what a cache key cannot hold itself: the content of files, and the code of a user's modules."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from experiments.engine.cache import digest

# Their versions identify their code; any other code that a configuration names may be edited between jobs.
_LIBRARIES = ("cpath", "experiments", "torch", "torchvision")


def content_digest(path: str | Path) -> str:
    """Hash the content of a file, which is read once in a process as long as it stays the same.

    Args:
        path: the file.

    Returns:
        SHA-256 in hexadecimal digits; the path itself where the file cannot be read, because whoever uses it will
        say so.
    """
    try:
        file = Path(str(path)).expanduser().resolve()
        status = file.stat()
        return _content_digest(file, status.st_mtime_ns, status.st_size)
    except (OSError, ValueError, RuntimeError):
        return str(path)


@cache
def _content_digest(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def named_code(settings: object) -> dict[str, str | None]:
    """Digest of the user's code that ``settings`` name.

    Args:
        settings: plain containers, with names of classes and functions under ``_target_``.

    Returns:
        `source_digest` of each of these names that belongs to no library.
    """
    if isinstance(settings, list | tuple):
        return {name: code for value in settings for name, code in named_code(value).items()}
    if not isinstance(settings, Mapping):
        return {}
    found = {name: code for value in settings.values() for name, code in named_code(value).items()}
    target = settings.get("_target_")
    if isinstance(target, str) and _package(target) not in _LIBRARIES:
        found[target] = source_digest(target)
    return found


def code_digest(*objects: object) -> str:
    """Hash the code of objects.

    Of users' code whole modules are hashed, as `source_digest` does; of cpath's own the class or function alone.

    Args:
        objects: classes and functions, or instances, for which their class and the classes of their fields count.

    Returns:
        12 hexadecimal digits.
    """
    return digest({"code": [_code(part) for thing in objects for part in _parts(thing)]})


def _parts(thing: object) -> Iterator[Any]:
    """The classes and functions that ``thing`` is made of."""
    if isinstance(thing, type) or inspect.isroutine(thing):
        yield thing
    else:
        yield type(thing)
        fields = getattr(thing, "__dict__", {}).values()
        yield from (value if inspect.isroutine(value) else type(value) for value in fields)


def _code(part: Any) -> tuple[str, str | None]:
    module = str(part.__module__)
    source = source_digest(module)
    if source is None and _package(module) in ("cpath", "experiments", "__main__"):
        with suppress(OSError, TypeError):  # a notebook's or a prompt's classes may have no source
            source = inspect.getsource(part)
    return f"{module}.{part.__qualname__}", source


@cache
def source_digest(name: str) -> str | None:
    """Hash the module that a name leads to, and the user's other modules that it imports.

    The files are read once in a process, as the code is that it runs, and none of them is run for it: all processes
    agree, whatever they have imported.

    Args:
        name: of a module, or of something in it.

    Returns:
        12 hexadecimal digits; None for libraries, and where there is no such file.
    """
    if _package(name) in _LIBRARIES or _package(name) in sys.stdlib_module_names:
        return None
    sources: dict[str, str] = {}
    waiting = [name]
    while waiting:
        spec = _spec(waiting.pop())
        if spec is None or spec.origin is None or spec.name in sources:
            continue
        try:
            source = Path(spec.origin).read_bytes()
        except OSError:
            continue
        sources[spec.name] = hashlib.sha256(source).hexdigest()
        if not _is_installed(_package(spec.name)):
            waiting.extend(name for name in _imports(source, spec.parent) if not _is_installed(_package(name)))
    return digest(sources) if sources else None


def _package(name: str) -> str:
    return name.partition(".")[0]


def _spec(name: str) -> ModuleSpec | None:
    """Find the module that a name leads to: its longest beginning that is a module's."""
    if name == "__main__":  # a script, unless Python was started with -m
        script = sys.modules[name]
        file = getattr(script, "__file__", None)
        return script.__spec__ or (importlib.util.spec_from_file_location(name, file) if file else None)
    top, *rest = name.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # not the name of a module, or a module made at run time
        return None
    for part in rest:
        if found is None or found.submodule_search_locations is None:
            break
        # Not by `find_spec`, which runs the packages above.
        inner = PathFinder.find_spec(f"{found.name}.{part}", list(found.submodule_search_locations))
        if inner is None:
            break
        found = inner
    return found


@cache
def _is_installed(package: str) -> bool:
    """Tell if the code of a package is a library's, which nobody edits; so too where there is no such package."""
    if package in _LIBRARIES or package in sys.stdlib_module_names:
        return True
    spec = _spec(package)
    places = (spec.submodule_search_locations or [spec.origin or ""]) if spec is not None else []
    return all({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)


@cache  # the same modules are behind most of what a job asks for
def _imports(source: bytes, package: str | None) -> tuple[str, ...]:
    """Names of what the module imports, anywhere in it."""
    return tuple(_imported(source, package))


def _imported(source: bytes, package: str | None) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # compiled, or a mistake that Python will show
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # a relative import outside of a package
                origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield from (f"{origin}.{alias.name}" for alias in node.names)
