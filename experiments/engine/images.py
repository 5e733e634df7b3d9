"""Datasets and the images of an experiment: loaded as configured, decoded a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cpath.data import ImageData, InputData, InputSplit
from cpath.errors import InputError
from cpath.inputs import Inputs
from experiments.engine.config import Config
from experiments.engine.digests import named_code
from experiments.engine.instantiate import instantiated

Data = ImageData | InputData
"""Dataset of images, or of inputs of another kind."""


def load_data(config: Config) -> Data:
    """Load the dataset of a configuration.

    Args:
        config: names the dataset.

    Returns:
        The dataset. One that does not say what determines its images is identified by its configuration and code;
        of a function that returns inputs and labels, the classes are named by their numbers.

    Raises:
        InputError: if it cannot be made, or is no dataset.
    """
    data = instantiated(config.dataset, "dataset", leave_out=("name", "published_as"))
    if isinstance(data, tuple) and len(data) == 2:
        split = InputSplit(*data)
        classes = tuple(str(number) for number in range(int(split.labels.max()) + 1))
        data = InputData(config.dataset_name, classes, split)
    if not isinstance(data, Data):
        raise InputError(
            "dataset._target_ must return cpath.data.ImageData or InputData, or inputs and labels, "
            f"not {type(data).__name__}."
        )
    if data.settings:
        return data
    return replace(data, settings={**config.dataset, "code": named_code(config.dataset)})


@dataclass(frozen=True)
class Images:
    """Test images of an experiment, in the order in which it takes them."""

    data: Data
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

    def inputs(self, where: slice) -> Inputs:
        """Read some of the inputs, images or not.

        Args:
            where: places among those of the experiment.

        Returns:
            The inputs, on the device.
        """
        return Inputs.of(self.data.test.batch(self.indices[where])).to(self.device, self.dtype)

    def batch(self, where: slice) -> Tensor:
        """Decode some of the images.

        Args:
            where: places among the images of the experiment.

        Returns:
            (B, C, H, W), normalised, on the device.
        """
        return self.inputs(where).first

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
        return self.inputs.first

    def first(self, count: int) -> Batch:
        """Take its first images alone.

        Args:
            count: how many.

        Returns:
            A batch of them.
        """
        return Batch(self.source, self.number, slice(self.where.start, self.where.start + count))

    @property
    def indices(self) -> Tensor:
        """(B,) places of its images in the test split."""
        return self.source.indices[self.where]

    @property
    def labels(self) -> Tensor:
        """(B,) labels, on the device."""
        return self.source.data.test.labels[self.indices].to(self.source.device)

    @cached_property
    def inputs(self) -> Inputs:
        """Inputs of any kind, on the device; images are decoded when first asked for, and only then."""
        return self.source.inputs(self.where)

    @cached_property
    def pixels(self) -> np.ndarray:
        """(B, H, W, C) pixels in [0, 1], to be shown."""
        assert isinstance(self.source.data, ImageData)
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


def example(data: Data, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Inputs:
    """Input of a dataset's kind and size, to run a network on once.

    Args:
        data: the dataset.
        device: device of the input.
        dtype: type of its floats.

    Returns:
        Zeros in place of an image, which is not decoded for it; else the first input.
    """
    if isinstance(data, ImageData):
        return Inputs.of(torch.zeros(1, *data.shape, device=device, dtype=dtype))
    return data.test.batch(torch.tensor([0])).to(device, dtype)


def identity_of(data: Data) -> dict[str, Any]:
    """Collect everything that determines the images of a dataset, for keys of the cache.

    Args:
        data: the dataset.

    Returns:
        Plain containers.
    """
    return dict(data.settings)
