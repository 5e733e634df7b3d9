"""Curves of a ROAR table: accuracy after retraining by attribution, share of pixels and seed, and what follows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cpath.analysis import t_mean
from cpath.evaluation import mean_height, mean_rank_agreement
from experiments.engine.table import Measure, PseudoMethod, Row, rows_of_means
from experiments.rank_agreement import PUBLISHED, agreement_rows
from experiments.roar.cells import UNTOUCHED, Cell, Mode


@dataclass(frozen=True)
class Plan:
    """The cells that a table is made of."""

    modes: tuple[Mode, ...]
    """Removing, keeping, or both."""
    percent: tuple[float, ...]
    """Per cent of the pixels, ascending from above 0."""
    seeds: tuple[int, ...]
    """Seeds of the retrainings."""
    methods: tuple[str, ...]
    """Names of the attributions, in the order in which they are shown."""

    def cells(self) -> list[Cell]:
        """List all retrainings; the whole table of the first seed comes first.

        Returns:
            The cells, in the order in which they are trained.
        """
        cells = []
        for seed in self.seeds:
            cells.append(Cell.untouched(seed))
            for mode, percent, method in itertools.product(self.modes, self.percent, self.methods):
                cells.append(Cell(method, percent, mode.keep, seed))
        return cells


@dataclass(frozen=True)
class Curves:
    """Accuracies of all cells of a table, and the rows that they give. Intervals are over seeds."""

    plan: Plan
    """The cells."""
    accuracies: Mapping[Cell, float]
    """Per cent of the test images that are classified correctly."""

    def untouched(self) -> np.ndarray:
        """Accuracies on images that keep all of their pixels.

        Returns:
            (seeds,) per cent.
        """
        return np.array([self.accuracies[Cell.untouched(seed)] for seed in self.plan.seeds])

    def values(self, mode: Mode, method: str) -> np.ndarray:
        """Accuracies of a curve.

        Args:
            mode: removing or keeping.
            method: name of the attribution.

        Returns:
            (seeds, places) per cent.
        """
        return np.array(
            [
                [
                    self.accuracies[Cell(method, x, mode.keep, seed) if x > 0 else Cell.untouched(seed)]
                    for x in mode.places(self.plan.percent)
                ]
                for seed in self.plan.seeds
            ]
        )

    def area(self, mode: Mode, method: str) -> np.ndarray:
        """Mean accuracy over the range of shares.

        Args:
            mode: removing or keeping.
            method: name of the attribution.

        Returns:
            (seeds,) per cent.
        """
        return mean_height(mode.places(self.plan.percent), self.values(mode, method))

    def rows(self) -> list[Row]:
        """Average the curves over the seeds.

        Returns:
            A row for each mode, method and share.
        """
        return [
            replace(row, x_name=mode.x_name, x=x)
            for mode, method in itertools.product(self.plan.modes, self.plan.methods)
            for x, row in zip(
                mode.places(self.plan.percent),
                _means(method, f"{mode.name}_accuracy", self.values(mode, method)),
                strict=True,
            )
        ]

    def areas(self) -> list[Row]:
        """Average the areas under the curves over the seeds.

        Returns:
            A row for each mode and method.
        """
        return [
            replace(row, x_name="up_to_percent", x=self.plan.percent[-1])
            for mode, method in itertools.product(self.plan.modes, self.plan.methods)
            for row in _means(method, f"{mode.name}_area", self.area(mode, method)[:, None])
        ]

    def comparisons(self) -> list[Row]:
        """Compare every method with every later one, by the mean difference of their accuracies.

        Accuracies are paired by share and seed. The interval is over seeds: the shares of one seed are one
        experiment, not repetitions of each other.

        Returns:
            A row for each mode and pair of methods.
        """
        rows: list[Row] = []
        for mode, (one, other) in itertools.product(self.plan.modes, itertools.combinations(self.plan.methods, 2)):
            touched = slice(-len(self.plan.percent), None)
            difference = self.values(mode, one)[:, touched] - self.values(mode, other)[:, touched]
            rows += _means(one, f"{mode.name}_difference/{other}", difference.mean(1, keepdims=True))
        return rows

    def agreements(self, published: pd.DataFrame) -> list[Row]:
        """Compare the orders of the methods by ROAR and KAR, and by ROAR here and as published.

        Args:
            published: the paper's curves, with the columns method, x and value.

        Returns:
            A row with Kendall's τ for each pair; none where fewer than two methods are in both.
        """
        areas = {
            mode.name: {method: self.area(mode, method) for method in self.plan.methods} for mode in self.plan.modes
        }
        areas[PUBLISHED] = {
            str(method): mean_height(part.x.tolist(), part.value.to_numpy()[None]).repeat(len(self.plan.seeds))
            for method, part in published.assign(x=published.x.astype(float)).sort_values("x").groupby("method")
        }
        return [
            replace(row, metric=f"roar_{row.metric}")  # as its n counts seeds, not images
            for one, other in (("roar", "kar"), ("roar", PUBLISHED))
            if one in areas and other in areas
            for row in agreement_rows(
                (one, other), (areas[one], areas[other]), self.plan.percent[-1], mean_rank_agreement
            )
        ]

    def control(self, hits: Sequence[float]) -> list[Row]:
        """Compare the explained network with the retrainings on untouched images.

        Args:
            hits: 100 for each test image that the explained network classifies correctly, else 0.

        Returns:
            The accuracy of both and, for several seeds, 1 if they agree and else 0.
        """
        (untouched,) = _means(UNTOUCHED, "untouched_accuracy", self.untouched()[:, None])
        rows = [*rows_of_means({Measure(PseudoMethod.BASE, "test_accuracy"): hits}), untouched]
        if untouched.n > 1:
            inside = abs(float(np.mean(hits)) - untouched.value) <= prediction_reach(untouched) + 1e-9
            rows.append(Row(PseudoMethod.BASE, "within_interval_of_untouched", float(inside), n=untouched.n))
        return rows


def prediction_reach(mean: Row) -> float:
    """Half the width of the interval in which one more value is expected.

    Args:
        mean: row of a mean over seeds, with its 95 % interval.

    Returns:
        The half-width, in the unit of the row.
    """
    return float((mean.ci_high - mean.value) * np.sqrt(mean.n + 1))


def _means(method: str, metric: str, values: np.ndarray) -> Iterator[Row]:
    """Mean and interval over the first axis, for each column."""
    found = t_mean(values)
    for mean, low, high, n in zip(found.mean, found.low, found.high, found.n, strict=True):
        yield Row(method, metric, float(mean), ci_low=float(low), ci_high=float(high), n=int(n))
