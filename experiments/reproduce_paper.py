"""The whole paper: every experiment in turn, each resumed where it was, and one report at the end."""

from __future__ import annotations

import importlib
import logging
import time
from pathlib import Path

import pandas as pd
from hydra import compose
from omegaconf import DictConfig

from cpath.errors import InputError
from experiments.framework.job import job_folder
from experiments.framework.report import Stage, write_report
from experiments.framework.results import write_table
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


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the stages of ``paper=…``, writes the report, and returns all results as one tidy table."""
    if cfg.get("paper") is None:
        raise InputError("experiment=reproduce_paper needs paper=digits, paper=cifar10 or paper=imagenet.")
    started = time.perf_counter()
    common = [f"outputs={cfg.outputs}", f"device={cfg.device}", f"seed={cfg.seed}", f"redo={cfg.redo}"]
    stages = {str(name): compose("config", [*overrides, *common]) for name, overrides in cfg.paper.stages.items()}
    for name, stage in stages.items():
        _preflight(name, stage)
    results, done = [], []
    for number, (name, stage) in enumerate(stages.items(), 1):
        _LOG.info("[%d/%d] %s", number, len(stages), name)
        frame = importlib.import_module(f"experiments.{stage.experiment.name}").run(stage)
        results.append(frame)
        done.append(Stage(name, job_folder(stage), frame))
    table = pd.concat(results, ignore_index=True)
    folder = Path(cfg.outputs) / "reproduce-paper" / cfg.paper.name
    write_table(table, folder / "results.csv")
    report = write_report(folder, cfg.paper.title, done, time.perf_counter() - started)
    _LOG.info("report: %s", report)
    return table


def _preflight(name: str, cfg: DictConfig) -> None:
    """Everything a stage needs, before the first one starts: data, weights, names, values."""
    try:
        sparsities_of(cfg)
        methods_of(cfg)
        attributions_of(cfg)
        data = load_data(cfg)
        model = build_model(cfg, data)
        check = getattr(importlib.import_module(f"experiments.{cfg.experiment.name}"), "check", None)
        if check is not None:
            check(cfg)
        if "images" in cfg.experiment:
            check_sites(model, load_images(cfg, data), cfg)
    except InputError as error:
        raise InputError(f"stage {name}: {error}") from error
