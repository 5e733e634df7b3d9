"""Everything private that the experiments use of wandb's packages: names that may change without notice.

No other file of `experiments` touches one. wandb is optional and takes seconds to import: the names are looked up
where a dashboard is asked for, before any of it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from cpath.errors import InputError

KNOWN_TO_WORK = "0.4.13"
"""Version of wandb-workspaces that has all names below, and that the dashboard's tests were seen to pass with."""


def check_workspaces(workspace: type[Any]) -> None:
    """Refuse a version of wandb-workspaces that does not have the private names.

    Args:
        workspace: its class ``Workspace``.

    Raises:
        InputError: if a name is gone; it tells which version is known to work.
    """
    if not hasattr(workspace, "_spec"):
        raise _unsupported("Workspace._spec")


def view_of(workspace: Any) -> Mapping[str, Any]:
    """The view as it would be sent to wandb.

    Nothing public gives it without sending. Without it the dashboard could not be kept in a file, nor looked at
    where there is no key.

    Args:
        workspace: an object of the class ``Workspace``.

    Returns:
        Plain containers.

    Raises:
        InputError: if the view is kept elsewhere in this version; it tells which version is known to work.
    """
    found = workspace._spec
    if not isinstance(found, Mapping) or not isinstance(found.get("spec"), Mapping):
        raise _unsupported("Workspace._spec['spec']")
    view: Mapping[str, Any] = found["spec"]
    return view


def _unsupported(name: str) -> InputError:
    installed = version("wandb-workspaces")
    return InputError(
        f"the dashboard cannot be written with wandb-workspaces {installed}, which has no {name} as older versions "
        f"have. Version {KNOWN_TO_WORK} is known to work: "
        f"pip install 'wandb-workspaces=={KNOWN_TO_WORK}', or use a newer cpath."
    )
