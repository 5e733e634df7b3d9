"""Curves of a ROAR table: accuracy by attribution, share of pixels, network and seed, and what follows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cpath.analysis import crossed_mean, t_mean
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
    """Accuracies of all cells of a table, and the rows that they give.

    Intervals are over the seeds of the retrainings and, where there are several, over the explained networks too:
    all seeds are those of each network, so that the two are crossed (`cpath.analysis.crossed_mean`).
    """

    plan: Plan
    """The cells of each explained network."""
    accuracies: Sequence[Mapping[Cell, float]]
    """Per cent of the test images that are classified correctly, for each explained network."""

    def untouched(self) -> np.ndarray:
        """Accuracies on images that keep all of their pixels, which no explained network has a part in.

        Returns:
            (1, seeds) per cent.
        """
        return np.array([[self.accuracies[0][Cell.untouched(seed)] for seed in self.plan.seeds]])

    def values(self, mode: Mode, method: str) -> np.ndarray:
        """Accuracies of a curve.

        Args:
            mode: removing or keeping.
            method: name of the attribution.

        Returns:
            (networks, seeds, places) per cent.
        """
        return np.array(
            [
                [
                    [
                        accuracies[Cell(method, x, mode.keep, seed) if x > 0 else Cell.untouched(seed)]
                        for x in mode.places(self.plan.percent)
                    ]
                    for seed in self.plan.seeds
                ]
                for accuracies in self.accuracies
            ]
        )

    def area(self, mode: Mode, method: str) -> np.ndarray:
        """Mean accuracy over the range of shares.

        Args:
            mode: removing or keeping.
            method: name of the attribution.

        Returns:
            (networks, seeds) per cent.
        """
        values = self.values(mode, method)
        heights = mean_height(mode.places(self.plan.percent), values.reshape(-1, values.shape[-1]))
        return heights.reshape(values.shape[:-1])

    def rows(self) -> list[Row]:
        """Average the curves over networks and seeds.

        Returns:
            A row for each mode, method and share.
        """
        return [
            replace(row, x_name=mode.x_name, x=x)
            for mode, method in itertools.product(self.plan.modes, self.plan.methods)
            for x, row in zip(mode.places(self.plan.percent), self._curve(mode, method), strict=True)
        ]

    def _curve(self, mode: Mode, method: str) -> Iterator[Row]:
        name, values = f"{mode.name}_accuracy", self.values(mode, method)
        if not mode.keep:
            yield from _means(method, name, self.untouched()[..., None])
            values = values[..., 1:]
        yield from _means(method, name, values)

    def areas(self) -> list[Row]:
        """Average the areas under the curves over networks and seeds.

        Returns:
            A row for each mode and method.
        """
        return [
            replace(row, x_name="up_to_percent", x=self.plan.percent[-1])
            for mode, method in itertools.product(self.plan.modes, self.plan.methods)
            for row in _means(method, f"{mode.name}_area", self.area(mode, method)[..., None])
        ]

    def comparisons(self) -> list[Row]:
        """Compare every method with every later one, by the mean difference of their accuracies.

        Accuracies are paired by share, network and seed. The interval is over networks and seeds: the shares of one
        seed are one experiment, not repetitions of each other.

        Returns:
            A row for each mode and pair of methods.
        """
        rows: list[Row] = []
        for mode, (one, other) in itertools.product(self.plan.modes, itertools.combinations(self.plan.methods, 2)):
            touched = slice(-len(self.plan.percent), None)
            difference = self.values(mode, one)[..., touched] - self.values(mode, other)[..., touched]
            rows += _means(one, f"{mode.name}_difference/{other}", difference.mean(-1, keepdims=True))
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
        shape = len(self.accuracies), len(self.plan.seeds)
        areas[PUBLISHED] = {
            str(method): np.full(shape, mean_height(part.x.tolist(), part.value.to_numpy()[None])[0])
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

    def control(self, hits: Mapping[int, Sequence[float]]) -> list[Row]:
        """Compare the explained networks with the retrainings on untouched images.

        Args:
            hits: 100 for each test image that an explained network classifies correctly, else 0, by the seed of the
                network.

        Returns:
            The accuracy of each network and of the retrainings and, for several seeds of these, 1 if all agree and
            else 0.
        """
        (untouched,) = _means(UNTOUCHED, "untouched_accuracy", self.untouched()[..., None])
        at = {seed: ("base_seed", float(seed)) if len(hits) > 1 else ("", "") for seed in hits}
        of_networks = {Measure(PseudoMethod.BASE, "test_accuracy", *at[seed]): hits[seed] for seed in hits}
        rows = [*rows_of_means(of_networks), untouched]
        if untouched.n > 1:
            reach = prediction_reach(untouched) + 1e-9
            inside = all(abs(float(np.mean(one)) - untouched.value) <= reach for one in hits.values())
            rows.append(Row(PseudoMethod.BASE, "within_interval_of_untouched", float(inside), n=untouched.n))
        return rows


def explained_networks(table: pd.DataFrame) -> int:
    """Count the networks that a ROAR table explains: each has a row with its accuracy.

    Args:
        table: tidy table.

    Returns:
        Their number, 1 also where the table does not say.
    """
    return max(1, int(((table.method == PseudoMethod.BASE) & (table.metric == "test_accuracy")).sum()))


def prediction_reach(mean: Row) -> float:
    """Half the width of the interval in which one more value is expected.

    Args:
        mean: row of a mean over seeds, with its 95 % interval.

    Returns:
        The half-width, in the unit of the row.
    """
    return float((mean.ci_high - mean.value) * np.sqrt(mean.n + 1))


def _means(method: str, metric: str, values: np.ndarray) -> Iterator[Row]:
    """Mean and interval over networks and seeds, the first two axes, for each column."""
    networks, seeds, _ = values.shape
    found = t_mean(values[0]) if networks == 1 else crossed_mean(values)
    for mean, low, high in zip(found.mean, found.low, found.high, strict=True):
        yield Row(method, metric, float(mean), ci_low=float(low), ci_high=float(high), n=networks * seeds)
