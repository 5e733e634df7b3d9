"""What identifies jobs and artifacts: settings that determine the results, the content of files, users' code."""

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

from omegaconf import DictConfig, OmegaConf

import cpath
from experiments.framework.store import digest

_MACHINE = ("device", "threads")

# What changes no result, and so is no part of an identity.
INCIDENTAL = (
    *("outputs", "redo", "tracker", "paper"),  # where results go, and what asks for them
    *_MACHINE,  # rounding only; experiments that measure the machine itself say experiment.device_matters
    # What bounds memory and time, as the advice for too little memory has it lowered: rounding at most.
    *("experiment.max_batch", "experiment.together", "experiment.keep_scores_gb", "experiment.side_by_side"),
    *("trainer.workers", "trainer.memory_gb"),
)

# Known by their versions; what else a configuration names may change under its user's hands.
_LIBRARIES = ("cpath", "experiments", "torch", "torchvision")


def job_key(cfg: DictConfig) -> dict[str, Any]:
    """Everything that determines the results of a job and can be known before any of it is made."""
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    kept = _MACHINE if cfg.experiment.get("device_matters") else ()
    for name in INCIDENTAL:
        group, _, key = name.rpartition(".")
        if name not in kept:
            ((settings.get(group) or {}) if group else settings).pop(key, None)
    if settings.get("checkpoint") is not None:
        settings["checkpoint"] = content_digest(settings["checkpoint"])
    imports = settings.get("imports")
    modules = [str(name) for name in imports] if isinstance(imports, list) else []
    code = {name: source_digest(name) for name in modules} | named_code(settings)
    return {**settings, "cpath": cpath.__version__, "code": code}


def content_digest(path: str | Path) -> str:
    """SHA-256 of a file, which is read once in a process as long as it stays the same.

    Its name where it cannot be read: whoever uses it will say so.
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
    """`source_digest` of every ``_target_`` in ``settings``, plain containers, that is not a library's."""
    if isinstance(settings, list):
        return {name: code for value in settings for name, code in named_code(value).items()}
    if not isinstance(settings, Mapping):
        return {}
    found = {name: code for value in settings.values() for name, code in named_code(value).items()}
    target = settings.get("_target_")
    if isinstance(target, str) and _package(target) not in _LIBRARIES:
        found[target] = source_digest(target)
    return found


def code_digest(*objects: object) -> str:
    """Short hash of the code of ``objects``: of classes and functions, or of objects and what their fields hold.

    Of users' code it covers whole modules, as `source_digest`; of cpath's own the class or function alone.
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
    """Hash of the module that ``name`` leads to, and of the user's others that it imports; None for libraries.

    ``name`` is a module's, or that of something in it. None too where there is no such file. The files are read
    once in a process, as the code is that it runs, and none of them is run for it: all processes agree, whatever
    they have imported.
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
    """Where the module is that ``name`` leads to: its longest beginning that is a module's."""
    if name == "__main__":  # a script, unless Python was started with -m
        script = sys.modules[name]
        file = getattr(script, "__file__", None)
        return script.__spec__ or (importlib.util.spec_from_file_location(name, file) if file else None)
    top, *rest = name.split(".")
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # no name, or a module that was not imported but made
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
    """Whether the code of ``package`` is that of a library, which nobody edits; so too where there is none."""
    if package in _LIBRARIES or package in sys.stdlib_module_names:
        return True
    spec = _spec(package)
    places = (spec.submodule_search_locations or [spec.origin or ""]) if spec is not None else []
    return all({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)


def _imports(source: bytes, package: str | None) -> Iterator[str]:
    """Names of what the module imports, anywhere in it."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # compiled, or a mistake that Python will show
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # relative to no package
                origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                yield from (f"{origin}.{alias.name}" for alias in node.names)
