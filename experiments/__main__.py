"""`python -m experiments …`: composes the configuration and runs the experiment that it names.

Imports take seconds. They are in the functions, so that an interrupt during them is answered as any other.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from experiments import CONF

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

_LOG = logging.getLogger(__name__)
_SHOWN = 24
_TELL_ALL = "HYDRA_FULL_ERROR"
_TOLD = _TELL_ALL in os.environ


def run(cfg: DictConfig) -> pd.DataFrame:
    """Runs the experiment of ``cfg`` and returns its tidy table."""
    from cpath.errors import unknown_name

    known = [file.stem for file in (CONF / "experiment").glob("*.yaml")]
    if cfg.experiment.name not in known:
        raise unknown_name("experiment", cfg.experiment.name, known)
    table: pd.DataFrame = importlib.import_module(f"experiments.{cfg.experiment.name}").run(cfg)
    return table


def _job(cfg: DictConfig) -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from cpath.errors import CpathError

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
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning makes of SIGTERM a SystemExit that says success
        if sweeping:
            sys.exit(130)
        raise KeyboardInterrupt from stop
    except Exception:
        if sweeping:
            _LOG.exception("error")
        raise
    if not sweeping:
        _show(table)


def _show(table: pd.DataFrame) -> None:
    """The whole-network numbers on the terminal."""
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from experiments.framework.results import interval_name

    interval_of = " or ".join(dict.fromkeys(map(interval_name, table.experiment.unique())))
    rows = table[~table.metric.str.contains("/") & (table.x_name != "epoch")]
    shown = Table(box=None, pad_edge=False)
    for column in ("method", "x", "metric", "value", interval_of, "n"):
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
    signal.signal(signal.SIGINT, _leave)
    import hydra
    from hydra.errors import CompactHydraException

    from cpath.errors import CpathError
    from experiments.framework.choices import check_choices, explained, register_choices

    try:
        check_choices(sys.argv[1:])
        register_choices()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.setdefault(_TELL_ALL, "1")  # until a job runs: Hydra's errors come here, not on the terminal
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_job)()
    except CpathError as error:
        sys.exit(f"error: {error}")
    except CompactHydraException as error:
        sys.exit(f"error: {explained(error)}")
    except KeyboardInterrupt:
        _leave()


def _leave(*_: Any) -> NoReturn:
    print("stopped; the same command goes on from here", file=sys.stderr)
    sys.exit(130)


if __name__ == "__main__":
    main()
