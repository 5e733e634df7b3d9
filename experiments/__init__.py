"""The experiments of the paper, one file each; `python -m experiments --help` tells how to run them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.engine.job_listing import load as load

_HERE = Path(__file__).resolve().parent

CONF = next(folder for folder in (_HERE / "conf", _HERE.parent / "conf") if folder.is_dir())
"""Folder of the configuration files: in an installed package inside of it, in a checkout beside it."""


def __getattr__(name: str) -> Any:
    """Import `load` when it is first asked for, because it brings pandas."""
    if name == "load":
        from experiments.engine.job_listing import load

        return load
    raise AttributeError(f"module 'experiments' has no attribute '{name}'")
