"""Input degradation (paper, section 4): remove the pixels that an attribution ranks last, or first, and look."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

import cpath
from cpath.attribution import RANK_BY, Attribution
from cpath.errors import InputError, unknown_name
from cpath.evaluation import ORDERS, NoisyLinear, area_under_curve, degrade
from cpath.evaluation.removal import Fill
from experiments.figures.degradation import degradation_figures
from experiments.framework.clock import Clock
from experiments.framework.criteria import agreement_rows
from experiments.framework.job import Job, run_job
from experiments.framework.parts import measure_in_parts
from experiments.framework.published import published_rows
from experiments.framework.results import Key, Row, rows_of_means
from experiments.framework.subject import attributions_of, load_data, load_images, origin_of, trained_model

_NAMES = {"least": "lerf", "most": "morf"}
_FIRST = 10.0  # per cent: the range of the paper's figure


@dataclass(frozen=True)
class _Fill:
    """How removed pixels are filled, for how many images, at which shares."""

    name: str
    fill: Fill
    percents: tuple[float, ...]
    images: int | None

    def metric(self, order: str, what: str = "change") -> str:
        """Name of the curve, or of the area under it."""
        return f"{_NAMES[order]}_{what}" + self._suffix

    def criterion(self, order: str) -> str:
        """Name of the order of the methods that the areas give."""
        return _NAMES[order] + self._suffix

    @property
    def _suffix(self) -> str:
        return "" if self.name == "mean" else f"_{self.name}"


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, degradation_figures)


def _compute(job: Job) -> list[Row]:
    cfg = job.cfg
    fills = _fills(cfg)
    attributions = attributions_of(cfg)
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, job.store)
    job.notes["images"] = images.ids
    origin = origin_of(cfg, model, images, attributions.values())

    def measure(where: slice, number: int) -> Mapping[Key, Tensor]:
        return _measure(model, images.batch(where), where.start, attributions, fills, cfg)

    columns = measure_in_parts(job, images, origin, measure, "removing pixels")
    job.notes["time"] = _time_spent(columns)
    curves = {key: values for key, values in columns.items() if key[0] != "run"}
    methods = list(attributions)
    return [
        *rows_of_means(_areas(curves, methods, fills, cfg)),
        *_agreements(curves, methods, fills, cfg),
        *rows_of_means(curves),
        *published_rows("lerf", cfg, {"absolute_fractional_output_change": "lerf_change"}, methods),
    ]


def _fills(cfg: DictConfig) -> list[_Fill]:
    """The fills of the configuration, everything in it checked."""
    settings = cfg.experiment
    for order in settings.orders:
        if order not in ORDERS:
            raise unknown_name("order", order, ORDERS)
    if settings.rank_by not in RANK_BY:
        raise unknown_name("rank_by", settings.rank_by, RANK_BY)
    fills = [_Fill("mean", settings.fill, _percents(settings.percents), None)]
    if settings.road.images:
        noisy = NoisyLinear(noise=settings.road.noise, seed=cfg.seed)
        fills.append(_Fill("road", noisy, _percents(settings.road.percents), settings.road.images))
    return fills


def _percents(asked: Sequence[float]) -> tuple[float, ...]:
    percents = tuple(float(percent) for percent in asked)
    if (
        not percents
        or not all(0 < percent < 100 for percent in percents)
        or list(percents) != sorted(set(percents))
    ):
        raise InputError(f"experiment.percents must ascend between 0 and 100, not {list(asked)}.")
    return percents


def _measure(
    model: nn.Module,
    batch: Tensor,
    first: int,
    attributions: Mapping[str, Attribution],
    fills: Sequence[_Fill],
    cfg: DictConfig,
) -> dict[Key, Tensor]:
    """The change of every image by method, order, fill and per cent; the maps serve all of them."""
    settings = cfg.experiment
    with torch.no_grad():
        target = model(batch).argmax(1)
    clock = Clock(model)
    measures: dict[Key, Tensor] = {}
    for name, attribution in attributions.items():
        with clock.part("maps"):
            maps = cpath.attribute(
                model, batch, attribution, target, activations=cfg.activations, max_batch=settings.max_batch
            )
        for fill, order in itertools.product(fills, settings.orders):
            count = len(batch) if fill.images is None else max(0, min(len(batch), fill.images - first))
            change = torch.full((len(batch), len(fill.percents)), torch.nan, dtype=torch.float64)
            if count:
                with clock.part(fill.name):
                    found = degrade(
                        clock,
                        batch[:count],
                        maps[:count],
                        target[:count],
                        order=order,
                        percents=fill.percents,
                        fill=fill.fill,
                        rank_by=settings.rank_by,
                        seed=cfg.seed,
                        max_batch=settings.max_batch,
                    )
                change[:count] = found.change.cpu()
            for place, percent in enumerate(fill.percents):
                measures[name, "percent_removed", percent, fill.metric(order)] = change[:, place]
    parts = ["maps", *itertools.chain(*((fill.name, f"{fill.name}_forward") for fill in fills))]
    for part in parts:
        share = clock.seconds.get(part, 0.0) / len(batch)
        measures["run", "", "", f"seconds/{part}"] = torch.full((len(batch),), share)
    return measures


def _time_spent(columns: Mapping[Key, Sequence[float]]) -> dict[str, float]:
    """Seconds by what they were spent on, over all runs of the job, and the share in forward passes by fill."""
    seconds = {key[3].removeprefix("seconds/"): sum(values) for key, values in columns.items() if key[0] == "run"}
    shares = {
        f"share_in_forward_passes_{fill}": seconds[f"{fill}_forward"] / seconds[fill]
        for fill in ("mean", "road")
        if seconds.get(fill)
    }
    return {
        **{f"seconds_{part}": round(spent, 2) for part, spent in seconds.items()},
        **{name: round(share, 4) for name, share in shares.items()},
    }


def _ranges(percents: Sequence[float]) -> Iterator[tuple[float, ...]]:
    """The shares up to 10 %, as in the paper's figure, and all."""
    first = tuple(percent for percent in percents if percent <= _FIRST)
    if len(first) > 1 and len(first) < len(percents):
        yield first
    yield tuple(percents)


