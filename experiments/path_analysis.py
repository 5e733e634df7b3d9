"""Path analysis (paper, section 3): how pathways overlap, what they are made of, what they still answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import cpath
from cpath.analysis import compare_pathways, response_preservation
from cpath.plots import path_analysis_figures
from cpath.storage import read_tensors, write_tensors
from experiments.framework.job import Job, run_job
from experiments.framework.results import Key, Row, rows_of_means
from experiments.framework.scored import BatchScorer, batches, progress, scorers
from experiments.framework.subject import Images, load_data, load_images, methods_of, sparsities_of, trained_model

Measures = dict[str, Tensor]
"""Values (B,) under ``method|sparsity|metric``; the sparsity is empty where there is none."""

_FORMAT = 1


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
    by_method = scorers(job, model, images, methods)
    parts = job.folder / "parts"
    if cfg.redo:
        for old in parts.glob("*.safetensors"):
            old.unlink()
    found: dict[str, list[Tensor]] = {}
    # Every finished batch is on disk: a stopped job goes on behind it.
    for number, where in zip(
        progress(range(len(batches(images, cfg.experiment.batch))), "comparing pathways", "batch"),
        batches(images, cfg.experiment.batch),
        strict=True,
    ):
        file = parts / f"part-{number:05d}.safetensors"
        if not file.exists():
            measures = _measure(model, images, where, number, methods, by_method, sparsities, cfg)
            write_tensors(file, measures, {"kind": "measures", "format": _FORMAT})
        for name, values in read_tensors(file, "measures", _FORMAT)[0].items():
            found.setdefault(name, []).append(values)
    columns = {_key(name): torch.cat(values).tolist() for name, values in found.items()}
    _write_per_image(columns, images.ids, job.folder / "per_image.csv.gz")
    return rows_of_means(columns)


def _measure(
    model: nn.Module,
    images: Images,
    where: slice,
    number: int,
    methods: Mapping[str, cpath.Method],
    by_method: Mapping[str, BatchScorer],
    sparsities: list[float],
    cfg: DictConfig,
) -> Measures:
    batch = images.batch(where)
    with torch.no_grad(), cpath.observe(model, activations=cfg.activations) as seen:
        logits = model(batch)
    active = [(activation > 0).flatten(1).double() for activation in seen.activations.values()]
    measures: Measures = {"network||base_sparsity": 100 * (1 - torch.cat(active, 1).mean(1))}
    del active
    scores = {name: scorer(number) for name, scorer in by_method.items()}
    for name, score in scores.items():
        for site, residual in (score.residual or {}).items():
            measures[f"{name}||residual/{site}"] = residual
    for sparsity in sparsities:
        # What is not ranked has one pathway, whatever the sparsity; thresholds would leave nothing of it.
        pathways = {name: score.pathway(sparsity if methods[name].graded else 0) for name, score in scores.items()}
        for (name, measure), values in compare_pathways(
            pathways, seen.activations, by_site=cfg.experiment.by_site
        ).items():
            measures[f"{name}|{sparsity:g}|{measure}"] = values
        for name, pathway in pathways.items():
            change, kept = response_preservation(model, batch, pathway, logits)
            measures[f"{name}|{sparsity:g}|response_change"] = change
            measures[f"{name}|{sparsity:g}|class_kept"] = kept.double()
    return {name: values.cpu().double() for name, values in measures.items()}


def _key(name: str) -> Key:
    method, sparsity, metric = name.split("|")
    return (method, "sparsity", float(sparsity), metric) if sparsity else (method, "", "", metric)


def _write_per_image(columns: Mapping[Key, list[float]], ids: list[str], path: Path) -> None:
    """The measures of every image, one column a measure, for analyses of one's own."""
    names = ["|".join(str(part) for part in key if part != "") for key in columns]
    frame = pd.DataFrame(dict(zip(names, columns.values(), strict=True)), index=pd.Index(ids, name="image"))
    frame.to_csv(path)
