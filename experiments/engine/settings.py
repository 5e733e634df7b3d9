"""Typed settings, and the part of an experiment that the configuration knows: settings, metrics, figures."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping
from typing import ClassVar, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict

from cpath.viz import Drawing
from experiments.engine.fields import Text
from experiments.engine.metric_entry import Metric


class Settings(BaseModel):
    """Typed settings: a value of another type or outside its range, and an unknown name, are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True)


class ExperimentSettings(Settings, ABC):
    """Settings of an experiment, and everything about it that needs no job. Subclass `Experiment` instead."""

    title: ClassVar[str] = ""
    """Heading in a report."""
    metrics: ClassVar[tuple[Metric, ...]] = ()
    """Every number that its table can hold."""
    explains_with: ClassVar[tuple[Literal["method", "attribution", "metric"], ...]] = ("method", "attribution")
    """Groups of the configuration that it uses: the others neither matter to it nor are checked."""
    asks: ClassVar[tuple[Literal["unit", "baseline", "target"], ...]] = ()
    """Settings of the question (`experiments.engine.question`) that it heeds; the others must be the defaults."""
    any_input: ClassVar[bool] = False
    """True if the inputs need not be images."""
    measures_machine: ClassVar[bool] = False
    """True if device and threads determine the results, as in a benchmark."""
    removed: ClassVar[Mapping[str, str]] = {}
    """Settings that it had in earlier versions, by their names here, and a sentence on what there is instead."""
    runs_jobs: ClassVar[bool] = False
    """True if `launch` runs other jobs, so that a sweep cannot hold it as one of its own."""

    name: Text
    """Name in results and folders."""

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the figures of a finished job.

        Args:
            table: its tidy table, and nothing else.

        Returns:
            The figures, none by default.
        """
        return ()

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the results that the figures of a finished job show, for its report.

        Args:
            table: its tidy table, and nothing else.

        Returns:
            A sentence or two by the name of a figure, or by a pattern of names, as ``strip_*``; none by default.
        """
        return {}

    def heading(self, table: pd.DataFrame) -> str:
        """Heading of a finished job in a report.

        Args:
            table: tidy table of the job.

        Returns:
            The title, or else the name in words.
        """
        return self.title or self.name.replace("_", " ").capitalize()
