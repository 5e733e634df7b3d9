"""Sanity checks (paper, section 4): whether maps change when the weights are drawn anew."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import cpath
from cpath.attribution import Attribution, single_channel
from cpath.errors import InputError, unknown_name
from cpath.evaluation import INITS, MEASURES, find_blocks, randomise, sanity_check
from cpath.evaluation.randomization import Blocks
from cpath.storage import kept_tensors, write_tensors
from cpath.viz import Drawing
from experiments.figures.sanity_checks import sanity_check_figures, sanity_strip
from experiments.framework.job import Job, run_job
from experiments.framework.parts import measure_in_parts
from experiments.framework.pictures import pixels_of, predictions
from experiments.framework.published import MARK, published_rows
from experiments.framework.results import Key, Row, rows_of_means
from experiments.framework.subject import (
    Images,
    Origin,
    attributions_of,
    load_data,
    load_images,
    origin_of,
    trained_model,
)

_FORMAT = 1
_X = "randomized_down_to"
_STD = 0.1  # of the published weights


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, sanity_check_figures)


def _compute(job: Job) -> list[Row]:
    cfg = job.cfg
    _check(cfg)
    attributions = attributions_of(cfg)
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, job.store)
    job.notes["images"] = images.ids
    origin = origin_of(cfg, model, images, attributions.values())
    blocks = _blocks(cfg, model, images)

    def measure(where: slice, number: int) -> Mapping[Key, Tensor]:
        return _measure(model, images.batch(where), attributions, blocks, cfg)

    columns = measure_in_parts(job, images, origin, measure, "randomising")
    job.notes["blocks"] = {name: list(members) for name, members in dict(blocks).items()}
    job.pictures += _strips(job, model, images, origin, attributions, blocks)
    return [*_rows(columns, cfg.experiment.draws), *_published(cfg, list(blocks), list(attributions))]


def _check(cfg: DictConfig) -> None:
    settings = cfg.experiment
    if settings.init not in INITS:
        raise unknown_name("init", settings.init, INITS)
    if settings.draws < 1 or settings.std <= 0:
        raise InputError("experiment.draws must be at least 1 and experiment.std above 0.")
    for measure in settings.measures:
        if measure not in MEASURES:
            raise unknown_name("measure", measure, MEASURES)


def _blocks(cfg: DictConfig, model: nn.Module, images: Images) -> dict[str, tuple[str, ...]]:
    """Modules or parameters by block, found or as the configuration names them."""
    asked = cfg.experiment.blocks
    if asked is None:
        return find_blocks(model, images.batch(slice(0, 1)))
    if isinstance(asked, DictConfig):
        return {str(name): tuple(members) for name, members in asked.items()}
    return {str(name): (str(name),) for name in asked}


def _measure(
    model: nn.Module, batch: Tensor, attributions: Mapping[str, Attribution], blocks: Blocks, cfg: DictConfig
) -> dict[Key, Tensor]:
    """Similarity of every image's maps, draw by draw: the metric is ``measure/draw``."""
    settings = cfg.experiment
    found = sanity_check(
        model,
        batch,
        attributions,
        blocks=blocks,
        draws=settings.draws,
        init=settings.init,
        std=settings.std,
        repredict=settings.repredict,
        measures=list(settings.measures),
        activations=cfg.activations,
        max_batch=settings.max_batch,
        seed=cfg.seed,
    )
    measures: dict[Key, Tensor] = {}
    for name, similarity in found.similarity.items():
        for measure, values in similarity.items():
            for draw, of_draw in enumerate(values):
                random = found.baseline[name][measure][draw]
                measures[name, "", "", f"{measure}_random_map/{draw}"] = torch.from_numpy(random)
                for block, of_block in zip(found.blocks, of_draw, strict=True):
                    measures[name, _X, block, f"{measure}/{draw}"] = torch.from_numpy(of_block)
    return measures