def _area(curves: Mapping[Key, Sequence[float]], method: str, metric: str, percents: Sequence[float]) -> np.ndarray:
    columns = [curves[method, "percent_removed", percent, metric] for percent in percents]
    return area_under_curve(percents, np.array(columns).T)


def _areas(
    curves: Mapping[Key, Sequence[float]], methods: Sequence[str], fills: Sequence[_Fill], cfg: DictConfig
) -> dict[Key, Sequence[float]]:
    """Area under each curve, image by image: from 0 to the last per cent of each range."""
    return {
        (method, "up_to_percent", percents[-1], fill.metric(order, "area")): _area(
            curves, method, fill.metric(order), percents
        ).tolist()
        for fill, order in itertools.product(fills, cfg.experiment.orders)
        for percents in _ranges(fill.percents)
        for method in methods
    }


def _agreements(
    curves: Mapping[Key, Sequence[float]], methods: Sequence[str], fills: Sequence[_Fill], cfg: DictConfig
) -> list[Row]:
    """Whether two criteria put the methods into the same order, on the images and at the shares that both have."""
    rows = []
    for one, other in itertools.combinations(itertools.product(fills, cfg.experiment.orders), 2):
        shared = [percent for percent in one[0].percents if percent in other[0].percents]
        for percents in _ranges(shared) if shared else ():
            areas = [
                {method: _area(curves, method, fill.metric(order), percents) for method in methods}
                for fill, order in (one, other)
            ]
            names = one[0].criterion(one[1]), other[0].criterion(other[1])
            rows += agreement_rows(names, (areas[0], areas[1]), percents[-1])
    return rows
