"""The handwritten digits that scikit-learn ships: real images, no download."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from cpath.checks import check_count
from cpath.data.base import ImageData, Normalisation, TensorSplit
from cpath.errors import InputError

_SPLIT_SEED = 0


def digits(size: int = 32, channels: int = 1) -> ImageData:
    """Load 1797 handwritten digits, 8×8 scans from UCI's optical recognition set, resized.

    They are split, always in the same way and with equal shares of the classes, into 1257 training, 180 validation
    and 360 test images.

    Args:
        size: Side of the images in pixels, at least 8.
        channels: Number of channels that repeat the grey one, for models that take 3.

    Returns:
        The dataset.

    Raises:
        InputError: If ``size`` or ``channels`` is too small.

    Example:
        >>> data = cpath.data.digits(size=16)
        >>> data.shape, len(data.train), len(data.val), len(data.test)
        ((1, 16, 16), 1257, 180, 360)
    """
    size, channels = check_count("size", size), check_count("channels", channels)
    if size < 8:
        raise InputError(f"digits need size ≥ 8, the size of the scans; got {size}.")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).float().unsqueeze(1) / 16
    pixels = F.interpolate(pixels, (size, size), mode="bilinear", align_corners=False, antialias=True)
    pixels = pixels.expand(-1, channels, -1, -1).contiguous()
    labels = torch.from_numpy(bunch.target).long()
    rest, test = train_test_split(
        torch.arange(len(labels), device="cpu"), test_size=360, stratify=labels, random_state=_SPLIT_SEED
    )
    train, val = train_test_split(rest, test_size=180, stratify=labels[rest], random_state=_SPLIT_SEED)
    mean, std = pixels[train].mean().item(), pixels[train].std().item()
    normalisation = Normalisation((mean,) * channels, (std,) * channels)

    def split(indices: torch.Tensor) -> TensorSplit:
        ids = [f"digit-{index:04d}" for index in indices.tolist()]
        return TensorSplit(pixels[indices], labels[indices], ids, normalisation)

    return ImageData(
        name="digits",
        classes=tuple(str(digit) for digit in range(10)),
        shape=(channels, size, size),
        normalisation=normalisation,
        test=split(test),
        train=split(train),
        val=split(val),
        settings={"name": "digits", "size": size, "channels": channels},
    )
