"""Which device and how many threads a job computes with, when others run beside it."""

from __future__ import annotations

import os
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from cpath.errors import InputError


def device_of(cfg: DictConfig) -> torch.device:
    """The device named in the configuration; ``auto`` is the GPU where there is one.

    The jobs of a sweep take turns where there are several: job k computes on GPU k, modulo their number.
    """
    if cfg.device == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        several = torch.cuda.device_count()
        number = _job_number()
        return torch.device("cuda") if several < 2 or number is None else torch.device("cuda", number % several)
    try:
        device = torch.device(cfg.device)
    except RuntimeError:
        raise InputError(f"no such device: '{cfg.device}'. Say device=auto, cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={cfg.device} asked for, but no CUDA device is available: say device=cpu.")
    return device


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


def _job_number() -> int | None:
    if not _in_sweep():
        return None
    return int(HydraConfig.get().job.num)


def _share_of_cores() -> int | None:
    """Cores for each of the jobs that run at once; None where one runs after the other."""
    if not _in_sweep():
        return None
    launcher: Any = HydraConfig.get().launcher
    if (granted := launcher.get("cpus_per_task")) is not None:
        return int(granted)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_once = launcher.get("n_jobs") or launcher.get("at_once")
    if at_once is None:
        return None
    return max(1, cores // (cores if int(at_once) < 0 else int(at_once)))


def _in_sweep() -> bool:
    return bool(HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN)
