"""Packages that only some functions need: imported where they are used, with a clear error when absent."""

from __future__ import annotations

import importlib
from typing import Any

from cpath.errors import MissingPackageError


def optional(module: str, requirement: str, purpose: str) -> Any:
    """The imported ``module``; raises `MissingPackageError`, which says how to install ``requirement``."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is there, but something that it needs itself is not
        raise MissingPackageError(
            f"{purpose} needs {package}, which is not installed: pip install '{requirement}'."
        ) from error
