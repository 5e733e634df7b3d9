"""`python -m experiments …`: composes the configuration and runs the experiment that it names.

Imports take seconds. They are in the functions, so that an interrupt during them is answered as any other.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from experiments import CONF

if TYPE_CHECKING:
    from omegaconf import DictConfig

_LOG = logging.getLogger(__name__)
_FULL_ERROR = "HYDRA_FULL_ERROR"
FIRST_LOOK = (
    "experiment=path_analysis",
    "method=[neuron_mct,random]",
    "sparsity=90",
    "experiment.images=64",
    "experiment.self_overlap=0",
)
"""Arguments that the command has where it is given none: training included, they take less than a minute."""
_ASKED_FOR_FULL_ERRORS = _FULL_ERROR in os.environ


def main() -> None:
    """Run the command line."""
    signal.signal(signal.SIGINT, _stop)
    if len(sys.argv) == 1:
        sys.argv += FIRST_LOOK
        print(f"A first look, in less than a minute: {' '.join(FIRST_LOOK)}")
        print("(--help lists everything else; python -m experiments experiment=path_analysis is the whole of it)")
    try:
        import hydra
        from hydra.errors import CompactHydraException, HydraException

        from cpath.errors import CpathError
        from experiments.engine.choices import explained, import_named_modules, may_name_a_model, register_choices
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed: pip install 'critical-pathways[experiments]'.")

    try:
        import_named_modules(sys.argv[1:])
        register_choices(torchvision=may_name_a_model(sys.argv[1:]))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.setdefault(_FULL_ERROR, "1")  # until a job runs: Hydra's errors come here, not on the terminal
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_run)()
    except CpathError as error:
        sys.exit(f"error: {error}")
    except CompactHydraException as error:
        sys.exit(f"error: {explained(error)}")
    except HydraException as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        _stop()


def _run(cfg: DictConfig) -> None:
    """Run one job, alone or as part of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from cpath.errors import CpathError
    from experiments.engine.config import parse
    from experiments.engine.job import run
    from experiments.engine.terminal import show_results

    if not _ASKED_FOR_FULL_ERRORS:
        os.environ.pop(_FULL_ERROR, None)
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        table = run(cfg)
    except CpathError as error:
        _LOG.error("error: %s", error)
        if sweeping:
            raise  # the other jobs of the sweep continue
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
        show_results(table, parse(cfg).experiment.findings(table).values())


def _stop(*_: Any) -> NoReturn:
    print("stopped; the same command continues from here", file=sys.stderr)
    sys.exit(130)


if __name__ == "__main__":
    main()
