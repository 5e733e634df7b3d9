"""The whole paper: every experiment in turn, each resumed where it was, and one report at the end."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cpath.errors import CpathError, InputError
from experiments.framework.criteria import agreement
from experiments.framework.job import is_finished, job_folder
from experiments.framework.progress import Overall
from experiments.framework.report import Stage, write_report
from experiments.framework.results import write_table
from experiments.framework.store import digest, slug
from experiments.framework.subject import (
    attributions_of,
    build_model,
    check_sites,
    load_data,
    load_images,
    methods_of,
    sparsities_of,
)

_LOG = logging.getLogger(__name__)

_COMMON = ("outputs", "device", "seed", "redo", "threads")
"""What the stages have as the whole has it."""


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the stages of ``paper=…``, writes the report, and returns all results as one tidy table.

    A stage that fails leaves the others alone; the report is written without it, and says so, and then
    `InputError` is raised.
    """
    if cfg.get("paper") is None:
        raise InputError("experiment=reproduce_paper needs paper=digits, paper=cifar10 or paper=imagenet.")
    stages = {str(name): _stage(cfg, overrides) for name, overrides in cfg.paper.stages.items()}
    todo = {name: stage for name, stage in stages.items() if cfg.redo or not is_finished(job_folder(stage))}
    _preflight(todo)
    done, failed = _run_stages(stages, _expected(cfg, stages, todo))
    folder = Path(cfg.outputs) / "reproduce-paper" / slug(cfg.paper.name)
    table = pd.concat([stage.table for stage in done], ignore_index=True) if done else pd.DataFrame()
    if done:
        found = agreement(table)
        if found is not None and found.compared:
            table = pd.concat([table, found.rows(table.iloc[0])], ignore_index=True)
        write_table(table, folder / "results.csv")
        _LOG.info("report: %s", write_report(folder, cfg.paper.title, done, failed))
    if failed:
        raise InputError("; ".join(f"stage {name} failed: {error}" for name, error in failed.items()))
    return table


def _stage(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of a stage, with what all of them have in common."""
    quoted = str(cfg.outputs).replace("'", r"\'")
    common = [f"outputs='{quoted}'", *(f"{name}={cfg[name]}" for name in _COMMON if name != "outputs"), *_asked()]
    stage = compose("config", [*overrides, *common])
    if "base_seed" in stage.experiment:  # all stages explain networks of the same seed
        stage.experiment.base_seed = cfg.seed
    return stage


def _asked() -> list[str]:
    """What the command line asks of every stage beside that: a tracker, a trainer, modules to import."""
    if not HydraConfig.initialized():
        return []
    asked = [str(override) for override in HydraConfig.get().overrides.task]
    own = ("experiment", "paper", *_COMMON)
    return [override for override in asked if re.split(r"[.=@]", override.lstrip("+~"))[0] not in own]


def _run_stages(
    stages: Mapping[str, DictConfig], expected: Mapping[str, float | None]
) -> tuple[list[Stage], dict[str, str]]:
    """The stages that are finished, and the errors of those that failed."""
    done, failed = [], {}
    with Overall(expected) as overall:
        for name, stage in stages.items():
            _LOG.info("%s %s", overall.words(), name)
            with overall.stage(name):
                try:
                    frame = importlib.import_module(f"experiments.{stage.experiment.name}").run(stage)
                except Exception as error:
                    _LOG.error("stage %s failed: %s", name, error, exc_info=not isinstance(error, CpathError))
                    failed[name] = str(error) or repr(error)
                    continue
            done.append(Stage(name, job_folder(stage), frame))
    return done, failed


def _expected(
    cfg: DictConfig, stages: Mapping[str, DictConfig], todo: Mapping[str, DictConfig]
) -> dict[str, float | None]:
    """Seconds that each stage will take, as far as the paper's file says: what is finished takes none."""
    told = cfg.paper.get("seconds") or {}
    return {name: told.get(name) if name in todo else 0.1 for name in stages}


def _preflight(stages: Mapping[str, DictConfig]) -> None:
    """Everything the stages need, before the first one starts: data, weights, names, values. All of it at once."""
    missing: dict[str, list[str]] = {}
    checked: dict[str, str | None] = {}
    for name, stage in stages.items():
        for error in _missing(stage, checked):
            missing.setdefault(error, []).append(name)
    if missing:
        lines = [f"  - {error} (needed by: {', '.join(names)})" for error, names in missing.items()]
        raise InputError("nothing was started, because this is missing or wrong:\n" + "\n".join(lines))


def _missing(cfg: DictConfig, checked: dict[str, str | None]) -> list[str]:
    """What one stage lacks. ``checked`` remembers datasets and models: several stages share them."""
    errors = []
    checks = [methods_of, attributions_of, *([sparsities_of] if "sparsity" in cfg else [])]
    own = getattr(importlib.import_module(f"experiments.{cfg.experiment.name}"), "check", None)
    if own is not None:
        checks.append(own)
    for check in checks:
        try:
            check(cfg)
        except CpathError as error:
            errors.append(str(error))
    names = ("dataset", "model", "checkpoint", "activations", "imports", "device")
    key = digest({name: OmegaConf.to_container(cfg, resolve=True)[name] for name in names})  # type: ignore[index,call-overload]
    if key not in checked:
        checked[key] = None
        try:
            data = load_data(cfg)
            model = build_model(cfg, data)
            if "images" in cfg.experiment:
                check_sites(model, load_images(cfg, data), cfg)
        except CpathError as error:
            checked[key] = str(error)
    if (found := checked[key]) is not None:
        errors.append(found)
    return errors
