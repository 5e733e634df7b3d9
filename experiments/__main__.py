"""`python -m experiments …`: composes the configuration and runs the experiment that it names."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from pathlib import Path

import hydra
import pandas as pd
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from cpath.errors import CpathError
from experiments.framework.choices import check_choices, explained, register_choices

_LOG = logging.getLogger(__name__)
_SHOWN = 24
_TELL_ALL = "HYDRA_FULL_ERROR"
_TOLD = _TELL_ALL in os.environ


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the experiment of ``cfg`` and returns its tidy table."""
    table: pd.DataFrame = importlib.import_module(f"experiments.{cfg.experiment.name}").run(cfg)
    return table


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def _job(cfg: DictConfig) -> None:
    if not _TOLD:
        os.environ.pop(_TELL_ALL, None)
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        table = run(cfg)
    except CpathError as error:
        _LOG.error("error: %s", error)
        if sweeping:
            raise  # the other jobs of the sweep go on
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit):  # Lightning makes of SIGTERM a SystemExit that would say success
        if not sweeping:
            _LOG.error("stopped; the same command goes on from here")
        sys.exit(130)
    except Exception:
        if sweeping:
            _LOG.exception("error")
        raise
    if not sweeping:
        _show(table)


def _show(table: pd.DataFrame) -> None:
    """The whole-network numbers on the terminal."""
    rows = table[~table.metric.str.contains("/") & (table.x_name != "epoch")]
    shown = Table(box=None, pad_edge=False)
    for column in ("method", "x", "metric", "value", "95 % interval", "n"):
        shown.add_column(column, justify="right" if column in ("x", "value", "n") else "left")
    for row in rows.head(_SHOWN).itertuples():
        x = row.x.removesuffix(".0")
        interval = "" if pd.isna(row.ci_low) else f"{row.ci_low:.4g} to {row.ci_high:.4g}"
        shown.add_row(row.method, x, row.metric, f"{row.value:.4g}", interval, str(row.n))
    if len(rows):
        Console().print(shown)
    if len(rows) > _SHOWN:
        Console().print(f"… and {len(rows) - _SHOWN} more in results.csv")


def main() -> None:
    """Command line entry."""
    try:
        check_choices(sys.argv[1:], Path(__file__).parent.parent / "conf")
        register_choices()
        os.environ.setdefault(_TELL_ALL, "1")  # until a job runs: Hydra's errors come here, not on the terminal
        _job()
    except CpathError as error:
        sys.exit(f"error: {error}")
    except CompactHydraException as error:
        sys.exit(f"error: {explained(error)}")


if __name__ == "__main__":
    main()