def _rows(columns: Mapping[Key, list[float]], draws: int) -> list[Row]:
    """Means over draws, then over images with intervals; and the spread of the draws' means over images."""
    by_draw: dict[Key, list[list[float]]] = {}
    for (method, x_name, x, metric), values in columns.items():
        by_draw.setdefault((method, x_name, x, metric.partition("/")[0]), []).append(values)
    # A draw that leaves a map constant has no value: the image's mean is then over the others.
    stacked = {key: np.ma.masked_invalid(np.array(values)) for key, values in by_draw.items()}
    rows = rows_of_means({key: values.mean(0).filled(np.nan).tolist() for key, values in stacked.items()})
    if draws > 1:
        rows += [
            Row(method, f"{metric}/sd_of_draws", float(np.ma.filled(values.mean(1).std(ddof=1), np.nan)), x_name, x)
            for (method, x_name, x, metric), values in stacked.items()
            if x_name
        ]
    return rows


def _published(cfg: DictConfig, blocks: list[str], methods: list[str]) -> list[Row]:
    """The paper's curves at our blocks, which are in the same order; none where what was done is not the same."""
    settings = cfg.experiment
    # The paper names no blocks: only those that are found, from the logits to the input, are known to be its own.
    as_published = settings.blocks is None and settings.init == "normal" and settings.std == _STD
    if not as_published or settings.repredict:
        return []
    rows = published_rows("sanity_checks", cfg, {measure: measure for measure in settings.measures}, methods)
    theirs = [x for x in dict.fromkeys(row.x for row in rows) if x != "original"]
    if len(theirs) != len(blocks):
        return []
    ours = {"original": "original"} | dict(zip(map(str, theirs), blocks, strict=True))
    assert all(row.metric.endswith(MARK) for row in rows)
    return [Row(row.method, row.metric, row.value, row.x_name, ours[str(row.x)], n=0) for row in rows]


def _strips(
    job: Job,
    model: nn.Module,
    images: Images,
    origin: Origin,
    attributions: Mapping[str, Attribution],
    blocks: Mapping[str, tuple[str, ...]],
) -> list[Drawing]:
    """The maps of the first images from block to block of the first draw, methods below each other."""
    count = min(job.cfg.experiment.strip.images, len(images))
    if not count:
        return []
    file, made_of = job.folder / "maps" / "strip.safetensors", origin.of(slice(0, count))
    if job.cfg.redo:
        file.unlink(missing_ok=True)

    def make() -> None:
        shown = _spread(list(blocks), job.cfg.experiment.strip.blocks)
        maps = _strip_maps(model, images.batch(slice(0, count)), attributions, blocks, shown, job.cfg)
        columns = ["original", *shown]
        write_tensors(file, maps, {"kind": "maps", "format": _FORMAT, **made_of, "columns": columns})

    maps, metadata = kept_tensors(file, "maps", _FORMAT, make, made_of)
    pixels = pixels_of(images, count)
    titles = predictions(model, images, count).titles
    return [
        sanity_strip(
            f"strip_{number + 1}",
            pixels[number],
            titles[number],
            {name: values[:, number] for name, values in maps.items()},
            metadata["columns"],
        )
        for number in range(count)
    ]


def _spread(names: list[str], most: int) -> list[str]:
    """At most ``most`` of ``names``, evenly spread, the first and last among them."""
    if len(names) <= most:
        return names
    places = np.linspace(0, len(names) - 1, max(1, most)).round().astype(int)
    return [names[place] for place in places]


def _strip_maps(
    model: nn.Module,
    batch: Tensor,
    attributions: Mapping[str, Attribution],
    blocks: Mapping[str, tuple[str, ...]],
    shown: list[str],
    cfg: DictConfig,
) -> dict[str, Tensor]:
    """(1 + len(shown), B, H, W) single-channel maps by method: of the trained network, then of randomised ones."""
    settings = cfg.experiment
    with torch.no_grad():
        target = model(batch).argmax(1)

    def maps(network: nn.Module, explained: Tensor | None) -> dict[str, Tensor]:
        return {
            name: single_channel(
                cpath.attribute(
                    network,
                    batch,
                    attribution,
                    explained,
                    activations=cfg.activations,
                    max_batch=settings.max_batch,
                )
            ).squeeze(1)
            for name, attribution in attributions.items()
        }

    steps = [maps(model, target)]
    for block, network in randomise(model, blocks, settings.init, settings.std, seed=cfg.seed):
        if block in shown:
            steps.append(maps(network, None if settings.repredict else target))
    return {name: torch.stack([step[name] for step in steps]) for name in attributions}
