"""Choices on the command line: those that no file under conf/ makes, and errors with the close matches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from cpath.errors import unknown_name
from cpath.models.torchvision import names


def register_choices() -> None:
    """Makes every torchvision classifier a choice of ``model``, and conf/ the only source of launchers."""
    store = ConfigStore.instance()
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


def check_choices(arguments: Sequence[str], conf: Path) -> None:
    """Raises `UnknownNameError` for an argument GROUP=NAME whose NAME is no choice of the group."""
    folders = [path for path in conf.rglob("*") if path.is_dir()]
    groups = {path.relative_to(conf).as_posix(): path for path in folders if any(path.glob("*.yaml"))}
    for argument in arguments:
        group, equals, value = argument.partition("=")
        if not equals or group not in groups or value in ("null", ""):
            continue
        known = {path.stem for path in groups[group].glob("*.yaml")}
        if group == "model":
            known |= set(names())
        for name in value.strip("[]").split(","):
            if name.strip() not in known and "(" not in name:
                raise unknown_name(group, name.strip(), known)
