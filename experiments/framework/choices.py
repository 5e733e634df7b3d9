"""Choices on the command line: torchvision's models as choices of `model`, and errors with the close matches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore

from cpath.errors import unknown_name
from cpath.models.torchvision import names


def register_torchvision_models() -> None:
    """Makes every torchvision classifier a choice of the group ``model``."""
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


def check_choices(arguments: Sequence[str], conf: Path) -> None:
    """Raises `UnknownNameError` for an argument GROUP=NAME whose NAME is no choice of the group."""
    groups = {path.name: path for path in conf.iterdir() if path.is_dir()}
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
