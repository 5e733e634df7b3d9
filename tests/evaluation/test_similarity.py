from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
import skimage.feature
import skimage.metrics
import torch

import cpath
from cpath.evaluation import MEASURES, Comparison
from cpath.evaluation.similarity import hog_cell
from tests import zoo

# Measures


@pytest.mark.parametrize("size", [64, 20])
def test_measures_equal_the_libraries(size: int) -> None:
    first, second = zoo.images(3, size, torch.float64), zoo.images(3, size, torch.float64, seed=1)
    second[1] = second[1].round()  # ties
    found = Comparison(first).to(second)
    assert set(found) == set(MEASURES) == {"spearman", "spearman_abs", "ssim", "hog"}
    for i in range(3):
        a, b = (cpath.single_channel(maps[i : i + 1])[0, 0].numpy() for maps in (first, second))
        assert found["spearman"][i] == pytest.approx(scipy.stats.spearmanr(a.ravel(), b.ravel()).statistic)
        absolute = scipy.stats.spearmanr(np.abs(a).ravel(), np.abs(b).ravel()).statistic
        assert found["spearman_abs"][i] == pytest.approx(absolute)
        a, b = ((one - one.min()) / (one.max() - one.min()) for one in (a, b))
        ssim = skimage.metrics.structural_similarity(a, b, win_size=5, data_range=1.0)
        assert found["ssim"][i] == pytest.approx(ssim)
        cell = 16 if size == 64 else 10
        hogs = [skimage.feature.hog(x, 9, (cell, cell), (1, 1)) for x in (a, b)]
        assert found["hog"][i] == pytest.approx(scipy.stats.pearsonr(*hogs).statistic)


def test_measures_of_equal_opposite_and_unrelated_maps() -> None:
    maps = zoo.images(4, 32)
    equal = Comparison(maps).to(3 * maps)
    assert all(np.allclose(values, 1) for values in equal.values())
    opposite = Comparison(maps).to(-maps)
    assert np.allclose(opposite["spearman"], -1)
    assert np.allclose(opposite["spearman_abs"], 1)
    noise = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert np.abs(Comparison(maps).to(noise)["spearman"]).max() < 0.15


def test_measures_where_they_are_undefined() -> None:
    maps, constant = zoo.images(), torch.ones(3, 1, 8, 8)
    for found in (Comparison(maps).to(constant), Comparison(constant).to(maps)):
        assert all(np.isnan(values).all() for values in found.values())
    tiny = Comparison(maps[:, :, :4, :4]).to(maps[:, :, 4:, 4:])
    assert np.isnan(tiny["ssim"]).all()
    assert np.isfinite(tiny["hog"]).all()
    assert [hog_cell(*size) for size in [(224, 224), (32, 32), (31, 64), (8, 8), (1, 5)]] == [16, 16, 15, 4, 0]
    assert np.isnan(Comparison(maps[:, :, :1]).to(maps[:, :, 1:2])["hog"]).all()
    with pytest.raises(cpath.UnknownNameError, match="measure"):
        Comparison(maps, ("pearson",))
    with pytest.raises(cpath.InputError, match="measures is empty"):
        Comparison(maps, ())
