"""Explorer: one page in which the pathways of some images are picked and seen."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from cpath.storage import read_tensors, replacing, write_tensors
from cpath.units import UNITS
from cpath.viz import Drawing
from cpath.viz.explorer import Answers, Plan, Shown, examine, write_page
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch, Images
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage
from experiments.engine.metric_entry import Metric
from experiments.engine.table import Measure, Row
from experiments.engine.unit import units_of
from experiments.figures.faithfulness import faithfulness_figures
from experiments.metrics import pick

PAGE = "explorer.html"
"""Name of the page in the folder of a job."""

_LOG = logging.getLogger(__name__)
_FILE, _KIND, _FORMAT = "answers.safetensors", "explorer", 1


class Explorer(Experiment):
    """Shows the pathways of some images in a page, with the numbers behind them in the table."""

    title: ClassVar[str] = "Explorer: pathways to pick and see"
    metrics: ClassVar[tuple[Metric, ...]] = pick("sufficiency", "necessity", "units_kept", "class_kept")

    explains_with = ("method",)
    asks = ("unit", "baseline", "target")

    sparsity: Annotated[fields.Sparsities, AfterValidator(fields.ascending), Field(max_length=16)]
    more_units: list[Annotated[str, fields.one_of(UNITS)]]
    images: fields.Images
    batch: fields.Batch
    max_batch: fields.MaxBatch
    channels: fields.Count

    def run(self, job: Job) -> Iterable[Row]:
        """Answer every question about the images, and write the page."""
        images = job.sample(self.images)
        plan = self._plan(job, images, next(images.batches(1)))
        parts: list[Answers] = []
        pixels: list[np.ndarray] = []
        found = PerImage()
        for batch in job.batches(images, self.batch, "exploring"):
            with job.part(batch, "answers", *job.methods.values()) as part:
                if part.missing:
                    asked = job.question.arguments(batch)
                    answers = examine(job.model, batch.images, plan, asked["target"], asked.get("baseline"))
                    _write(part.folder, answers)
            parts.append(_read(part.folder))
            pixels.append(batch.pixels)
            found.add(batch, {measure: values.tolist() for measure, values in _measures(plan, parts[-1]).items()})
        found.write(job.folder)
        answers = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        page = write_page(plan, answers, _shown(job, images, np.concatenate(pixels)))
        with replacing(job.folder / PAGE) as partial:
            partial.write_text(page, encoding="utf-8")
        _LOG.info("explorer: %s (%.1f MB)", job.folder / PAGE, len(page) / 1e6)
        return found.means()

    def _further(self, job: Job) -> list[str]:
        own = units_of(job.config.unit).kind
        return [kind for kind in dict.fromkeys(self.more_units) if kind != own]

    def _plan(self, job: Job, images: Images, first: Batch) -> Plan:
        return Plan.of(
            job.model,
            first.images,
            job.methods,
            job.question.arguments(first)["target"],
            count=len(images),
            sparsity=self.sparsity,
            sites=job.config.sites,
            unit=[units_of(job.config.unit), *self._further(job)],
            channels=self.channels,
            max_batch=self.max_batch,
        )

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw sufficiency and necessity of the methods over the share of units."""
        return faithfulness_figures(table)


def _shown(job: Job, images: Images, pixels: np.ndarray) -> Shown:
    labels = job.data.test.labels[images.indices].tolist()
    title = f"Critical pathways of {job.config.model_name} on {job.config.dataset_name}"
    return Shown(pixels, [Path(name).name for name in images.ids], job.data.classes, labels, title)


def _measures(plan: Plan, answers: Answers) -> dict[Measure, np.ndarray]:
    """Numbers (B,) of the images, by method and share of units; other units than the first behind a slash."""
    found: dict[Measure, np.ndarray] = {}
    runs = [(unit, method) for unit in plan.units for method in unit.methods]
    for unit, method in runs:
        prefix = f"{unit.kind}/{method}/"
        run = {name.removeprefix(prefix): values for name, values in answers.items() if name.startswith(prefix)}
        columns = {
            "sufficiency": run["sufficiency"],
            "necessity": run["necessity"],
            "units_kept": 100 * run["kept"].sum(2) / unit.layout.units,
        }
        if "top" in run:
            columns["class_kept"] = 100.0 * (run["top"][:, :, 0] == answers["network/predicted"][:, None])
        behind = "" if unit is plan.units[0] else f"/{unit.kind}"
        for stop, sparsity in enumerate(plan.sparsity):
            for name, values in columns.items():
                found[Measure(method, f"{name}{behind}", "keep", 100 - sparsity)] = values[:, stop].astype(float)
    return found


def _write(folder: Path, answers: Answers) -> None:
    tensors: Mapping[str, Tensor] = {name: torch.from_numpy(values) for name, values in answers.items()}
    write_tensors(folder / _FILE, tensors, {"kind": _KIND, "format": _FORMAT})


def _read(folder: Path) -> Answers:
    return {name: tensor.numpy() for name, tensor in read_tensors(folder / _FILE, _KIND, _FORMAT)[0].items()}
