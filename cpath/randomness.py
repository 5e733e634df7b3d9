"""Random numbers that belong to an image, not to the batch that it is in."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor


def image_generators(images: Tensor, seed: int, stream: str) -> list[torch.Generator]:
    """One CPU random generator per image, seeded by ``seed``, the name ``stream`` and the image's own bytes.

    The same image draws the same numbers in any batch, in any order, on any device. ``stream`` says what the
    numbers are for: two methods with one seed must not draw the same ones.
    """
    start = (seed * 0x9E3779B1 + zlib.crc32(stream.encode())) * 0x9E3779B1
    generators = []
    for image in images.detach().resolve_neg().cpu().contiguous():
        digest = zlib.crc32(image.view(torch.uint8).numpy().tobytes())
        generators.append(torch.Generator().manual_seed((start + digest) % 2**63))
    return generators
