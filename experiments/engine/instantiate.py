"""Objects that a configuration names under ``_target_``, made with errors that name the setting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.utils import instantiate

from cpath.errors import CpathError, InputError


def instantiated(
    node: Mapping[str, Any], kind: str, leave_out: tuple[str, ...] = (), label: str | None = None, **more: Any
) -> Any:
    """Call what a node of the configuration names.

    Args:
        node: arguments, and under ``_target_`` the name of what is called with them.
        kind: name of the node, for messages.
        leave_out: settings that are not passed on.
        label: name of the object, for messages; None for the setting ``name``.
        more: further arguments.

    Returns:
        The result of the call.

    Raises:
        InputError: if a setting is missing, or the call fails.
        CpathError: if the call raised it.
    """
    name = node.get("name", "?") if label is None else label
    missing = sorted(_missing(node))
    if missing:
        raise InputError(
            f"{kind} '{name}' needs {' '.join(f'{kind}.{one}=…' for one in missing)} on the command line."
        )
    settings = {str(key): value for key, value in node.items() if key not in leave_out} | more
    try:
        return instantiate(settings)
    except Exception as error:
        if (known := _innermost_cpath_error(error)) is not None:
            raise known from None
        problem = f"{kind} '{name}' cannot be made: {error.__cause__ or error}"
        if isinstance(error.__cause__, TypeError):
            called = ", ".join(f"{key}={value!r}" for key, value in settings.items() if key != "_target_")
            problem += f". It was called as {node['_target_']}({called})."
        raise InputError(problem) from error


def named(kind: str, name: str, node: Mapping[str, Any] | None) -> Any:
    """Call what a node that stands under a name in a group names.

    Args:
        kind: the group, such as ``method``.
        name: name in the group.
        node: arguments, and under ``_target_`` the name of what is called with them.

    Returns:
        The object.

    Raises:
        InputError: as `instantiated`.
    """
    return instantiated(node or {}, kind, label=name)


def checked_type(made: Any, cls: type[Any], what: str) -> Any:
    """Refuse an object of another class than it has to be.

    Args:
        made: the object.
        cls: class that it has to be of.
        what: name for the message.

    Returns:
        The object.

    Raises:
        InputError: if it is of another class.
    """
    if not isinstance(made, cls):
        raise InputError(f"{what} must be of a subclass of {cls.__name__}, not {type(made).__name__}.")
    return made


def _missing(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key, value in node.items():
        if value == "???":
            found.append(f"{prefix}{key}")
        elif isinstance(value, Mapping):
            found += _missing(value, f"{prefix}{key}.")
    return found


def _innermost_cpath_error(error: BaseException | None) -> CpathError | None:
    while error is not None:
        if isinstance(error, CpathError):
            return error
        error = error.__cause__ or error.__context__
    return None
