"""Differences between devices: the types that they have, and the one on which torch makes new tensors."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

WITHOUT_FLOAT64 = {"mps"}
"""Types of devices that have no float64."""


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
