"""Devices, processes, threads and memory of a job."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from cpath.devices import widest
from cpath.errors import InputError
from experiments.engine.config import Config

if TYPE_CHECKING:
    from cpath.training import Hardware


def sweep_number() -> int | None:
    """Number of this job in its sweep.

    Returns:
        The number, from 0; None where the job is the only one.
    """
    if not HydraConfig.initialized():
        return None
    hydra = HydraConfig.get()
    return int(hydra.job.num) if hydra.mode == RunMode.MULTIRUN else None


_KINDS = ("cpu", "cuda", "mps", "xpu")


def check_device(config: Config) -> None:
    """Refuse a name that is no device's on any machine.

    Args:
        config: names the device, which this machine need not have: finished results are read without it.

    Raises:
        InputError: if there is no such device.
    """
    if config.device != "auto":
        _named(config.device)


def _named(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in _KINDS:
        raise InputError(f"there is no device '{name}': say device=auto, cpu, cuda or cuda:N.")
    return device


def device_of(config: Config) -> torch.device:
    """The device named in the configuration.

    ``auto`` is the GPU where there is one; where there are several, the jobs of a sweep take turns at them by
    their number.

    Args:
        config: names the device.

    Returns:
        The device.

    Raises:
        InputError: if there is no such device, or not on this machine.
    """
    if config.device == "auto":
        return _automatic()
    device = _named(config.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={config.device} was asked for, but no CUDA device is available: say device=cpu.")
    count = torch.get_device_module(device).device_count()
    if device.type != "cpu" and (device.index or 0) >= count:
        raise InputError(
            f"device={config.device} was asked for, but there are {count} such devices: say device=auto."
        )
    return device


def dtype_of(config: Config) -> torch.dtype:
    """Type of the numbers that the explained network computes with.

    Args:
        config: names it.

    Returns:
        torch.float32 or torch.float64.

    Raises:
        InputError: if the device has no such numbers.
    """
    dtype: torch.dtype = getattr(torch, config.dtype)
    if dtype == torch.float64 and widest(device_of(config)) != dtype:
        raise InputError(f"dtype=float64: {device_of(config)} has no float64. Say device=cpu, or dtype=float32.")
    return dtype


def _automatic() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    count, number = torch.cuda.device_count(), sweep_number()
    return torch.device("cuda" if count == 1 or number is None else f"cuda:{number % count}")


def devices_of(config: Config, workers: int) -> list[str]:
    """Choose a device for each of several processes that train side by side.

    Args:
        config: names the device; with ``auto`` all GPUs take turns.
        workers: number of processes.

    Returns:
        The name of a device for each process.

    Raises:
        InputError: if there is no such device, or not on this machine.
    """
    first = str(device_of(config))
    if config.device != "auto" or first != "cuda":  # one GPU named, or this job's own in a sweep, or none
        return [first] * workers
    return [f"cuda:{number % torch.cuda.device_count()}" for number in range(workers)]


def check_trainer(config: Config) -> None:
    """Refuse a placement of the work that is impossible.

    Args:
        config: names the device, and the processes of a training.

    Raises:
        InputError: if there is no such device, or for several training processes inside a sweep, or more than
            there are GPUs.
    """
    check_device(config)
    processes = config.trainer.processes
    if processes <= 1:
        return
    if sweep_number() is not None:
        raise InputError(
            f"trainer.processes={processes} inside a sweep (-m): the jobs of a sweep train in one process each, "
            "on a GPU of their own. Leave out trainer=ddp, or run this training alone, without -m."
        )
    gpus = torch.cuda.device_count()
    wanted = config.device == "auto" or _named(config.device).type == "cuda"
    if wanted and gpus and processes > gpus:
        raise InputError(f"trainer.processes={processes}, but there are {gpus} GPUs: ask for fewer.")


def hardware_of(config: Config) -> Hardware:
    """Read from the configuration on what and with which arithmetic to train.

    Args:
        config: names the device, and sets ``trainer.…``.

    Returns:
        The hardware that `cpath.training.train` takes.

    Raises:
        InputError: as `check_trainer` and `device_of`.
    """
    from cpath.training import Hardware

    check_trainer(config)
    return Hardware(device=device_of(config), **config.trainer.model_dump())


def use_threads(config: Config) -> None:
    """Set the number of threads that this process computes with.

    More threads than OMP_NUM_THREADS are never taken; a lone job keeps torch's own number.

    Args:
        config: holds ``threads``; ``auto`` shares the cores out among the jobs that run at once.
    """
    if config.threads != "auto":
        torch.set_num_threads(config.threads)
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


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Make the C library keep what is freed, for the next batch; only glibc can.

    It gives tensors of more than 32 MB back to the system at once otherwise, and fetching fresh pages for the next
    ones takes up to a third of the time of a large batch.
    """
    mallopt = _of_c_library("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def give_back_memory() -> None:
    """Give what is freed back to the system now."""
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)


def _of_c_library(function: str) -> Callable[..., int] | None:
    try:
        return getattr(ctypes.CDLL(None), function, None)
    except (OSError, TypeError):  # Windows
        return None
