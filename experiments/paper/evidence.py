"""Evidence on a claim: differences of methods on the same images or seeds, or of a method from a limit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pandas as pd

from cpath.analysis.intervals import crossed_error
from cpath.evaluation import area_under_curve
from cpath.viz import label_of
from experiments.engine.metric_entry import base_name
from experiments.engine.table import place
from experiments.metrics import DRAW, METRICS
from experiments.roar.curves import explained_networks

UNPAIRED = "unpaired data"
ONE_SEED = "a single seed"
_IMAGE = "image"
REPETITION = "repetition"
"""Level of an index for what all images or seeds were measured in: a draw of the weights, an explained network."""
_PER_IMAGE = (_IMAGE, "method", "metric", "x_name", "x", "value")


@dataclass(frozen=True)
class Results:
    """Numbers of one dataset and model."""

    table: pd.DataFrame
    """Tidy table of all experiments."""
    per_image: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(_PER_IMAGE)))
    """Numbers of single images, with the columns of `read_per_image`; empty where no job left any."""
    sites: str = ""
    """Sites of the pathways; empty where unknown."""
    cells: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Retrainings of a ROAR table, one a row; empty where no job left them."""


@dataclass(frozen=True)
class Sample:
    """A mean difference with its standard error."""

    mean: float
    """Mean difference."""
    error: float
    """Standard error of the mean; NaN where there is none."""
    n: int
    """Number of images or seeds."""
    freedom: float | None = None
    """Degrees of freedom of Student's t, where they are not the number minus 1."""

    @property
    def degrees(self) -> float:
        """Degrees of freedom of Student's t."""
        return float(max(self.n - 1, 1)) if self.freedom is None else self.freedom

    @classmethod
    def of(cls, differences: pd.Series) -> Sample:
        """Summarise differences.

        Args:
            differences: one of each image, or of each image in each repetition (`REPETITION`), without NaN.

        Returns:
            Their mean, its standard error and the number of images.
        """
        if REPETITION in differences.index.names:
            table = differences.unstack(REPETITION).to_numpy(np.float64).T
            mean, error, freedom, count = (values[0] for values in crossed_error(table[..., None]))
            return cls(float(mean), float(error), int(count), float(freedom))
        values = differences.to_numpy(np.float64)
        n = len(values)
        if n == 0:
            return cls(math.nan, math.nan, 0)
        return cls(float(values.mean()), float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan, n)


@dataclass(frozen=True)
class Contrast:
    """Two numbers that a claim puts into an order."""

    words: str
    """Both numbers."""
    claimed: Literal["higher", "lower"]
    """Place of the first number beside the second, as the claim has it."""
    sample: Sample | None
    """Their difference; None where the data cannot tell its scatter."""
    over: str = "images"
    """Repetitions that are paired: images or seeds."""
    reason: str = ""
    """Reason for there being no sample; empty where there is one."""
    unit: str = ""
    """Unit of the difference."""
    total: int = 0
    """Number of images that were looked at, also those without a number."""


@dataclass(frozen=True)
class Numbers:
    """Numbers of several methods for one quantity."""

    unit: str
    """Unit of the numbers, of which a difference is shown too."""
    means: Mapping[str, float]
    """Means by method, from the tidy table."""
    images: pd.DataFrame
    """Numbers of every image (rows) by method (columns); several rows of an image, and of a repetition where the
    index names them, are averaged."""
    samples: Mapping[str, Sample] = field(default_factory=dict)
    """Means by method with the standard errors that the tidy table tells, for comparisons with a limit."""

    @property
    def over(self) -> str:
        """Words on what a number of images is multiplied with: the draws in which they were measured, if any."""
        if REPETITION not in self.images.index.names:
            return "images"
        draws = self.images.index.get_level_values(REPETITION).nunique()
        return f"images × {draws} draw{'s' if draws > 1 else ''} of the weights"

    @property
    def _unit_of_pairing(self) -> list[str]:
        return [name for name in (_IMAGE, REPETITION) if name in self.images.index.names]

    @property
    def total(self) -> int:
        """Number of images that were looked at; some may have no number, as with empty pathways."""
        if len(self.images):
            return int(self.images.index.get_level_values(_IMAGE).nunique())
        return max((sample.n for sample in self.samples.values()), default=0)

    def pairs(
        self,
        ours: Iterable[str],
        others: Sequence[str],
        claimed: Literal["higher", "lower"],
        name: Callable[[str], str] = label_of,
    ) -> list[Contrast]:
        """Contrast each of some methods with each of others, on the same images.

        Args:
            ours: methods that the claim is about.
            others: their opponents.
            claimed: what the claim says on the first ones.
            name: words for a method.

        Returns:
            A contrast for each pair of methods that both have numbers.
        """
        found = []
        for one in ours:
            for other in others:
                if one in self.images and other in self.images:
                    both = self.images[[one, other]].dropna().groupby(level=self._unit_of_pairing).mean()
                    means, sample = both.mean(), Sample.of(both[one] - both[other])
                elif one in self.means and other in self.means:
                    means, sample = pd.Series(self.means), None
                else:
                    continue
                words = ", ".join(f"{name(method)} {shown(means[method], self.unit)}" for method in (one, other))
                reason = "" if sample else UNPAIRED
                found.append(Contrast(words, claimed, sample, self.over, reason, self.unit, self.total))
        return found

    def against(
        self,
        ours: Iterable[str],
        limit: float,
        claimed: Literal["higher", "lower"],
        name: Callable[[str], str] = label_of,
    ) -> list[Contrast]:
        """Contrast each of some methods with a number.

        Args:
            ours: methods that the claim is about.
            limit: the number.
            claimed: what the claim says on the methods.
            name: words for a method.

        Returns:
            A contrast for each method that has numbers.
        """
        found = []
        for one in ours:
            if one in self.images:
                sample = Sample.of(self.images[one].dropna().groupby(level=self._unit_of_pairing).mean())
            elif one in self.samples:
                sample = self.samples[one]
            else:
                continue
            words = f"{name(one)} {shown(sample.mean, self.unit)}, limit {shown(limit, self.unit)}"
            difference = replace(sample, mean=sample.mean - limit)
            found.append(Contrast(words, claimed, difference, self.over, unit=self.unit, total=self.total))
        return found


