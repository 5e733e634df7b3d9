"""Path analysis (paper, section 3): how pathways overlap, what they are made of, what they still answer."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import cpath
from cpath.analysis import compare_pathways, response_preservation
from experiments.figures.path_analysis import path_analysis_figures
from experiments.framework.job import Job, run_job
from experiments.framework.parts import measure_in_parts
from experiments.framework.results import Key, Row, rows_of_means
from experiments.framework.scored import scorers
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
    return run_job(cfg, _compute, path_analysis_figures)


def _compute(job: Job) -> list[Row]:
    cfg = job.cfg
    sparsities, methods = sparsities_of(cfg), methods_of(cfg)
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, job.store)
    job.notes["images"] = images.ids
    origin = origin_of(cfg, model, images, methods.values())
    found = searches(methods, sparsities)
    by_label = scorers(job, model, images, {search.label: search.method for search in found})

    def measure(where: slice, number: int) -> Mapping[Key, Tensor]:
        # Scores take four times the memory of masks: only one method's are there at a time.
        pathways: dict[float, dict[str, cpath.Pathway]] = {sparsity: {} for sparsity in sparsities}
        residuals = {}
        for search in found:
            scores = by_label[search.label](number)
            residuals[search.label] = scores.residual or {}
            for sparsity, pathway in search.pathways(scores):
                pathways[sparsity][search.name] = pathway
        measures = _measure(model, images.batch(where), pathways, cfg)
        for name, by_site in residuals.items():
            for site, residual in by_site.items():
                measures[name, "", "", f"residual/{site}"] = residual
        return measures

    return rows_of_means(measure_in_parts(job, images, origin, measure, "comparing pathways"))


def _measure(
    model: nn.Module, batch: Tensor, pathways: Mapping[float, Mapping[str, cpath.Pathway]], cfg: DictConfig
) -> dict[Key, Tensor]:
    with torch.no_grad(), cpath.observe(model, activations=cfg.activations) as seen:
        logits = model(batch.clone())  # a model may change its input in place
    dead = sum((activation == 0).flatten(1).sum(1) for activation in seen.activations.values())
    neurons = sum(activation[0].numel() for activation in seen.activations.values())
    measures: dict[Key, Tensor] = {("network", "", "", "base_sparsity"): torch.as_tensor(100 * dead / neurons)}
    for sparsity, found in pathways.items():
        compared = compare_pathways(found, seen.activations, by_site=cfg.experiment.by_site)
        for (name, measure), values in compared.items():
            measures[name, "sparsity", sparsity, measure] = values
        for name, pathway in found.items():
            change, kept = response_preservation(model, batch, pathway, logits)
            measures[name, "sparsity", sparsity, "response_change"] = change
            measures[name, "sparsity", sparsity, "class_kept"] = kept
    return measures
