"""`python -m experiments.dashboard`: a wandb dashboard for the runs that `tracker=wandb` keeps."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from cpath.errors import InputError
from experiments.engine._wandb import check_workspaces, view_of
from experiments.engine.cache import write_json
from experiments.engine.command import command
from experiments.engine.metric_entry import told_apart
from experiments.metrics import METRICS


@dataclass(frozen=True)
class Curve:
    """A panel of lines: everything logged as ``metric/…``, over ``x``."""

    metric: str
    """Name of the metric, with which the keys of its lines begin."""
    x: str
    """Key of the horizontal axis."""
    log_x: bool = False
    """That axis is logarithmic."""

    @property
    def title(self) -> str:
        """Heading: label of the metric, with its unit."""
        return _titles()[self.metric]

    @property
    def pattern(self) -> str:
        """Regular expression of the keys that it shows: those of all methods, also of ones yet to come."""
        return f"^{re.escape(self.metric)}/"


CURVES = {
    "Removing pixels": (
        Curve("roar_accuracy", "percent_removed"),
        Curve("kar_accuracy", "percent_kept"),
        Curve("lerf_change", "percent_removed"),
        Curve("morf_change", "percent_removed"),
    ),
    "Pathways": (
        Curve("jaccard", "sparsity"),
        Curve("dead_share", "sparsity"),
        Curve("class_kept", "sparsity"),
        Curve("response_change", "sparsity"),
    ),
    "Detection": (
        Curve("auroc", "sparsity"),
        Curve("fpr95", "sparsity"),
    ),
    "Faithfulness": (
        Curve("sufficiency", "keep", log_x=True),
        Curve("necessity", "keep", log_x=True),
    ),
}


def _titles() -> dict[str, str]:
    return told_apart((curve.metric for curves in CURVES.values() for curve in curves), METRICS)


IMAGES = {
    "Faithfulness": ("figures/faithfulness_numbers", "figures/faithfulness_controls"),
    "Maps": ("figures/maps", "figures/overlays", "figures/sparsities_1"),
}
"""Keys of pictures by the title of their panel."""
GROUPED_BY = "methods"

_NOT_SAVED = """\
error: not saved to wandb: no API key here, or WANDB_MODE=offline. After `wandb login`, or with WANDB_API_KEY, the
same command saves it, and `wandb sync outputs/wandb/wandb/offline-run-*` sends the runs."""


def workspace(entity: str, project: str, name: str) -> Any:
    """Make the dashboard; nothing is sent.

    Args:
        entity: user or team at wandb.
        project: of the runs.
        name: of the dashboard.

    Returns:
        A workspace of `wandb_workspaces`.

    Raises:
        InputError: if the package is missing or not one that is known to work, or wandb refuses the name.
    """
    try:
        from wandb_workspaces import expr
        from wandb_workspaces import workspaces as ws
        from wandb_workspaces.reports import v2 as panels
    except ImportError as error:
        raise InputError(
            "the dashboard needs wandb-workspaces: pip install 'critical-pathways[experiments]'."
        ) from error
    check_workspaces(ws.Workspace)
    sections = [
        ws.Section(
            name=section,
            is_open=True,
            panels=[
                panels.LinePlot(
                    title=curve.title, x=curve.x, title_x=curve.x, metric_regex=curve.pattern, log_x=curve.log_x
                )
                for curve in curves
            ],
        )
        for section, curves in CURVES.items()
    ]
    browsers = [
        panels.MediaBrowser(title=title, media_keys=list(keys), layout=panels.Layout(w=24, h=12))
        for title, keys in IMAGES.items()
    ]
    sections.append(ws.Section(name="Pictures", is_open=True, panels=browsers))
    grouped = ws.RunsetSettings(groupby=[expr.Config(GROUPED_BY)])
    try:
        return ws.Workspace(entity=entity, project=project, name=name, sections=sections, runset_settings=grouped)
    except ValueError as error:
        raise InputError(f"wandb refuses the name '{name}': {error}") from error


def dashboard(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("outputs/wandb/dashboard.json"),
    entity: Annotated[
        str | None, typer.Option(help="User or team at wandb; by default the one of the key.")
    ] = None,
    project: Annotated[str, typer.Option(help="Project of the runs, as in tracker.project.")] = "cpath",
    name: Annotated[str, typer.Option(help="Name of the dashboard.")] = "cpath",
    save: Annotated[
        bool, typer.Option("--save", help="Save it to wandb too, as a new view of the project.")
    ] = False,
) -> int:
    """Write a wandb dashboard for the runs of tracker=wandb.

    It shows ROAR, degradation, overlap, dead neurons, faithfulness and detection as curves, saliency maps as
    images, and groups runs by method. Nothing is sent unless --save asks for it, which needs an API key
    (WANDB_API_KEY, or `wandb login`).
    """
    _check_names(entity, project, name)
    if out.is_dir():
        raise InputError(f"--out: {out} is a folder: name a file.")
    made = workspace(entity or "", project, name)
    view = view_of(made)
    try:
        write_json(out, {"entity": entity, "project": project, "name": name, "spec": view})
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written: {error.strerror}.") from error
    print(f"dashboard: {out}")
    return _save(made, entity) if save else 0


def _check_names(entity: str | None, project: str, name: str) -> None:
    for option, value in (("entity", entity), ("project", project)):
        if value is not None and not re.fullmatch(r"[^/\\#?%:\s]{1,128}", value):
            raise InputError(
                f"--{option} must have 1 to 128 characters, no space among them and none of / \\ # ? % :; "
                f"got '{value}'."
            )
    if not name.strip():
        raise InputError("--name: the dashboard needs a name.")


_PATIENCE = 10
"""Seconds within which the server of wandb has to answer."""


def _save(made: Any, entity: str | None) -> int:
    """Save the dashboard to wandb where there is a key; the exit status says how that went."""
    import requests
    import wandb

    address = wandb.setup().settings.base_url
    try:
        if os.environ.get("WANDB_API_KEY") or requests.utils.get_netrc_auth(address):
            # wandb's own service tries again and again, and may not let the command end.
            requests.head(address, timeout=_PATIENCE)
        if not wandb.login(prompt=False):  # looks for a key; without one no connection is made
            print(_NOT_SAVED, file=sys.stderr)
            return 1
        made.entity = entity or wandb.Api().default_entity
        made.save()  # prints its address
    except Exception as error:  # of many kinds: the key, the network, the server
        print(f"error: not saved to wandb: {error}", file=sys.stderr)
        return 1
    return 0


main = command(dashboard)

if __name__ == "__main__":
    sys.exit(main(None))