def shown(value: float, unit: str = "") -> str:
    """Write a number.

    Args:
        value: the number.
        unit: its unit.

    Returns:
        Three digits and the unit.
    """
    return "no value" if math.isnan(value) else f"{value:.3g}{f' {unit}' if unit else ''}"


def nearest_place(results: Results, metric: str, x_name: str, wanted: float) -> float | None:
    """Find where the results come nearest to the place that the paper looks at.

    Args:
        results: numbers of a dataset and model.
        metric: name of the numbers.
        x_name: quantity that was varied.
        wanted: its value in the paper.

    Returns:
        The nearest value that was measured; None without any.
    """
    table = results.table
    rows = table[(table.metric.map(base_name) == metric) & (table.x_name == x_name)]
    places = [x for x in (place(str(x)) for x in rows.x.unique()) if isinstance(x, float)]
    return min(places, key=lambda x: (abs(x - wanted), x), default=None)


def at_place(results: Results, metric: str, x_name: str, x: float | None) -> Numbers:
    """Collect a metric of all methods at one place.

    Args:
        results: numbers of a dataset and model.
        metric: name of the numbers, with its qualifier.
        x_name: quantity that was varied.
        x: its value; None for the only one.

    Returns:
        The numbers by method.
    """
    rows = _at(results.table, metric, x_name, x).dropna(subset="value")
    images = _at(results.per_image, metric, x_name, x)
    return Numbers(
        METRICS[base_name(metric)].unit,
        dict(zip(rows.method, rows.value, strict=True)),
        images.pivot(index=_IMAGE, columns="method", values="value"),
        {row.method: _of_interval(row) for _, row in rows.iterrows()},
    )


def _at(frame: pd.DataFrame, metric: str, x_name: str, x: float | None) -> pd.DataFrame:
    rows = frame[(frame.metric == metric) & (frame.x_name == x_name)]
    return rows if x is None else rows[rows.x.map(lambda value: place(str(value)) == x).astype(bool)]


def _of_interval(row: pd.Series) -> Sample:
    """Mean over images of a tidy table, with the standard error that its 95 % interval tells."""
    from scipy.stats import norm

    return Sample(float(row.value), _half_width(row) / float(norm.isf(0.025)), int(row.n))


def _half_width(row: pd.Series) -> float:
    """Half the width of an interval, or the longer side of one that ends where its metric does."""
    low, high = METRICS[base_name(row.metric)].range
    below, above = float(row.value - row.ci_low), float(row.ci_high - row.value)
    if row.ci_low <= low or row.ci_high >= high:
        return max(below, above)
    return (below + above) / 2


def degradation_areas(results: Results) -> Numbers:
    """Collect the area under the curve of LeRF of all methods, up to the share where the paper's figure ends.

    Args:
        results: numbers of a dataset and model.

    Returns:
        The areas by method.
    """
    end = nearest_place(results, "lerf_area", "up_to_percent", 10.0)
    areas = at_place(results, "lerf_area", "up_to_percent", end)
    frame = results.per_image
    curves = frame[(frame.metric == "lerf_change") & (frame.x_name == "percent_removed")]
    curves = curves[curves.x.map(lambda x: float(x) <= (end or 0.0)).astype(bool)]
    if curves.empty:
        return areas
    table = curves.assign(x=curves.x.astype(float)).pivot(index=["method", _IMAGE], columns="x", values="value")
    heights = pd.Series(area_under_curve(table.columns.tolist(), table.to_numpy()), index=table.index)
    return Numbers(areas.unit, areas.means, heights.unstack("method"), areas.samples)


