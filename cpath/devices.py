"""Differences between devices: their types, how much they take at once, where torch makes new tensors."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices that have no float64."""

# On a CPU, tensors above this size cost more for fetching fresh pages than the larger batch saves.
_CPU_TENSOR_BYTES = 24 * 2**20


def widest(device: torch.device) -> torch.dtype:
    """Find the most exact floating-point type of a device.

    Args:
        device: The device.

    Returns:
        float64, or float32 on a device without it.

    Example:
        >>> from cpath.devices import widest
        >>> widest(torch.device("cpu")), widest(torch.device("mps"))
        (torch.float64, torch.float32)
    """
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def rows_at_once(device: torch.device, bytes_each: int, max_batch: int) -> int:
    """Find the number of rows in the largest pass that keeps to ``max_batch`` and, on a CPU, to a suitable size.

    Args:
        device: The device.
        bytes_each: Bytes that the largest tensor of the pass has for each row.
        max_batch: Largest number of rows.

    Returns:
        The number, at least 1.

    Example:
        >>> from cpath.devices import rows_at_once
        >>> rows_at_once(torch.device("cpu"), 4 * 2**20, 64), rows_at_once(torch.device("cuda"), 4 * 2**20, 64)
        (6, 64)
    """
    if device.type != "cpu":
        return max_batch
    return max(1, min(max_batch, _CPU_TENSOR_BYTES // max(1, bytes_each)))


def making_tensors_on(device: torch.device) -> AbstractContextManager[object]:
    """Have other packages make their tensors on a device, inside a ``with`` block.

    They name no device where they could, so that they would make them on the one of `torch.set_default_device`,
    which need not be that of the model. Nothing happens if it is.

    Args:
        device: The device.

    Returns:
        A context manager.
    """
    return nullcontext() if torch.get_default_device().type in ("cpu", device.type) else device
