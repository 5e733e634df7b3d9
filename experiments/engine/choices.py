"""Choices of the command line that have no file under ``conf``, and what is said where one is wrong."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import cpath
from cpath.attribution.base import REGISTRY as ATTRIBUTIONS
from cpath.attribution.pathways import PathwayGradient
from cpath.errors import InputError, unknown_name
from cpath.methods.base import REGISTRY as METHODS
from cpath.models.torchvision import names as torchvision_names
from experiments import CONF
from experiments.engine import experiment, pathway_metric
from experiments.engine.config import import_modules, removed, renamed, unknown_setting


def register_choices(*, torchvision: bool = True) -> None:
    """Make choices of what no file under ``conf`` names, and ``conf`` the only source of launchers.

    Every extraction method and attribution is a choice, with the defaults of its class; every torchvision
    classifier is a choice of ``model``; every experiment and metric that a user's module registered is one too.

    Args:
        torchvision: whether its models are wanted: torchvision takes seconds to import.

    Raises:
        InputError: if a user's module registered something under a name that a file under ``conf`` has.
    """
    store = ConfigStore.instance()
    for group, names in (("method", cpath.methods.names()), ("attribution", cpath.attribution.names())):
        for name in names:
            _check_free(group, name)
            store.store(group=group, name=name, node={name: _defaults(group, name)}, provider="registered")
    for name in experiment.REGISTERED:
        _check_free("experiment", name)
        store.store(group="experiment", name=name, node=experiment.defaults_of(name), provider="registered")
    for name, cls in pathway_metric.REGISTERED.items():
        _check_free("metric", name)
        target = {"_target_": f"{cls.__module__}.{cls.__qualname__}"}
        store.store(group="metric", name=name, node={name: target}, provider="registered")
    for name in torchvision_names() if torchvision else ():
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


def _check_free(group: str, name: str) -> None:
    # Hydra would take the file, and say nothing.
    if (CONF / group / f"{name}.yaml").exists():
        raise InputError(f"{group}={name} is a choice of cpath's own: register yours under another name.")


def _defaults(group: str, name: str) -> dict[str, Any]:
    """Settings of a method or attribution that a configuration can hold, with the defaults of its class."""
    if group == "attribution" and name in ATTRIBUTIONS:
        classes: list[type[Any]] = [ATTRIBUTIONS[name]]
    elif group == "attribution":  # the pathway gradient of a method
        classes = [METHODS[name], PathwayGradient]
    else:
        classes = [METHODS[name]]
    found = {field.name: field.default for cls in classes for field in dataclasses.fields(cls)}
    if PathwayGradient in classes:
        del found["method"]
    plain = {key: value for key, value in found.items() if isinstance(value, bool | int | float | str | None)}
    return {key: "${seed}" if key == "seed" else value for key, value in plain.items()}


def may_name_a_model(arguments: Iterable[str]) -> bool:
    """Tell if a command line may name a torchvision model, or asks for the choices that there are.

    Args:
        arguments: command line without the program's name.

    Returns:
        False only if torchvision's models are certainly not needed.
    """
    asking = ("-m", "--multirun")
    return any(
        argument.lstrip("+").startswith("model") or (argument.startswith("-") and argument not in asking)
        for argument in arguments
    )


def import_named_modules(arguments: Iterable[str]) -> None:
    """Import the modules of an argument ``imports=[…]``, before the choices that they register are looked up.

    Args:
        arguments: command line without the program's name.

    Raises:
        InputError: if a module cannot be imported.
    """
    parser = OverridesParser.create()
    for argument in arguments:
        if argument.startswith("imports="):
            value = parser.parse_override(argument).value()
            import_modules(map(str, value) if isinstance(value, list) else [str(value)])


_QUOTING = (
    "A value with one of = ( ) { } [ ] , : # ~ or a space needs quotes of its own inside those of the shell, as in "
    "'checkpoint=\"epoch=3-step=8.ckpt\"'."
)


def explained(error: CompactHydraException) -> str:
    """Describe what is wrong with a command line.

    Args:
        error: as Hydra raised it.

    Returns:
        Hydra's own message; for a setting that does not exist, with its name of today or the close matches; for
        what cannot be parsed, with a word on quoting.
    """
    if isinstance(error, OverrideParseException):
        problem = str(error).removeprefix(f"Error parsing override '{error.override}'").strip()
        return f"cannot read '{error.override}': {problem}\n{_QUOTING}"
    cause = error.__cause__
    if isinstance(cause, OmegaConfBaseException) and isinstance(cause.parent_node, DictConfig):
        told = _of_setting(str(cause.full_key), cause.parent_node)
    else:
        told = _of_choice(str(error)) or _of_taking_away(str(error))
    if told is not None:
        return told
    # Of an unknown choice Hydra also tells where it looked, which is of no use here.
    message = str(error).partition("\nConfig search path:")[0].rstrip()
    return message if cause is None else f"{message}: {cause}"


def _of_setting(name: str, node: DictConfig) -> str | None:
    """Message for a setting that ``node`` does not have; None if it has it."""
    if (now := renamed(name) or _removed(name, node)) is not None:
        return now
    parent, dot, _ = name.rpartition(".")
    known = [f"{parent}{dot}{key!s}" for key in node if key != "hydra"]
    if name in known:
        return None
    if deeper := [other for other in _dotted(node, parent) if other.endswith(f".{name}")]:
        return f"this experiment has no setting '{name}'; there is {', '.join(deeper)}."
    return str(unknown_setting(name, known))


def _of_choice(message: str) -> str | None:
    """Message for a choice that there is not; None where Hydra's own says enough."""
    found = re.search(r"Could not (?:find|load) '([\w/]+)/([^'/]+)'", message)
    if found is None:
        return None
    group, name = found.groups()
    if group in ("method", "attribution") and (new := METHODS.renamed.get(name)) is not None:
        return f"the {group} '{name}' is called '{new}' now."
    known = _choices(group)
    return str(unknown_name(group, name, known)) if known else None


def _of_taking_away(message: str) -> str | None:
    found = re.match(r"Could not delete from config\. '(.+)' does not exist\.", message)
    if found is None:
        return None
    name = found[1]  # Hydra takes null for nothing
    return f"~{name}: there is no such setting, or it is null as it is. To change one, write {name}=VALUE."


def _choices(group: str) -> list[str]:
    stored = ConfigStore.instance().list(group) if group in ConfigStore.instance().repo else []
    files = [file.name for file in (CONF / group).glob("*.yaml")]
    return [name.removesuffix(".yaml") for name in {*stored, *files}]


def _removed(name: str, node: DictConfig) -> str | None:
    """Message for a setting that the experiment of ``node`` had in an earlier version."""
    target = OmegaConf.select(node, "_target_")
    if not name.startswith("experiment.") or not isinstance(target, str):
        return None
    try:
        return removed(name, target)
    except InputError:  # which is not what is wrong with the command line
        return None


def _dotted(node: DictConfig, prefix: str = "") -> Iterator[str]:
    """Full names of everything in ``node`` but Hydra's."""
    for key in map(str, node):
        name = f"{prefix}.{key}" if prefix else key
        if name == "hydra":
            continue
        yield name
        child = None if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key) else node[key]
        if isinstance(child, DictConfig):
            yield from _dotted(child, name)
