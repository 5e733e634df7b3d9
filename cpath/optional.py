"""Import of packages that only some functions need, with a clear error if they are absent."""

from __future__ import annotations

import importlib
from typing import Any

from cpath.errors import MissingPackageError


def optional(module: str, requirement: str, purpose: str) -> Any:
    """Import a module of an optional package.

    Args:
        module: Name of the module.
        requirement: Requirement for pip, such as "scipy>=1.13".
        purpose: The part of cpath that needs it, for the message.

    Returns:
        The module.

    Raises:
        MissingPackageError: If the package is not installed; the message says how to install it.

    Example:
        >>> from cpath.optional import optional
        >>> optional("json.decoder", "json", "this example").__name__
        'json.decoder'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # the package is there, but one that it depends on is not
        raise MissingPackageError(
            f"{purpose} needs {package}, which is not installed: pip install '{requirement}'."
        ) from error
