"""Datasets and the images of an experiment: loaded as configured, decoded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpath.data import ImageData
from cpath.errors import InputError
from experiments.engine.config import Config
from experiments.engine.digests import named_code
from experiments.engine.instantiate import instantiated


def load_data(config: Config) -> ImageData:
    """Load the dataset of a configuration.

    Args:
        config: names the dataset.

    Returns:
        The dataset. One that does not say what determines its images is identified by its configuration and code.

    Raises:
        InputError: if it cannot be made, or is no `cpath.data.ImageData`.
    """
    data = instantiated(config.dataset, "dataset", leave_out=("name", "published_as"))
    if not isinstance(data, ImageData):
        raise InputError(f"dataset._target_ must return cpath.data.ImageData, not {type(data).__name__}.")
    if data.settings:
        return data
    return replace(data, settings={**config.dataset, "code": named_code(config.dataset)})


@dataclass(frozen=True)
class Images:
    """Test images of an experiment, in the order in which it takes them."""

    data: ImageData
    """Dataset that they are from."""
    indices: Tensor
    """(N,) places in the test split."""
    device: torch.device
    """Device that they are put on."""
    dtype: torch.dtype = torch.float32
    """Type of their numbers, that of the model."""

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def ids(self) -> list[str]:
        """A stable name for each image."""
        return [self.data.test.ids[int(index)] for index in self.indices]

    def batch(self, where: slice) -> Tensor:
        """Decode some of the images.

        Args:
            where: places among the images of the experiment.

        Returns:
            (B, C, H, W), normalised, on the device.
        """
        return self.data.test.batch(self.indices[where]).to(self.device, self.dtype)

    def batches(self, size: int) -> Iterator[Batch]:
        """Divide the images into batches; none is decoded yet.

        Args:
            size: images in a batch; the last one may be smaller.

        Returns:
            The batches in turn.
        """
        for number, start in enumerate(range(0, len(self), size)):
            yield Batch(self, number, slice(start, min(start + size, len(self))))


@dataclass(frozen=True)
class Batch:
    """Some of the images of an experiment."""

    source: Images
    """All images of the experiment."""
    number: int
    """Place among the batches, from 0."""
    where: slice
    """Places of its images among all."""

    def __len__(self) -> int:
        return int(self.where.stop - self.where.start)

    @property
    def ids(self) -> list[str]:
        """A stable name for each image."""
        return self.source.ids[self.where]

    @cached_property
    def images(self) -> Tensor:
        """Images (B, C, H, W), normalised, on the device; decoded when first asked for, and only then."""
        return self.source.batch(self.where)

    @cached_property
    def pixels(self) -> np.ndarray:
        """(B, H, W, C) pixels in [0, 1], to be shown."""
        return pixels_of(self.source.data, self.images)


def pixels_of(data: ImageData, images: Tensor) -> np.ndarray:
    """Pixels to be shown of normalised images.

    Args:
        data: dataset with the normalisation.
        images: (B, C, H, W), normalised.

    Returns:
        (B, H, W, C) in [0, 1].
    """
    pixels = data.normalisation.invert(images.cpu()).clamp(0, 1)
    return np.asarray(pixels.permute(0, 2, 3, 1).numpy())


def identity_of(data: ImageData) -> dict[str, Any]:
    """Collect everything that determines the images of a dataset, for keys of the cache.

    Args:
        data: the dataset.

    Returns:
        Plain containers.
    """
    return dict(data.settings)
