"""Node rules of `neuron_intgrad` compared: how complete they are, and whether they find the exact pathway."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor

import cpath
from cpath.methods import NeuronIntGrad
from experiments.figures.quadrature import quadrature_figures
from experiments.framework.job import Job, run_job
from experiments.framework.parts import measure_in_parts
from experiments.framework.results import Key, Row, rows_of_means
from experiments.framework.subject import load_data, load_images, origin_of, sparsities_of, trained_model


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, quadrature_figures)


def _compute(job: Job) -> list[Row]:
    cfg, settings = job.cfg, job.cfg.experiment
    sparsities = sparsities_of(cfg)
    rules = [NeuronIntGrad(rule=rule, nodes=nodes) for rule, nodes in settings.rules]
    reference = NeuronIntGrad(rule=settings.reference[0], nodes=settings.reference[1])
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, job.store)
    job.notes["images"] = images.ids
    origin = origin_of(cfg, model, images, (*rules, reference))

    def measure(where: slice, number: int) -> Mapping[Key, Tensor]:
        batch = images.batch(where)
        exact = cpath.score(model, batch, reference, activations=cfg.activations)
        measures: dict[Key, Tensor] = {}
        for method in (*rules, reference):
            same = method == reference
            scores = exact if same else cpath.score(model, batch, method, activations=cfg.activations)
            assert scores.residual is not None
            name = f"{method.rule}, {method.nodes} nodes"
            # The mean over sites of each image; a site that the response does not depend on has none.
            residual = torch.stack(list(scores.residual.values()), 1).double().nanmean(1)
            measures[name, "", "", "residual"] = residual
            for sparsity in sparsities:
                overlap = scores.pathway(sparsity).jaccard(exact.pathway(sparsity))
                measures[name, "sparsity", sparsity, "jaccard_with_reference"] = overlap
        return measures

    return rows_of_means(measure_in_parts(job, images, origin, measure, "comparing node rules"))
