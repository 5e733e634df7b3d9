"""Metrics: one entry in code for each number that a table can hold, from which figures and documents take it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

INTERVAL = "95 % interval"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A number that an experiment reports.

    A table may qualify the name: ``jaccard/greedy`` is the metric ``jaccard`` with Greedy, ``residual/conv1`` the
    metric ``residual`` at the site ``conv1``.

    Example:
        >>> from experiments.engine.metric_entry import Metric
        >>> entry = Metric(name="kept_share", label="neurons kept", unit="%", range=(0, 100), better=None,
        ...                meaning="Per cent of all neurons that the pathway keeps.")
        >>> entry.axis
        'neurons kept (%)'
    """

    name: str
    """Name in the column ``metric``, before the first ``/``."""
    label: str
    """Short name for axes and headings, without the unit."""
    unit: str
    """``%``, ``s``, ``MB``, …; empty for a number without one. A share is always in ``%``."""
    range: tuple[float, float]
    """Smallest and largest possible value."""
    better: Literal["higher", "lower"] | None
    """Direction of a better result; None where neither is better."""
    meaning: str
    """One or two sentences."""
    source: str = ""
    """Publication that defines it."""
    over: str = "images"
    """Things that ``n`` counts, and the interval is over."""
    interval: str = INTERVAL
    """Kind of interval from ``ci_low`` to ``ci_high``."""

    @property
    def axis(self) -> str:
        """Label of an axis, with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def within(self, number: float) -> float:
        """Cut a number off at the ends of the range: no interval of a share reaches beyond the whole.

        Args:
            number: end of an interval; NaN stays NaN.

        Returns:
            The nearest possible value.

        Example:
            >>> from experiments.metrics import METRICS
            >>> METRICS["class_kept"].within(104.2)
            100.0
        """
        low, high = self.range
        return number if math.isnan(number) else float(min(max(number, low), high))


def base_name(metric: str) -> str:
    """Name of a metric without its qualifier: ``jaccard`` of ``jaccard/greedy``.

    Args:
        metric: name as in the column ``metric``.

    Returns:
        The part before the first ``/``.
    """
    return metric.partition("/")[0]


def by_name(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Order metrics by their names.

    Args:
        metrics: the entries; the same one may be there more than once.

    Returns:
        Entries by name.

    Raises:
        ValueError: if two different metrics have one name.
    """
    found: dict[str, Metric] = {}
    for metric in metrics:
        if found.setdefault(metric.name, metric) != metric:
            raise ValueError(f"two metrics are called '{metric.name}': give one of them another name.")
    return found


def axis_label(name: str, metrics: Mapping[str, Metric]) -> str:
    """Label of an axis for a metric of a table.

    Args:
        name: as in the column ``metric``.
        metrics: entries by name.

    Returns:
        Label with the unit; the name in words where no entry is known, as in a user's table.
    """
    entry = metrics.get(base_name(name))
    return entry.axis if entry is not None else name.replace("_", " ")


def told_apart(names: Iterable[str], metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Labels of several metrics that stand beside each other.

    Args:
        names: of the metrics, as in a table.
        metrics: entries by name.

    Returns:
        Label of an axis by name; the name stands before it where another one has the same label.
    """
    labels = {name: axis_label(name, metrics) for name in names}
    uses = Counter(labels.values())
    return {
        name: label if uses[label] == 1 else f"{name.replace('_', ' ')}: {label}" for name, label in labels.items()
    }
