"""Copies of images that show the same to a person: noise, a shift by one pixel, a crop, mild compression.

All measures are relative to the image itself, so that it does not matter how it is normalised.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cpath.randomness import image_generators

_NOISE = 0.05  # standard deviations of the image
_BORDER = 16  # part of a side that a crop cuts off at each end
_BLOCK = 8  # pixels
_COARSENESS = 0.03  # standard deviations of the image, times the number of the frequency


def noise(images: Tensor, seed: int = 0) -> Tensor:
    """Add normal noise with a twentieth of the image's own standard deviation.

    Args:
        images: Floats (B, C, H, W).
        seed: Seed, combined with the image itself.

    Returns:
        The copies.

    Example:
        >>> change = cpath.evaluation.copies.noise(images) - images
        >>> (change.std() / images.std()).round(decimals=2)
        tensor(0.0500)
    """
    drawn = torch.stack(
        [
            torch.randn(images.shape[1:], generator=generator, device="cpu")
            for generator in image_generators(images, seed, "noise")
        ]
    )
    return images + _NOISE * _spread(images) * drawn.to(images)


def shift(images: Tensor) -> Tensor:
    """Move the image to the right by one pixel; the first column stays where it is, too.

    Args:
        images: Floats (B, C, H, W).

    Returns:
        The copies.

    Example:
        >>> moved = cpath.evaluation.copies.shift(images)
        >>> torch.equal(moved[..., 1:], images[..., :-1])
        True
    """
    return torch.cat([images[..., :1], images[..., :-1]], 3)


def crop(images: Tensor) -> Tensor:
    """Cut off a sixteenth at each side, at least one pixel, and scale the rest to the same size.

    Args:
        images: Floats (B, C, H, W), of more than two pixels in each direction.

    Returns:
        The copies.

    Example:
        >>> cpath.evaluation.copies.crop(images).shape
        torch.Size([2, 3, 8, 8])
    """
    height, width = images.shape[2:]
    rows, columns = max(1, height // _BORDER), max(1, width // _BORDER)
    inside = images[:, :, rows : height - rows, columns : width - columns]
    return F.interpolate(inside, (height, width), mode="bilinear", align_corners=False)


def compression(images: Tensor) -> Tensor:
    """Round the frequencies of blocks of 8 × 8 pixels, the higher the coarser, as JPEG does.

    Args:
        images: Floats (B, C, H, W).

    Returns:
        The copies.

    Example:
        >>> change = cpath.evaluation.copies.compression(images) - images
        >>> bool(0 < change.std() < 0.5 * images.std())
        True
    """
    height, width = images.shape[2:]
    padded = F.pad(images, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    rows, columns = padded.shape[2] // _BLOCK, padded.shape[3] // _BLOCK
    blocks = padded.view(*padded.shape[:2], rows, _BLOCK, columns, _BLOCK).transpose(3, 4)
    transform = _cosines().to(images)
    frequencies = transform @ blocks @ transform.T
    number = torch.arange(1, _BLOCK + 1, dtype=images.dtype, device=images.device)
    step = _COARSENESS * _spread(images)[..., None, None] * (number.unsqueeze(1) + number)
    coarse = transform.T @ ((frequencies / step).round() * step) @ transform
    return coarse.transpose(3, 4).reshape(padded.shape)[:, :, :height, :width].contiguous()


def _cosines() -> Tensor:
    """Matrix (8, 8) of the orthonormal discrete cosine transform."""
    place = torch.arange(_BLOCK, dtype=torch.float64)
    matrix = torch.cos(math.pi / _BLOCK * (place + 0.5) * place.unsqueeze(1)) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix


def _spread(images: Tensor) -> Tensor:
    """Standard deviation (B, 1, 1, 1) of each image; 1 for an image without any."""
    found = images.flatten(1).std(1).view(-1, 1, 1, 1)
    return torch.where(found > 0, found, 1)


COPIES: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": noise,
    "shift": shift,
    "crop": crop,
    "compression": compression,
}
"""Kinds of copies by name."""
