"""ROAR and KAR (paper, section 4), a whole table: accuracy after retraining by attribution, share and seed."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from omegaconf import DictConfig, ListConfig
from torch import nn

from cpath.analysis import t_mean
from cpath.data import ImageData
from cpath.errors import InputError
from cpath.evaluation import accuracy, mean_height, mean_rank_agreement
from cpath.viz import in_order
from experiments.figures.roar import roar_figures
from experiments.framework.criteria import PUBLISHED, agreement_rows
from experiments.framework.job import Job, run_job
from experiments.framework.published import published, published_rows
from experiments.framework.results import Row, rows_of_means, write_table
from experiments.framework.retraining import (
    UNTOUCHED,
    Cell,
    accuracy_of,
    base_model,
    check_percent,
    check_settings,
    rank_artifact,
)
from experiments.framework.side_by_side import how_many, train_cells
from experiments.framework.subject import load_data

_LOG = logging.getLogger(__name__)
_PUBLISHED = {"test_accuracy_percent": "roar_accuracy"}
_DEFAULT_SEED = 0  # that of conf/config.yaml


@dataclass(frozen=True)
class _Mode:
    """Removing (ROAR) or keeping (KAR) the most relevant pixels."""

    keep: bool

    @property
    def name(self) -> str:
        return "kar" if self.keep else "roar"

    @property
    def x_name(self) -> str:
        return "percent_kept" if self.keep else "percent_removed"

    def places(self, percents: Sequence[float]) -> tuple[float, ...]:
        """Where the curve has values: nothing removed is the untouched data, nothing kept is no data at all."""
        return tuple(percents) if self.keep else (0.0, *percents)


@dataclass(frozen=True)
class _Plan:
    """What the table is made of."""

    modes: tuple[_Mode, ...]
    percents: tuple[float, ...]
    seeds: tuple[int, ...]

    def cells(self, methods: Sequence[str]) -> list[Cell]:
        """All retrainings; a whole table of the first seed comes first."""
        cells = []
        for seed in self.seeds:
            cells.append(Cell(UNTOUCHED, 0.0, False, seed))
            for mode, percent, method in itertools.product(self.modes, self.percents, methods):
                cells.append(Cell(method, percent, mode.keep, seed))
        return cells


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the job of ``cfg`` unless it is finished, and returns its tidy table."""
    return run_job(cfg, _compute, roar_figures)


def check(cfg: DictConfig) -> None:
    """Raises `InputError` for settings with which the table cannot be made; starts nothing."""
    _plan(cfg)
    how_many(cfg)
    check_settings(cfg, load_data(cfg))


def _compute(job: Job) -> list[Row]:
    cfg = job.cfg
    plan, processes = _plan(cfg), how_many(cfg)
    data = load_data(cfg)
    attributions = check_settings(cfg, data)
    methods = in_order(attributions)
    model = base_model(cfg, data, job.store)
    base = _base_hits(model, data)
    ranks = {
        name: rank_artifact(cfg, data, job.store, model, name, attribution)
        for name, attribution in attributions.items()
    }
    model.cpu()  # the retrainings need the memory
    found, speed = train_cells(cfg, data, job.store, plan.cells(methods), ranks, processes)
    accuracies = {cell: accuracy_of(history) for cell, history in found.items()}
    job.notes.update(cells=len(found), side_by_side=processes, speed=speed)
    if speed["cells_trained"]:
        _LOG.info("trained %(cells_trained)d cells, %(training_images_per_second).0f images/s", speed)
    write_table(_cells_table(found), job.folder / "cells.csv")
    curves = {(mode, method): _curve(accuracies, mode, method, plan) for mode in plan.modes for method in methods}
    return [
        *_base_rows(base, accuracies, plan),
        *_areas(curves, plan),
        *_agreements(curves, methods, plan, cfg),
        *_accuracies(curves, plan),
        *_comparisons(curves, methods, plan),
        *published_rows("roar", cfg, _PUBLISHED, methods),
    ]


def _plan(cfg: DictConfig) -> _Plan:
    """The table that the configuration asks for, everything in it checked."""
    percents = tuple(check_percent(percent) for percent in cfg.experiment.percents)
    if not percents or percents[0] <= 0 or list(percents) != sorted(set(percents)):
        raise InputError(
            f"experiment.percents must ascend from above 0 to at most 100, not {list(cfg.experiment.percents)}; "
            "the untouched images (0) are always there."
        )
    if cfg.seed not in (_DEFAULT_SEED, cfg.experiment.base_seed):
        raise InputError(
            f"seed={cfg.seed} would change nothing in a table: experiment.seeds=[…] are those of the retrainings, "
            "over which its intervals are, and experiment.base_seed=… is that of the network that is explained."
        )
    seeds = tuple(cfg.experiment.seeds)
    if not seeds or len(set(seeds)) != len(seeds) or not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        raise InputError(f"experiment.seeds must be different numbers from 0, not {list(seeds)}.")
    asked = list(cfg.keep) if isinstance(cfg.keep, ListConfig) else [cfg.keep]
    if not asked or len(set(asked)) != len(asked) or not all(isinstance(keep, bool) for keep in asked):
        raise InputError(f"keep must be false (ROAR), true (KAR) or [false,true], not {cfg.keep}.")
    return _Plan(tuple(_Mode(keep) for keep in asked), percents, seeds)


