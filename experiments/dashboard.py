"""`python -m experiments.dashboard`: a wandb dashboard for the runs that `tracker=wandb` keeps."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpath.errors import InputError
from experiments.framework.command import exit_status
from experiments.framework.store import write_json


@dataclass(frozen=True)
class Curve:
    """A panel of lines: everything logged as ``metric/…``, over ``x``."""

    title: str
    metric: str
    x: str

    @property
    def pattern(self) -> str:
        """Regular expression of the keys it shows: those of all methods, also of ones yet to come."""
        return f"^{re.escape(self.metric)}/"


CURVES = {
    "Removing pixels": (
        Curve("ROAR: test accuracy after retraining", "roar_accuracy", "percent_removed"),
        Curve("KAR: test accuracy after retraining", "kar_accuracy", "percent_kept"),
        Curve("LeRF: change of the probability", "lerf_change", "percent_removed"),
        Curve("MoRF: change of the probability", "morf_change", "percent_removed"),
    ),
    "Pathways": (
        Curve("Overlap of the methods (Jaccard)", "jaccard", "sparsity"),
        Curve("Share of dead neurons", "dead_share", "sparsity"),
        Curve("Share of images that keep their class", "class_kept", "sparsity"),
        Curve("Change of the probability", "response_change", "sparsity"),
    ),
}
IMAGES = ("figures/maps", "figures/overlays", "figures/sparsities_1")
GROUPED_BY = "methods"

_NOT_SAVED = """\
not saved to wandb: no API key here, or WANDB_MODE=offline. After `wandb login`, or with WANDB_API_KEY, the same
command saves it, and `wandb sync outputs/wandb/wandb/offline-run-*` sends the runs."""


def workspace(entity: str, project: str, name: str) -> Any:
    """The dashboard as `wandb_workspaces` has it; nothing is sent."""
    try:
        from wandb_workspaces import expr
        from wandb_workspaces import workspaces as ws
        from wandb_workspaces.reports import v2 as panels
    except ImportError as error:
        raise InputError(
            "the dashboard needs wandb-workspaces: pip install 'critical-pathways[experiments]'."
        ) from error
    sections = [
        ws.Section(
            name=section,
            is_open=True,
            panels=[
                panels.LinePlot(title=curve.title, x=curve.x, title_x=curve.x, metric_regex=curve.pattern)
                for curve in curves
            ],
        )
        for section, curves in CURVES.items()
    ]
    maps = panels.MediaBrowser(title="Maps", media_keys=list(IMAGES), layout=panels.Layout(w=24, h=12))
    sections.append(ws.Section(name="Saliency maps", is_open=True, panels=[maps]))
    grouped = ws.RunsetSettings(groupby=[expr.Config(GROUPED_BY)])
    try:
        return ws.Workspace(entity=entity, project=project, name=name, sections=sections, runset_settings=grouped)
    except ValueError as error:
        raise InputError(f"wandb refuses the name '{name}': {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Writes the dashboard to a file, and saves it to wandb where there is a key; 0 if that went well."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.dashboard",
        description="Writes a wandb dashboard for the runs of tracker=wandb: ROAR, degradation, overlap and dead "
        "neurons as curves, saliency maps as images, runs grouped by method. With an API key (WANDB_API_KEY, or "
        "`wandb login`) it is also saved to wandb, as a new view of the project; without one nothing is sent.",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/wandb/dashboard.json"), help="file (%(default)s)")
    parser.add_argument("--entity", help="user or team at wandb (the key's own)")
    parser.add_argument("--project", default="cpath", help="that of tracker.project (%(default)s)")
    parser.add_argument("--name", default="cpath", help="of the dashboard (%(default)s)")
    asked = parser.parse_args(arguments)
    return exit_status(lambda: _write_and_save(asked.out, asked.entity, asked.project, asked.name))


def _write_and_save(out: Path, entity: str | None, project: str, name: str) -> int:
    for option, value in (("entity", entity), ("project", project)):
        if value is not None and not re.fullmatch(r"[^/\\#?%:\s]{1,128}", value):
            raise InputError(
                f"--{option}: no name of wandb: '{value}' (1 to 128 characters, none of / \\ # ? % :)."
            )
    if not name.strip():
        raise InputError("--name: the dashboard needs a name.")
    if out.is_dir():
        raise InputError(f"--out: {out} is a folder: name a file.")
    dashboard = workspace(entity or "", project, name)
    try:  # the spec as it would be sent
        write_json(out, {"entity": entity, "project": project, "name": name, "spec": dashboard._spec["spec"]})
    except OSError as error:
        raise InputError(f"--out: {out} cannot be written: {error.strerror}.") from error
    print(f"dashboard: {out}")
    import wandb

    try:
        if not wandb.login(prompt=False):  # looks for a key; without one no connection is made
            print(_NOT_SAVED)
            return 0
        dashboard.entity = entity or wandb.Api().default_entity
        dashboard.save()  # says where it is
    except Exception as error:  # of many kinds: the key, the network, the server
        print(f"error: not saved to wandb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
