"""`python -m experiments.keep OUTPUTS FOLDER`: the small part of finished jobs that is worth committing.

`outputs/reference` was made with it: the tables, the configuration, the manifest and the figures as PNG. Left
behind are the figures as SVG (`experiments.redraw` makes them again), the parts from which a job resumes, and the
numbers of single images that no claim of the paper compares, which are most of ``per_image.csv.gz``.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from PIL import Image

from cpath.errors import InputError
from cpath.storage import replacing
from experiments.engine.command import command
from experiments.engine.job import CONFIG, RESULTS
from experiments.engine.job_listing import Run, find_runs
from experiments.engine.measuring import PER_IMAGE, read_per_image
from experiments.engine.metric_entry import base_name
from experiments.engine.provenance import MANIFEST
from experiments.engine.sweep import FINISHED
from experiments.paper.verdicts import COMPARED

_FIGURES = "figures"
_DIGITS = 7  # significant ones, as many as a float32 has
_COLOURS = 256
_SIDE = 4000
"""Pixels above which a side of a picture is shrunk to them."""


def keep_jobs(outputs: Path, folder: Path) -> list[Path]:
    """Copy the tables and figures of finished jobs into a folder, one folder for each experiment.

    Args:
        outputs: An outputs folder, or any folder inside it.
        folder: The folder to copy to. Results that it holds of the same experiment are replaced.

    Returns:
        Folders of the copies.

    Raises:
        InputError: If there is no finished job, or several of one experiment; if a copy would lie among the jobs,
            or replace a folder that is no such copy.
    """
    jobs = [run for run in find_runs(outputs) if run.status == FINISHED]
    if not jobs:
        raise InputError(f"there is no finished job below {outputs}.")
    several = [name for name, count in Counter(job.experiment for job in jobs).items() if count > 1]
    if several:
        raise InputError(
            f"there are several jobs of {', '.join(several)} below {outputs}: name the folder of one, "
            "`python -m experiments.runs` lists them."
        )
    for job in jobs:
        _check_target(folder / job.experiment, jobs)
    try:
        return [_replace(job, folder / job.experiment) for job in jobs]
    except OSError as error:
        raise InputError(f"cannot copy to {folder}: {error.strerror or error}.") from error


def _check_target(target: Path, jobs: Sequence[Run]) -> None:
    """Refuse to replace anything but an earlier copy."""
    here, sources = target.resolve(), [job.folder.resolve() for job in jobs]
    if any(here.is_relative_to(source) or source.is_relative_to(here) for source in sources):
        raise InputError(f"{target} is where the jobs themselves are: name another folder for their copies.")
    if target.exists() and not (target / RESULTS).is_file():
        raise InputError(f"{target} is no copy of a job, and is left alone: name another folder.")


def _replace(job: Run, target: Path) -> Path:
    """Make the copy beside its place, so that an earlier one is there until it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as partial:
        made = _keep(job, Path(partial) / target.name)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return target


def _keep(job: Run, target: Path) -> Path:
    (target / _FIGURES).mkdir(parents=True)
    for path in sorted(job.folder.iterdir()):
        if path.name in (RESULTS, CONFIG, MANIFEST) or (path.suffix == ".csv" and path.is_file()):
            shutil.copyfile(path, target / path.name)
    if (job.folder / PER_IMAGE).exists():
        frame = read_per_image(job.folder)
        frame = frame[frame.metric.map(base_name).isin(COMPARED)]
        with replacing(target / PER_IMAGE) as partial:
            # Without the time of writing: the same numbers give the same file.
            frame.to_csv(
                partial,
                index=False,
                float_format=f"%.{_DIGITS}g",
                compression={"method": "gzip", "compresslevel": 9, "mtime": 0},
            )
    for path in sorted((job.folder / _FIGURES).glob("*")):
        if path.suffix in (".png", ".json"):
            shutil.copyfile(path, target / _FIGURES / path.name)
        if path.suffix == ".png":
            _reduce(target / _FIGURES / path.name)
    return target


def _reduce(path: Path) -> None:
    """Write a picture with a palette of 256 colours and no side above `_SIDE`, if that makes the file smaller."""
    smaller = path.with_suffix(".tmp.png")
    with Image.open(path) as image:
        reduced = image.convert("RGB")
        reduced.thumbnail((_SIDE, _SIDE))
        reduced.quantize(_COLOURS).save(smaller, optimize=True)
    if smaller.stat().st_size < path.stat().st_size:
        smaller.replace(path)
    else:
        smaller.unlink()


def keep(
    outputs: Annotated[Path, typer.Argument(help="An outputs folder, a job's folder, or any in between.")],
    folder: Annotated[Path, typer.Argument(help="The folder to copy to, such as outputs/reference/mine.")],
) -> None:
    """Copy the tables and figures of finished jobs into a folder, small enough to be committed."""
    for target in keep_jobs(outputs, folder):
        print(f"{target}: {sum(path.stat().st_size for path in target.rglob('*') if path.is_file()) / 1e6:.1f} MB")


main = command(keep)

if __name__ == "__main__":
    sys.exit(main(None))