def courses(results: Results, metric: str) -> Numbers:
    """Collect a similarity of maps of all methods over the whole course of the randomisation.

    Every image counts once in every draw of the weights, with the mean over the blocks at which there are maps to
    compare.

    Args:
        results: numbers of a dataset and model.
        metric: name of the similarity.

    Returns:
        Its means over the blocks by method.
    """
    rows = results.table
    rows = rows[(rows.metric == metric) & (rows.x_name == "randomized_down_to")].dropna(subset="value")
    samples = {}
    for method, part in rows.groupby("method"):
        blocks = [_of_interval(row) for _, row in part.iterrows()]
        # However the blocks depend on each other, the error of their mean is at most the mean of their errors.
        samples[str(method)] = Sample(
            float(np.mean([block.mean for block in blocks])),
            float(np.mean([block.error for block in blocks])),
            min(block.n for block in blocks),
        )
    return Numbers(
        METRICS[metric].unit,
        {method: sample.mean for method, sample in samples.items()},
        _of_draws(results.per_image[results.per_image.x_name == "randomized_down_to"], metric),
        samples,
    )


def _of_draws(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Numbers by method (columns) of every image and block, in every draw of the weights where those are known."""
    drawn = frame[frame.metric.str.startswith(metric + DRAW)]
    if drawn.empty:
        frame = frame[frame.metric == metric]
        return frame.pivot(index=[_IMAGE, "x"], columns="method", values="value")
    drawn = drawn.assign(**{REPETITION: drawn.metric.str.removeprefix(metric + DRAW)})
    return drawn.pivot(index=[_IMAGE, REPETITION, "x"], columns="method", values="value")


def paired_seeds(
    results: Results, metric: str, ours: Iterable[str], others: Sequence[str], claimed: Literal["higher", "lower"]
) -> list[Contrast]:
    """Contrast methods by the differences of retrainings with the same seeds.

    Args:
        results: numbers of a dataset and model.
        metric: name of the differences, each with the other method as its qualifier.
        ours: methods that the claim is about.
        others: their opponents.
        claimed: what the claim says on the first ones.

    Returns:
        A contrast for each pair of methods that was compared.
    """
    mode = metric.partition("_")[0]
    means, seeds = _accuracies(results.table, f"{mode}_accuracy")
    networks = explained_networks(results.table)
    if networks > 1:
        return _paired_networks(results.cells, mode == "kar", means, networks, ours, others, claimed)
    rows = {(row.method, row.metric): row for _, row in results.table.iterrows()}
    found = []
    for one in ours:
        for other in others:
            if one not in means or other not in means:
                continue
            words = ", ".join(f"{label_of(name)} {shown(means[name], '%')}" for name in (one, other))
            row, sign = rows.get((one, f"{metric}/{other}")), 1
            if row is None:
                row, sign = rows.get((other, f"{metric}/{one}")), -1
            sample = None if row is None else _of_seeds(row, sign)
            reason = ""
            if seeds < 2:
                sample, reason = None, ONE_SEED
            elif sample is None or sample.n != seeds:  # rows of which the interval is not over seeds
                sample, reason = None, UNPAIRED
            found.append(Contrast(words, claimed, sample, "seeds", reason, "%", seeds))
    return found


def _paired_networks(
    cells: pd.DataFrame,
    keep: bool,
    means: Mapping[str, float],
    networks: int,
    ours: Iterable[str],
    others: Sequence[str],
    claimed: Literal["higher", "lower"],
) -> list[Contrast]:
    """Contrast methods by the differences of retrainings with the same explained network and seed."""
    found = []
    table = pd.DataFrame()
    if len(cells):
        touched = cells[(cells.percent > 0) & (cells.keep == keep)]
        table = touched.pivot_table(index=["base_seed", "seed"], columns="attribution", values="test_accuracy")
        table.index.names = [REPETITION, "seed"]
    over = f"retrainings ({networks} explained networks × {len(table) // networks} seeds)"
    for one, other in itertools.product(ours, others):
        if one not in means or other not in means:
            continue
        words = ", ".join(f"{label_of(name)} {shown(means[name], '%')}" for name in (one, other))
        sample, reason = None, UNPAIRED
        if one in table and other in table:
            # Degrees of freedom stand beside them: however many retrainings there are, networks and seeds are few.
            sample, reason = replace(Sample.of(table[one] - table[other]), n=len(table)), ""
        found.append(Contrast(words, claimed, sample, over, reason, "%"))
    return found


def _accuracies(table: pd.DataFrame, metric: str) -> tuple[dict[str, float], int]:
    """Mean accuracy over the shares of pixels by method, and the number of seeds."""
    rows = table[(table.metric == metric) & (table.x.map(lambda x: place(str(x)) != 0.0).astype(bool))]
    means = {str(method): float(part.value.mean()) for method, part in rows.groupby("method")}
    return means, int(rows.n.min()) if len(rows) else 0


def _of_seeds(row: pd.Series, sign: int) -> Sample:
    """Mean over seeds of a tidy table, with the standard error that its 95 % interval of Student's t tells."""
    from scipy.stats import t

    n = int(row.n)
    error = _half_width(row) / float(t.isf(0.025, n - 1)) if n > 1 else math.nan
    return Sample(sign * float(row.value), error, n)
