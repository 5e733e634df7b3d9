"""Random numbers that belong to an input, not to the batch that it is in."""

from __future__ import annotations

import zlib

import torch

from cpath.inputs import Given, Inputs


def seeded(seed: int) -> torch.Generator:
    """Make a random generator on the CPU, wherever torch's default device is.

    Args:
        seed: The seed.

    Returns:
        The generator. What is drawn from it must be made with ``device="cpu"``.
    """
    return torch.Generator("cpu").manual_seed(seed)


def image_generators(inputs: Given | Inputs, seed: int, stream: str) -> list[torch.Generator]:
    """Make one random generator for each input, seeded by the input itself: an image, or all its tensors.

    The same input draws the same numbers in any batch, in any order, on any device.

    Args:
        inputs: Inputs (B, …): a tensor such as images, a tuple or a mapping, see `cpath.inputs`.
        seed: Seed, combined with the input's own bytes.
        stream: Name of the purpose. Two methods with one seed must not draw the same numbers.

    Returns:
        B generators on the CPU.

    Example:
        >>> def draws(batch):
        ...     generators = cpath.methods.image_generators(batch, seed=0, stream="example")
        ...     return torch.cat([torch.rand(1, generator=generator) for generator in generators])
        >>> torch.equal(draws(images)[1:], draws(images[1:]))
        True
    """
    start = (seed * 0x9E3779B1 + zlib.crc32(stream.encode())) * 0x9E3779B1
    generators = []
    for tensors in Inputs.of(inputs).on_cpu().rows():
        digest = 0
        for tensor in tensors:
            digest = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().tobytes(), digest)
        generators.append(seeded((start + digest) % 2**63))
    return generators
