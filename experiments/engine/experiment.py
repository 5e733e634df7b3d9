"""Experiments: each is one object with its settings and their checks, its work, its figures and its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast

import pandas as pd

from cpath.checks import check_name
from cpath.errors import InputError
from experiments.engine.job import Job
from experiments.engine.settings import ExperimentSettings
from experiments.engine.table import Row


class Experiment(ExperimentSettings, ABC):
    """One experiment. Its fields are its settings, ``experiment.…`` in the configuration.

    A file ``conf/experiment/NAME.yaml`` holds the values and names the class under ``_target_``. A class of
    your own that gives every field a default needs no such file: `register` it in a module that ``imports=[…]``
    names.

    Example:
        >>> from experiments.engine import experiment, table
        >>> class Logits(experiment.Experiment):
        ...     title = "Largest logit"
        ...     metrics = ()
        ...     images: int = 8
        ...     def run(self, job):
        ...         images = job.sample(self.images)
        ...         logits = job.model(images.batch(slice(None)))
        ...         return [table.Row("network", "largest_logit", float(logits.max()))]
        >>> Logits(name="logits").images
        8
    """

    def check(self, job: Job) -> None:
        """Refuse settings that do not go together, before any work.

        Args:
            job: the job that would run; nothing may be computed with it, and names of modules and sites are looked
                up in `Job.untrained`.

        Raises:
            CpathError: if the experiment cannot run as configured.
        """

    def launch(self, job: Job) -> pd.DataFrame:
        """Run the experiment as the command line asks: as one job. An experiment made of other jobs overrides this.

        Args:
            job: the job that the configuration stands for, not checked yet.

        Returns:
            The tidy table.
        """
        return job.run()

    @abstractmethod
    def run(self, job: Job) -> Iterable[Row]:
        """Do the work.

        Args:
            job: data, model, methods, cache and folder of this run.

        Returns:
            The numbers of the tidy table.
        """


E = TypeVar("E", bound=type[Experiment])

REGISTERED: dict[str, type[Experiment]] = {}
"""Experiments of users' modules by name; those of the project have a file under ``conf/experiment``."""


def register(name: str) -> Callable[[E], E]:
    """Register an experiment under a name, which ``experiment=NAME`` then finds.

    Args:
        name: letters, digits, ``_``, ``-`` and ``.``.

    Returns:
        A class decorator.

    Raises:
        InputError: if the name is unusable, or the class is no `Experiment` with a default for every setting.

    Example:
        >>> from experiments.engine.experiment import Experiment, register
        >>> @register("nothing")
        ... class Nothing(Experiment):
        ...     def run(self, job):
        ...         return []
    """
    check_name(name)

    def add(cls: E) -> E:
        if not (isinstance(cls, type) and issubclass(cls, Experiment)):
            raise InputError(f"{cls!r} must be a subclass of Experiment to be registered as '{name}'.")
        fields = cast(type[Experiment], cls).model_fields
        without = [field for field, info in fields.items() if info.is_required() and field != "name"]
        if without:
            raise InputError(
                f"experiment '{name}': {', '.join(without)} must have a default. Without defaults, write a "
                f"configuration file that holds the values and names the class under _target_."
            )
        REGISTERED[name] = cls
        return cls

    return add


def defaults_of(name: str) -> dict[str, Any]:
    """Configuration of a registered experiment.

    Args:
        name: under which the class was registered.

    Returns:
        Its class under ``_target_``, its name, and the default of every setting.
    """
    cls = REGISTERED[name]
    made = cls(name=name)
    return {"name": name, "_target_": f"{cls.__module__}.{cls.__qualname__}", **made.model_dump(exclude={"name"})}
