from __future__ import annotations

import numpy as np
import scipy.ndimage
import torch
from torch import Tensor

import cpath
from tests import zoo


def test_sobel(images64: Tensor) -> None:
    grey = images64.mean(1).numpy()
    edges = [np.hypot(*(scipy.ndimage.sobel(image, axis, mode="nearest") for axis in (0, 1))) for image in grey]
    found = cpath.attribute(zoo.make("fire", torch.float64), images64, "sobel")
    assert np.allclose(found[:, 0].numpy(), edges)


def test_random_is_uniform_and_seeded() -> None:
    model, images = zoo.make("fire"), zoo.images(4, 64)
    first, second = (cpath.attribute(model, images, "random", seed=seed) for seed in (0, 1))
    assert 0 <= first.min() < 0.01 < 0.99 < first.max() < 1
    assert abs(float(first.mean()) - 0.5) < 0.01
    correlation = np.corrcoef([first[0].flatten(), first[1].flatten(), second[0].flatten()])
    assert np.abs(correlation - np.eye(3)).max() < 0.1
