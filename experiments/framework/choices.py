"""Choices on the command line: those that no file under conf/ makes, and errors with the close matches."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import cpath
from cpath.errors import CpathError, InputError, unknown_name
from cpath.models.torchvision import names
from experiments import CONF

_REGISTERED = {"method": cpath.methods, "attribution": cpath.attribution}


def import_modules(modules: Iterable[str]) -> None:
    """Imports the user's modules, which register methods; raises `InputError` for one that cannot be imported."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(f"imports: cannot import '{module}': {error}") from error


def explained(error: CompactHydraException) -> str:
    """What is wrong with the command line, with the close matches of a setting that does not exist."""
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        unknown = str(cause.full_key)
        parent, dot, _ = unknown.rpartition(".")
        known = [f"{parent}{dot}{key!s}" for key in cause.parent_node if key != "hydra"]
        if unknown not in known:
            deeper = [name for name in _dotted(cause.parent_node, parent) if name.endswith(f".{unknown}")]
            if deeper:
                return f"unknown setting '{unknown}' of this experiment. There is {', '.join(deeper)}."
            return str(unknown_name("setting", unknown, known))
    return f"{error}" if cause is None else f"{error}: {cause}"


def _dotted(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """The full names of everything in ``node`` but hydra's."""
    for key in map(str, node):
        name = f"{prefix}.{key}" if prefix else key
        if name == "hydra":
            continue
        yield name
        child = None if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key) else node[key]
        if isinstance(child, DictConfig):
            yield from _dotted(child, name)


def register_choices() -> None:
    """Makes choices of what no file under conf/ names, and conf/ the only source of launchers.

    Every torchvision classifier is one of ``model``; of ``method`` and ``attribution`` all that is registered.
    """
    store = ConfigStore.instance()
    for group, registry in _REGISTERED.items():
        for name in registry.names():
            if not (CONF / group / f"{name}.yaml").exists():
                store.store(group=group, name=name, node={name: _settings(registry, name)}, provider="registered")
    for name in names():
        node = {
            "name": name,
            "_target_": "cpath.models.torchvision_model",
            "architecture": name,
            # auto: torchvision's best weights on dataset=imagenet, else none (trained here);
            # null; or a name, such as IMAGENET1K_V1.
            "weights": "auto",
        }
        store.store(group="model", name=name, node=node, provider="torchvision")
    Plugins.instance()  # registers its own launchers when it is first asked for
    launchers = store.repo["hydra"]["launcher"]
    for name in list(launchers):
        # Hydra would take those for schemas of the files of the same name, and warn with every job.
        del launchers[name]


def _settings(registry: Any, name: str) -> dict[str, Any]:
    """The settings of what is registered as ``name`` that a configuration can hold, with their default values."""
    try:
        made = registry.get(name)
    except CpathError:  # it has settings without one
        return {}
    found = {**vars(getattr(made, "method", made)), **vars(made)}
    plain = {key: value for key, value in found.items() if isinstance(value, bool | int | float | str | None)}
    return {key: "${seed}" if key == "seed" else value for key, value in plain.items()}


def check_choices(arguments: Sequence[str]) -> None:
    """Raises `UnknownNameError` for an argument GROUP=NAME whose NAME is no choice of the group.

    The modules of an argument ``imports=[…]`` are imported first: they may register more.
    """
    for argument in arguments:
        if argument.startswith("imports="):
            import_modules(_names(argument.removeprefix("imports=")))
    folders = [path for path in CONF.rglob("*") if path.is_dir()]
    groups = {path.relative_to(CONF).as_posix(): path for path in folders if any(path.glob("*.yaml"))}
    for argument in arguments:
        group, equals, value = argument.partition("=")
        if not equals or group not in groups or value in ("null", ""):
            continue
        known = {path.stem for path in groups[group].glob("*.yaml")}
        if group == "model":
            known |= set(names())
        if group in _REGISTERED:
            known |= set(_REGISTERED[group].names())
        for name in _names(value):
            if name not in known and "(" not in name:
                raise unknown_name(group, name, known)


def _names(value: str) -> list[str]:
    return [name.strip(" '\"") for name in value.strip("[]").split(",") if name.strip()]