def _base_hits(model: nn.Module, data: ImageData) -> list[float]:
    device = next(model.parameters()).device
    return (100.0 * accuracy(model, data.test, device).double()).tolist()


def _cells_table(found: Mapping[Cell, Mapping[str, list[dict[str, float]]]]) -> pd.DataFrame:
    """Cell by cell, for analyses of one's own."""
    records = []
    for cell, history in found.items():
        best = max(history["epochs"], key=lambda epoch: epoch["val_accuracy"])
        records.append(
            {
                **vars(cell),
                "test_accuracy": accuracy_of(history),
                "val_accuracy": best["val_accuracy"],
                "best_epoch": int(best["epoch"]) + 1,
            }
        )
    return pd.DataFrame(records)


def _curve(accuracies: Mapping[Cell, float], mode: _Mode, method: str, plan: _Plan) -> np.ndarray:
    """Accuracies (seeds, places)."""
    return np.array(
        [
            [
                accuracies[Cell(method, x, mode.keep, seed) if x > 0 else Cell(UNTOUCHED, 0.0, False, seed)]
                for x in mode.places(plan.percents)
            ]
            for seed in plan.seeds
        ]
    )


_Curves = Mapping[tuple[_Mode, str], np.ndarray]


def _means(values: np.ndarray) -> Iterator[tuple[float, float, float, int]]:
    """Mean, interval and number over the first axis, for each column."""
    found = t_mean(values)
    for mean, low, high, n in zip(found.mean, found.low, found.high, found.n, strict=True):
        yield float(mean), float(low), float(high), int(n)


def _base_rows(base: Sequence[float], accuracies: Mapping[Cell, float], plan: _Plan) -> list[Row]:
    """The explained network, and whether the untouched retrainings agree with it: a control of the pipeline."""
    untouched = np.array([[accuracies[Cell(UNTOUCHED, 0.0, False, seed)]] for seed in plan.seeds])
    ((mean, low, high, n),) = _means(untouched)
    rows = [
        *rows_of_means({("base", "", "", "test_accuracy"): base}),
        Row(UNTOUCHED, "test_accuracy", mean, ci_low=low, ci_high=high, n=n),
    ]
    if n > 1:
        # One more training is expected within the interval of a prediction, not within that of the mean.
        spread = (high - mean) * np.sqrt(n + 1)
        inside = bool(abs(float(np.mean(base)) - mean) <= spread + 1e-9)
        rows.append(Row("base", "within_interval_of_untouched", float(inside), n=n))
        if not inside:
            _LOG.warning(
                "control failed: the explained network has %.2f %% test accuracy, its retrainings on untouched "
                "images %.2f ± %.2f %%",
                np.mean(base),
                mean,
                spread,
            )
    return rows


def _accuracies(curves: _Curves, plan: _Plan) -> list[Row]:
    """The curves: mean over seeds with its interval."""
    return [
        Row(method, f"{mode.name}_accuracy", mean, mode.x_name, x, low, high, n)
        for (mode, method), values in curves.items()
        for x, (mean, low, high, n) in zip(mode.places(plan.percents), _means(values), strict=True)
    ]


def _area(values: np.ndarray, mode: _Mode, plan: _Plan) -> np.ndarray:
    """(seeds,) mean accuracy over the range of shares."""
    return mean_height(mode.places(plan.percents), values)


def _areas(curves: _Curves, plan: _Plan) -> list[Row]:
    rows = []
    for (mode, method), values in curves.items():
        ((mean, low, high, n),) = _means(_area(values, mode, plan)[:, None])
        rows.append(Row(method, f"{mode.name}_area", mean, "up_to_percent", plan.percents[-1], low, high, n))
    return rows


def _comparisons(curves: _Curves, methods: Sequence[str], plan: _Plan) -> list[Row]:
    """Every method against every later one: the difference of two with equal share and seed, averaged over shares.

    The interval is over seeds: the shares of one seed are one experiment, not repetitions of each other.
    """
    rows = []
    for mode, (one, other) in itertools.product(plan.modes, itertools.combinations(methods, 2)):
        touched = slice(len(mode.places(plan.percents)) - len(plan.percents), None)
        difference = curves[mode, one][:, touched] - curves[mode, other][:, touched]
        ((mean, low, high, n),) = _means(difference.mean(1, keepdims=True))
        rows.append(Row(one, f"{mode.name}_difference/{other}", mean, "", "", low, high, n))
    return rows


def _agreements(curves: _Curves, methods: Sequence[str], plan: _Plan, cfg: DictConfig) -> list[Row]:
    """Whether ROAR and KAR put the methods into the same order, and ROAR here and as published: mean over seeds."""
    areas = {
        mode.name: {method: _area(curves[mode, method], mode, plan) for method in methods} for mode in plan.modes
    }
    paper = published("roar", cfg).assign(x=lambda frame: frame.x.astype(float))
    areas[PUBLISHED] = {
        str(method): mean_height(part.x.tolist(), part.value.to_numpy()[None]).repeat(len(plan.seeds))
        for method, part in paper.sort_values("x").groupby("method")
    }
    return [
        row
        for one, other in (("roar", "kar"), ("roar", PUBLISHED))
        if one in areas and other in areas
        for row in agreement_rows((one, other), (areas[one], areas[other]), plan.percents[-1], mean_rank_agreement)
    ]
