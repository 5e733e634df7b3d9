"""Booleans packed eight to a byte."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def pack_bits(values: Tensor) -> Tensor:
    """Pack booleans, the first of eight in the highest bit.

    Args:
        values: Booleans (B, N).

    Returns:
        Bytes (B, ⌈N / 8⌉), uint8.

    Example:
        >>> from cpath.bits import pack_bits, unpack_bits
        >>> packed = pack_bits(torch.tensor([[True, False, False, False, False, False, True, True, True]]))
        >>> packed.tolist()
        [[131, 128]]
        >>> unpack_bits(packed, 9).int().tolist()
        [[1, 0, 0, 0, 0, 0, 1, 1, 1]]
    """
    if values.device.type == "cpu":
        return torch.from_numpy(np.packbits(values.numpy(), axis=1))
    padded = torch.nn.functional.pad(values.to(torch.uint8), (0, -values.shape[1] % 8))
    return (padded.view(len(values), -1, 8) << _shifts(values.device)).sum(2, dtype=torch.uint8)


def unpack_bits(packed: Tensor, count: int) -> Tensor:
    """Unpack what `pack_bits` packed.

    Args:
        packed: Bytes (B, ⌈count / 8⌉), uint8.
        count: Number of booleans N in a row.

    Returns:
        Booleans (B, N).
    """
    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), axis=1, count=count).view(np.bool_))
    bits = (packed.unsqueeze(2) >> _shifts(packed.device)) & 1
    return bits.bool().flatten(1)[:, :count]


def _shifts(device: torch.device) -> Tensor:
    return torch.arange(7, -1, -1, dtype=torch.uint8, device=device)
