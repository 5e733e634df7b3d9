"""Noisy linear imputation: a fill from which the shape of the removed region is hard to read.

Source: Rong, Leemann, Borisov, Kasneci, Kasneci: A Consistent and Efficient Evaluation Strategy for Attribution
Methods (ROAD), ICML 2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cpath.checks import check_seed
from cpath.errors import InputError
from cpath.optional import optional
from cpath.randomness import image_generators

_NEIGHBOURS = [
    (down, right, 1 / 6 if down == 0 or right == 0 else 1 / 12)
    for down in (-1, 0, 1)
    for right in (-1, 0, 1)
    if (down, right) != (0, 0)
]
"""Offsets of the 8 neighbours and their weights: direct ones count twice as much as diagonal ones."""


@dataclass(frozen=True, kw_only=True)
class NoisyLinear:
    """Fill for `remove_pixels` that gives each removed pixel the weighted mean of its 8 neighbours, plus noise.

    Direct neighbours weigh 1/6, diagonal ones 1/12; at the image's border the weights of those inside are scaled up
    to the sum 1. Removed neighbours are unknowns themselves: the values solve one sparse linear system per image.

    Args:
        noise: Standard deviation of the noise, in units of the images' values.
        seed: Seed of the noise, which is drawn from it and the image itself.

    Raises:
        InputError: If a setting is out of range.

    Source: Rong et al., ICML 2022.

    Example:
        >>> fill = cpath.evaluation.NoisyLinear(noise=0.0)
        >>> removed = torch.zeros(1, 3, 3, dtype=torch.bool)
        >>> removed[0, 1, 1] = True  # the centre of an image that is 1 everywhere else
        >>> fill(torch.ones(1, 1, 3, 3).masked_fill(removed, 9.0), removed)[0, 0, 1, 1].item()
        1.0
    """

    noise: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.noise < 0:
            raise InputError(f"noise must not be negative, not {self.noise}.")

    def __call__(self, images: Tensor, removed: Tensor) -> Tensor:
        """Fill in removed pixels.

        Args:
            images: Images (B, C, H, W).
            removed: Booleans (B, H, W), True for a removed pixel.

        Returns:
            A copy of ``images`` with the removed pixels filled in.

        Raises:
            InputError: If every pixel of an image is removed.
            MissingPackageError: If SciPy is not installed.
        """
        if removed.flatten(1).all(1).any():
            raise InputError("an image has lost every pixel: linear imputation has nothing to interpolate from.")
        filled = images.clone()
        for image, gone, generator in zip(
            filled, removed, image_generators(images, self.seed, "imputation"), strict=True
        ):
            if gone.any():
                values = torch.from_numpy(solve(image.detach().cpu().double().numpy(), gone.cpu().numpy()))
                values += self.noise * torch.randn(
                    values.shape, generator=generator, dtype=torch.float64, device="cpu"
                )
                image[:, gone] = values.to(image)
        return filled


def solve(image: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Compute the values of the removed pixels, without noise.

    For removed pixel i, over its neighbours j in the image:
    Σ_j w_j x_i − Σ_{j removed} w_j x_j = Σ_{j known} w_j x_j.

    Args:
        image: One image (C, H, W).
        removed: Booleans (H, W), True for the n removed pixels.

    Returns:
        Values (C, n), in row-major order.
    """
    sparse = optional("scipy.sparse", "scipy>=1.13", "linear imputation")
    linalg = optional("scipy.sparse.linalg", "scipy>=1.13", "linear imputation")
    height, width = removed.shape
    rows, columns = np.nonzero(removed)
    unknowns = len(rows)
    number = np.full((height, width), -1)
    number[rows, columns] = np.arange(unknowns)
    diagonal, known = np.zeros(unknowns), np.zeros((unknowns, len(image)))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for down, right, weight in _NEIGHBOURS:
        y, x = rows + down, columns + right
        inside = np.flatnonzero((y >= 0) & (y < height) & (x >= 0) & (x < width))
        diagonal[inside] += weight
        there = number[y[inside], x[inside]]
        is_unknown = there >= 0
        from_unknown, from_known = inside[is_unknown], inside[~is_unknown]
        known[from_known] += weight * image[:, y[from_known], x[from_known]].T
        entries.append((from_unknown, there[is_unknown], np.full(len(from_unknown), -weight)))
    entries.append((np.arange(unknowns), np.arange(unknowns), diagonal))
    i, j, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    system = sparse.csc_matrix((values, (i, j)), shape=(unknowns, unknowns))
    # Symmetric and diagonally dominant: no pivoting is needed, and this ordering keeps the factors sparse.
    factors = linalg.splu(
        system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )
    return np.asarray(factors.solve(known)).T
