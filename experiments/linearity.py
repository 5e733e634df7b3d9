"""Local linearity: how far an image can move before the restricted network stops being affine, by sparsity."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import pandas as pd
from omegaconf import DictConfig
from torch import Tensor

import cpath
from cpath.analysis import affine_radius
from experiments.figures.linearity import linearity_figures
from experiments.framework.job import Job, run_job
from experiments.framework.parts import measure_in_parts
from experiments.framework.results import Key, Row, rows_of_means
from experiments.framework.searches import searches
from experiments.framework.subject import (
    load_data,
    load_images,
    methods_of,
    origin_of,
    sparsities_of,
    trained_model,
)


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, linearity_figures)


def _compute(job: Job) -> list[Row]:
    cfg, settings = job.cfg, job.cfg.experiment
    sparsities, methods = sparsities_of(cfg), methods_of(cfg)
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, job.store)
    job.notes["images"] = images.ids
    origin = origin_of(cfg, model, images, methods.values())
    # The nearest pre-activation is a small difference of larger numbers.
    precise = copy.deepcopy(model).double()

    def measure(where: slice, number: int) -> Mapping[Key, Tensor]:
        batch = images.batch(where)
        measures: dict[Key, Tensor] = {}
        for search in searches(methods, sparsities):
            scores = cpath.score(model, batch, search.method, activations=cfg.activations)
            for sparsity, pathway in search.pathways(scores):
                radius = affine_radius(precise, batch.double(), pathway, neurons=settings.neurons)
                # A ball without an end is counted, and left out of the mean.
                unbounded = radius.isinf()
                at = search.name, "sparsity", sparsity
                measures[*at, "affine_radius"] = radius.masked_fill(unbounded, float("nan"))
                measures[*at, "affine_everywhere"] = unbounded.double()
        return measures

    return rows_of_means(measure_in_parts(job, images, origin, measure, "measuring linear regions"))
