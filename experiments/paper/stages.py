"""Stages of a paper: jobs that are composed and checked before the first one starts, and then run in turn."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException
from omegaconf import DictConfig

from cpath.errors import CpathError, InputError
from experiments.engine.cache import digest
from experiments.engine.choices import explained, register_choices
from experiments.engine.config import Config, parse, validated
from experiments.engine.devices import device_of
from experiments.engine.fields import NonNegative, Text
from experiments.engine.images import load_data
from experiments.engine.job import Job
from experiments.engine.network import build_model, check_model
from experiments.engine.progress import Stages
from experiments.engine.settings import Settings

_LOG = logging.getLogger(__name__)

_COMMON = ("outputs", "device", "seed", "redo", "threads")
"""Settings that every stage has from the whole."""
_NETWORK = ("dataset", "model", "checkpoint", "sites", "imports", "device")
"""Settings that determine whether data and network can be had."""


class Paper(Settings):
    """Settings of ``experiment=reproduce_paper``: ``paper.…``."""

    name: Text
    """Name of the report's folder."""
    title: Text
    """Dataset and networks, for the head of the report."""
    stages: dict[str, list[Text]]
    """Overrides of each stage by its name, in the order of the report."""
    seconds: dict[str, NonNegative] | None = None
    """Expected time of each stage, for the display of the time left."""


@dataclass(frozen=True)
class FinishedStage:
    """A stage that ran to its end."""

    name: str
    """Name of the stage."""
    folder: Path
    """Folder of the job."""
    table: pd.DataFrame
    """Tidy table of the job."""
    command: str = ""
    """Command line of this job alone; empty where only its manifest knows one."""


def paper_of(config: Config) -> Paper:
    """Read the paper that a configuration names.

    Args:
        config: with the node ``paper``.

    Returns:
        Its name, title and stages.

    Raises:
        InputError: if it names none, or one that is not as it has to be.
    """
    if config.paper is None:
        raise InputError("experiment=reproduce_paper needs paper=digits, paper=cifar10 or paper=imagenet.")
    return validated(Paper, config.paper, "paper")


def composed_stage(config: Config, overrides: list[str]) -> DictConfig:
    """Compose the configuration of a stage, with the settings that it takes over from the whole.

    Args:
        config: configuration of the whole.
        overrides: of the stage, as on a command line.

    Returns:
        The configuration, neither checked nor typed yet.

    Raises:
        CompactHydraException: if an override is none that Hydra understands.
    """
    stage = compose("config", [*overrides, *_passed_on("experiment", "paper", *_COMMON)])
    for name in _COMMON:
        stage[name] = config.composed[name]
    return stage


def command_of(overrides: Sequence[str]) -> str:
    """Command line that runs a stage as a job of its own.

    Args:
        overrides: of the stage.

    Returns:
        What the whole was told, with the stage's overrides in place of the paper, ready for a shell.
    """
    words = [*overrides, *_passed_on("experiment", "paper", "redo")]
    return shlex.join(["python", "-m", "experiments", *words])


def _passed_on(*own: str) -> list[str]:
    """Overrides of the command line that go to every stage, such as a tracker, a trainer, modules to import.

    Args:
        own: groups and settings that are the whole's own.
    """
    if not HydraConfig.initialized():
        return []
    asked = OverridesParser.create().parse_overrides(list(HydraConfig.get().overrides.task))
    return [str(each.input_line) for each in asked if each.key_or_group.partition(".")[0] not in own]


def checked_stages(config: Config, paper: Paper) -> dict[str, Config]:
    """Compose all stages, and refuse what cannot run before the first one starts.

    Args:
        config: of the whole.
        paper: names the stages.

    Returns:
        Configurations by stage. Of a stage that is finished, nothing but the settings is checked.

    Raises:
        InputError: if data, weights, names or values are missing or wrong; it names all of them.
    """
    problems: dict[str, list[str]] = {}
    known: dict[str, str | None] = {}
    stages: dict[str, Config] = {}
    register_choices()  # a stage may name a torchvision model, which the command line did not
    for name, overrides in paper.stages.items():
        try:
            stages[name] = parse(composed_stage(config, overrides))
            found = [] if is_finished(stages[name]) else _problems(stages[name], known)
        except CompactHydraException as error:
            found = [explained(error)]
        except CpathError as error:
            found = str(error).splitlines()
        for problem in found:
            problems.setdefault(problem, []).append(name)
    if problems:
        lines = [f"  - {problem} (needed by: {', '.join(names)})" for problem, names in problems.items()]
        raise InputError("nothing was started, because this is missing or wrong:\n" + "\n".join(lines))
    return stages


def is_finished(config: Config) -> bool:
    """Tell if a stage has nothing left to do.

    Args:
        config: of the stage.

    Returns:
        True if its job is finished, and is not asked for again.
    """
    return not config.redo and Job(config).is_finished


def _problems(config: Config, known: dict[str, str | None]) -> list[str]:
    """Everything that keeps a stage from running.

    Args:
        config: of the stage.
        known: problems of datasets and networks that were looked at before, as several stages share them.
    """
    key = digest(config.model_dump(include=set(_NETWORK)))
    if key not in known:
        known[key] = _problem_of_network(config)
    return [problem for problem in (_problem_of_settings(config), known[key]) if problem is not None]


def _problem_of_settings(config: Config) -> str | None:
    if config.experiment.runs_jobs:
        return f"experiment={config.experiment.name} is many jobs already: it cannot be a stage."
    try:
        Job(config).check()
    except CpathError as error:
        return str(error)
    return None


def _problem_of_network(config: Config) -> str | None:
    try:
        device_of(config)
        data = load_data(config)
        check_model(build_model(config, data), data, config)
    except CpathError as error:
        return str(error)
    return None


def run_stages(
    stages: Mapping[str, Config], seconds: Mapping[str, float]
) -> tuple[list[FinishedStage], dict[str, str]]:
    """Run the stages in turn; one that fails leaves the others alone.

    Args:
        stages: configuration of each.
        seconds: expected time of each, as far as it is known.

    Returns:
        The stages that are finished, and the errors of those that failed by their name.
    """
    done: list[FinishedStage] = []
    failed: dict[str, str] = {}
    expected = {name: 0.0 if is_finished(config) else seconds.get(name) for name, config in stages.items()}
    with Stages(expected) as all_stages:
        for name, config in stages.items():
            with all_stages.stage(name) as number:
                _LOG.info("%s %s", number, name)
                job = Job(config)
                try:
                    done.append(FinishedStage(name, job.folder, job.run()))
                except Exception as error:
                    _LOG.error("stage %s failed: %s", name, error, exc_info=not isinstance(error, CpathError))
                    failed[name] = str(error) or repr(error)
    return done, failed
