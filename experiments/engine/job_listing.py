"""All jobs below a folder: their state, the settings that tell them apart, and their results as one frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from cpath.errors import InputError
from experiments.engine.job import CONFIG, RESULTS
from experiments.engine.provenance import MANIFEST, read_manifest
from experiments.engine.sweep import FINISHED, status_of
from experiments.engine.table import COLUMNS, read_table
from experiments.engine.unit import in_words

KEPT = "kept"
"""State of a copy below a folder `REFERENCE`, which `experiments.keep` made of a finished job."""
REFERENCE = "reference"
"""Name of the folders of such copies; a checkout has one, ``outputs/reference``."""

# Beside the point, or there a second time, as settings of the experiment.
_LEFT_OUT = ("outputs", "redo", "tracker", "paper", "imports", "sparsity", "percent", "keep")


@dataclass(frozen=True)
class Run:
    """A job that was run, finished or not."""

    folder: Path
    """Folder of the job."""
    status: str
    """State of the job, as `experiments.engine.sweep.status_of` returns it, or `KEPT`."""
    manifest: Mapping[str, Any]
    """Content of the job's ``manifest.json``."""
    settings: Mapping[str, Any]
    """Configuration by dotted name, such as ``experiment.images``."""

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return str(self.settings.get("experiment.name") or self.folder.parent.name)


def find_runs(folder: Path) -> list[Run]:
    """Find all jobs below a folder.

    Copies below a folder `REFERENCE`, which a checkout comes with, are no jobs of the user's: they are found where
    ``folder`` is that folder or lies in it.

    Args:
        folder: an outputs folder, or any folder below it.

    Returns:
        The jobs, sorted by their folders.

    Raises:
        InputError: if there is none.

    Example:
        >>> from pathlib import Path
        >>> from experiments.engine.job_listing import find_runs
        >>> [run.folder.name for run in find_runs(Path("outputs"))]    # doctest: +SKIP
    """
    every = [file.parent for file in sorted(folder.rglob(MANIFEST)) if (file.parent / CONFIG).exists()]
    found = [job for job in every if REFERENCE not in job.relative_to(folder).parts]
    if not found:
        copies = f" (results that were kept are listed by {folder / REFERENCE})" if every else ""
        raise InputError(f"there is no job below {folder}: name the outputs folder, or one inside it{copies}.")
    return [Run(job, _status(job), read_manifest(job), _settings(job)) for job in found]


def telling_apart(runs: Sequence[Run]) -> dict[Path, dict[str, Any]]:
    """Find the settings in which jobs of the same experiment differ.

    Args:
        runs: the jobs.

    Returns:
        For each job by its folder: those of its settings that another job of its experiment has otherwise.
    """
    differing: dict[str, list[str]] = {}
    for experiment in dict.fromkeys(run.experiment for run in runs):
        settings = [run.settings for run in runs if run.experiment == experiment]
        names = dict.fromkeys(name for one in settings for name in one)
        differing[experiment] = [
            name for name in names if any(one.get(name) != settings[0].get(name) for one in settings[1:])
        ]
    return {
        run.folder: {name: run.settings[name] for name in differing[run.experiment] if name in run.settings}
        for run in runs
    }


def load(folder: str | Path = "outputs", *, experiment: str | Iterable[str] | None = None) -> pd.DataFrame:
    """Load the results of all finished jobs below a folder as one frame.

    Args:
        folder: an outputs folder, a job, or any folder between.
        experiment: name or names of the experiments to load; None for all.

    Returns:
        The tidy tables one below the other, with the column ``folder`` and one for each setting in which jobs of
        the same experiment differ, such as ``experiment.images``.

    Raises:
        InputError: if there is no finished job of these experiments.

    Example:
        >>> import experiments
        >>> table = experiments.load("outputs", experiment="path_analysis")    # doctest: +SKIP
        >>> table[table.metric == "class_kept"].pivot_table("value", "method", "x")    # doctest: +SKIP
    """
    wanted = [experiment] if isinstance(experiment, str) else None if experiment is None else list(experiment)
    runs = [run for run in find_runs(Path(folder)) if wanted is None or run.experiment in wanted]
    finished = [run for run in runs if run.status in (FINISHED, KEPT)]
    if not finished:
        known = ", ".join(sorted({run.experiment for run in find_runs(Path(folder))}))
        raise InputError(
            f"no finished job of {wanted or 'any experiment'} below {folder}; there are jobs of {known}."
        )
    apart = telling_apart(finished)
    tables = []
    for run in finished:
        table = read_table(run.folder / RESULTS).assign(folder=str(run.folder))
        for name, value in apart[run.folder].items():
            if name not in COLUMNS:  # the seed, for one, is a column already
                table[name] = [value] * len(table)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _status(folder: Path) -> str:
    finished = read_manifest(folder).get("status") == FINISHED
    return KEPT if finished and REFERENCE in folder.resolve().parts else status_of(folder)


def _settings(folder: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    except (OSError, YAMLError, OmegaConfBaseException):  # half-written by a full disk, or edited
        return {}
    settings = {name: value for name, value in _mapping(content).items() if name not in _LEFT_OUT}
    if isinstance(settings.get("unit"), Mapping):  # one setting, whichever form its value has
        settings["unit"] = in_words(settings["unit"])
    found = dict(_dotted(settings))
    # The seeds of methods and attributions are the job's, unless they are set to something else.
    return {
        name: value for name, value in found.items() if not (name.endswith(".seed") and value == found.get("seed"))
    }


def _mapping(content: Any) -> Mapping[str, Any]:
    return content if isinstance(content, Mapping) else {}


def _dotted(node: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _dotted(value, f"{prefix}{name}.")
        elif isinstance(value, Mapping):
            yield f"{prefix}{name}", ""  # a method without settings
        else:
            yield f"{prefix}{name}", tuple(value) if isinstance(value, list) else value
