"""Augmentation of training images: batched tensor operations, on the device of the images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cpath.checks import check_at_least


def crop_and_flip(images: Tensor, generator: torch.Generator, *, crop: int = 0, flip: bool = False) -> Tensor:
    """Crop and flip images at random, each on its own.

    Args:
        images: Normalised images (B, C, H, W), so that the zero padding has the mean colour.
        generator: Generator on the device of the images.
        crop: Number of padded pixels on each side, from which an image of the same size is cropped.
        flip: Flip every image horizontally with probability 1/2.

    Returns:
        Images (B, C, H, W).

    Raises:
        InputError: If ``crop`` is negative.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> cpath.data.crop_and_flip(images, generator, crop=2, flip=True).shape
        torch.Size([2, 3, 8, 8])
    """
    crop = check_at_least(0, "crop", crop)
    count, _, height, width = images.shape
    device = images.device
    if flip:
        flipped = torch.rand(count, generator=generator, device=device, dtype=torch.float32) < 0.5
        images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
    if crop:
        top, left = torch.randint(0, 2 * crop + 1, (2, count, 1, 1), generator=generator, device=device)
        rows = top + torch.arange(height, device=device).view(1, -1, 1)
        columns = left + torch.arange(width, device=device).view(1, 1, -1)
        padded = F.pad(images, (crop, crop, crop, crop))
        which = torch.arange(count, device=device).view(-1, 1, 1)
        images = padded[which, :, rows, columns].permute(0, 3, 1, 2)
    return images.contiguous()
