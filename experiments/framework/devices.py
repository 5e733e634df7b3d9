"""Where a job computes: its device, its processes and threads, and what does not go together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cpath.errors import InputError

if TYPE_CHECKING:
    from cpath.training import Hardware


def sweep_number() -> int | None:
    """Number of this job in its sweep; None where it is the only one."""
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    return int(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else None


def device_of(cfg: DictConfig) -> torch.device:
    """The device named in the configuration.

    ``auto`` is the GPU where there is one; where there are several, the jobs of a sweep take turns at them by
    their number. Raises `InputError` for a device that does not exist.
    """
    if cfg.device == "auto":
        return _automatic()
    try:
        device = torch.device(cfg.device)
    except RuntimeError:
        raise InputError(f"no such device: '{cfg.device}'. Say device=auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={cfg.device} asked for, but no CUDA device is available: say device=cpu.")
    return device


def _automatic() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count, number = torch.cuda.device_count(), sweep_number()
    return torch.device("cuda" if count == 1 or number is None else f"cuda:{number % count}")


def devices_of(cfg: DictConfig, workers: int) -> list[str]:
    """A device for each of ``workers`` processes that train side by side: all GPUs in turn for ``auto``."""
    first = str(device_of(cfg))
    if cfg.device != "auto" or first != "cuda":  # one GPU named, or this job's own in a sweep, or none
        return [first] * workers
    return [f"cuda:{number % torch.cuda.device_count()}" for number in range(workers)]


def check_trainer(cfg: DictConfig) -> None:
    """Raises `InputError` for several training processes inside a sweep, or more than there are GPUs."""
    processes = int(cfg.trainer.processes)
    if processes <= 1:
        return
    if sweep_number() is not None:
        raise InputError(
            f"trainer.processes={processes} inside a sweep (-m): the jobs of a sweep train in one process each, "
            "on a GPU of their own. Leave out trainer=ddp, or run this training alone, without -m."
        )
    if device_of(cfg).type == "cuda" and processes > torch.cuda.device_count():
        raise InputError(
            f"trainer.processes={processes}, but there are {torch.cuda.device_count()} GPUs: ask for fewer."
        )


def hardware_of(cfg: DictConfig) -> Hardware:
    """How the configuration says to train. Raises `InputError` as `check_trainer`."""
    from cpath.training import Hardware

    check_trainer(cfg)
    return Hardware(device=device_of(cfg), **{str(name): value for name, value in cfg.trainer.items()})


def use_threads(cfg: DictConfig) -> None:
    """Makes this process compute with ``threads``; ``auto`` shares the cores out among the jobs that run at once.

    More threads than OMP_NUM_THREADS are never taken; a lone job keeps torch's own number.
    """
    if cfg.threads != "auto":
        if not isinstance(cfg.threads, int) or cfg.threads < 1:
            raise InputError(f"threads={cfg.threads}: say threads=auto or a whole number above 0.")
        torch.set_num_threads(cfg.threads)
    elif (share := _share_of_cores()) is not None:
        torch.set_num_threads(min(share, torch.get_num_threads()))


def _share_of_cores() -> int | None:
    """Cores for each of the jobs that run at once; None where one runs after the other."""
    if sweep_number() is None:
        return None
    launcher: Any = HydraConfig.get().launcher
    if (granted := launcher.get("cpus_per_task")) is not None:
        return int(granted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = launcher.get("n_jobs") or launcher.get("at_once")
    if at_once is None:
        return None
    return max(1, cores // (cores if int(at_once) < 0 else int(at_once)))
