from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import cpath
from cpath.evaluation import NoisyLinear, rank_pixels, remove_pixels, removed_pixels
from tests import zoo
from tests.oracles import removal as oracle

PERCENTS = st.one_of(st.just(0), st.just(100), st.integers(0, 100), st.floats(0, 100, allow_subnormal=False))


def distinct(shape: tuple[int, ...], seed: int) -> Tensor:
    """Numbers of either sign of which no two have the same magnitude."""
    generator = torch.Generator().manual_seed(seed)
    size = int(np.prod(shape))
    sign = 2 * torch.randint(2, (size,), generator=generator) - 1
    return ((torch.randperm(size, generator=generator) + 1) * sign).double().view(shape)


@given(
    seed=st.integers(0, 1000),
    size=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    percent=PERCENTS,
    order=st.sampled_from(["most", "least"]),
    keep=st.booleans(),
    rank_by=st.sampled_from(["absolute", "signed"]),
)
def test_equals_the_oracle(
    seed: int, size: tuple[int, int, int, int], percent: float, order: str, keep: bool, rank_by: str
) -> None:
    images = zoo.images(size[0], 8)[:, :1].repeat(1, size[1], 1, 1)[:, :, : size[2], : size[3]]
    maps = distinct((size[0], 1, *size[2:]), seed)
    fill = [0.5 * channel for channel in range(size[1])]
    ranks = rank_pixels(maps, images, rank_by=rank_by)
    found = remove_pixels(images, ranks, percent, order=order, keep=keep, fill=fill)
    relevance = maps[:, 0].abs() if rank_by == "absolute" else maps[:, 0]
    for image, its, result in zip(images, relevance, found, strict=True):
        expected = oracle.remove(image.numpy(), its.numpy(), percent, order == "most", keep, fill)
        assert np.array_equal(result.numpy(), expected)


@given(
    levels=st.integers(1, 4),
    seed=st.integers(0, 1000),
    percent=PERCENTS,
    order=st.sampled_from(["most", "least"]),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
)
def test_ties(levels: int, seed: int, percent: float, order: str, size: tuple[int, int]) -> None:
    """Exactly as many pixels as asked for, and none less relevant than one that stayed."""
    images = zoo.images()[:, :, : size[0], : size[1]]
    maps = torch.randint(levels, (3, 1, *size), generator=torch.Generator().manual_seed(seed)).float()
    ranks = rank_pixels(maps, images, seed=seed)
    pixels = size[0] * size[1]
    assert torch.equal(ranks.flatten(1).sort(1).values, torch.arange(pixels, dtype=torch.int32).expand(3, -1))
    removed = removed_pixels(ranks, percent, order=order)
    assert (removed.flatten(1).sum(1) == oracle.count(percent, pixels)).all()
    for its, gone in zip(maps[:, 0], removed, strict=True):
        if gone.any() and not gone.all():
            if order == "most":
                assert its[gone].min() >= its[~gone].max()
            else:
                assert its[gone].max() <= its[~gone].min()


@given(first=PERCENTS, second=PERCENTS, order=st.sampled_from(["most", "least"]))
def test_nested(first: float, second: float, order: str) -> None:
    images = zoo.images()
    ranks = rank_pixels(torch.zeros(3, 1, 8, 8), images)
    less, more = (removed_pixels(ranks, percent, order=order) for percent in sorted((first, second)))
    assert not (less & ~more).any()


def test_nothing_removed_is_the_identity_bit_for_bit() -> None:
    images = zoo.images()
    images[0, 0, 0, 0], images[0, 0, 0, 1] = float("nan"), -0.0
    ranks = rank_pixels(torch.zeros(3, 1, 8, 8), images)
    for settings in ({}, {"keep": True}, {"order": "least"}, {"fill": NoisyLinear()}):
        found = remove_pixels(images, ranks, 0, **settings)
        assert torch.equal(found.view(torch.int32), images.view(torch.int32))
        assert found.data_ptr() != images.data_ptr()
    all_kept = remove_pixels(images, ranks, 100, keep=True)
    assert torch.equal(all_kept.view(torch.int32), images.view(torch.int32))


def test_what_stays_stays_bit_for_bit_and_the_input_is_not_changed() -> None:
    images, before = zoo.images(), zoo.images()
    ranks = rank_pixels(zoo.images(seed=1), images)
    for fill in (0.25, [1, 2, 3], torch.tensor([1.0, 2, 3]), NoisyLinear()):
        found = remove_pixels(images, ranks, 30, fill=fill)
        gone = removed_pixels(ranks, 30).unsqueeze(1).expand_as(images)
        assert torch.equal(found[~gone], images[~gone])
        assert (found[gone] != images[gone]).all()
        assert torch.equal(images, before)


def test_everything_removed() -> None:
    images = zoo.images()
    ranks = rank_pixels(zoo.images(seed=1), images)
    colour = torch.tensor([1.0, 2.0, 3.0])
    found = remove_pixels(images, ranks, 100, fill=colour)
    assert torch.equal(found, colour.view(1, 3, 1, 1).expand(3, 3, 8, 8))
    one = zoo.images(size=1)
    ranks = rank_pixels(one, one)
    assert torch.equal(remove_pixels(one, ranks, 49), one)
    assert torch.equal(remove_pixels(one, ranks, 50), torch.zeros_like(one))


def test_keep_is_the_complement() -> None:
    images = zoo.images()
    ranks = rank_pixels(zoo.images(seed=1), images)
    for percent in (10, 50, 99):
        removed = removed_pixels(ranks, percent)
        assert torch.equal(removed_pixels(ranks, percent, keep=True), ~removed)
        assert removed.sum() == 3 * oracle.count(percent, 64)


def test_random_order_of_ties() -> None:
    images, flat = zoo.images(8), torch.zeros(8, 1, 8, 8)
    ranks = rank_pixels(flat, images)
    assert torch.equal(ranks, rank_pixels(flat, images))
    assert torch.equal(ranks[3:4], rank_pixels(flat[3:4], images[3:4]))  # whatever the batch
    assert not torch.equal(ranks, rank_pixels(flat, images, seed=1))
    assert len({tuple(row) for row in ranks.flatten(1).tolist()}) == 8  # images differ
    many = rank_pixels(torch.zeros(400, 1, 4, 4), zoo.images(400, 4)).float()
    assert (many.mean(0) - 7.5).abs().max() < 1.2  # four standard errors: no place is preferred


def test_no_channel_is_left_out_of_the_ranking() -> None:
    maps = torch.zeros(1, 3, 2, 2)
    maps[0, 0, 0, 0], maps[0, 1, 0, 1], maps[0, 2, 1, 0], maps[0, :, 1, 1] = 1, -4, 3, torch.tensor([2, -2, 0.5])
    assert rank_pixels(maps, maps).tolist() == [[[3, 0], [1, 2]]]


@pytest.mark.parametrize("keep", [False, True])
def test_errors(keep: bool) -> None:
    images = zoo.images()
    ranks = rank_pixels(images, images)
    broken = images.clone()
    broken[1, 1, 2, 3] = float("nan")
    with pytest.raises(cpath.InputError, match="NaN"):
        rank_pixels(broken, images)
    for wrong in (images[:2], images[:, :, :4], images[0]):
        with pytest.raises(cpath.InputError, match="belong"):
            rank_pixels(wrong, images)
        with pytest.raises(cpath.InputError, match="belong"):
            remove_pixels(wrong, ranks, 10, keep=keep)
    for percent in (-1, 100.1, float("nan")):
        with pytest.raises(cpath.InputError, match="percent"):
            remove_pixels(images, ranks, percent, keep=keep)
    for fill in ([1, 2], torch.zeros(1, 3), float("nan")):
        with pytest.raises(cpath.InputError, match="fill"):
            remove_pixels(images, ranks, 10, keep=keep, fill=fill)
    with pytest.raises(cpath.UnknownNameError, match="order"):
        remove_pixels(images, ranks, 10, keep=keep, order="top")
    with pytest.raises(cpath.InputError, match="integers"):
        removed_pixels(images[:, 0], 10, keep=keep)


# Noisy linear imputation


@given(seed=st.integers(0, 100), percent=st.integers(1, 90), size=st.tuples(st.integers(2, 5), st.integers(2, 5)))
def test_imputation_equals_the_oracle(seed: int, percent: int, size: tuple[int, int]) -> None:
    images = zoo.images(1, 8, torch.float64, seed)[:, :2, : size[0], : size[1]]
    ranks = rank_pixels(torch.zeros(1, 1, *size), images, seed=seed)
    removed = removed_pixels(ranks, percent)
    if removed.all():
        return
    found = NoisyLinear(noise=0)(images, removed)
    expected = oracle.impute(images[0].numpy(), removed[0].numpy(), sweeps=400)
    assert np.allclose(found[0].numpy(), expected, atol=1e-6)


def test_imputation_weighs_direct_neighbours_twice() -> None:
    image = torch.tensor([[1.0, 2, 3], [4, 99, 6], [7, 8, 9]]).view(1, 1, 3, 3)
    removed = torch.zeros(1, 3, 3, dtype=torch.bool)
    removed[0, 1, 1] = True
    image[0, 0, 0, 0] = 13
    found = NoisyLinear(noise=0)(image, removed)
    assert float(found[0, 0, 1, 1]) == pytest.approx((2 + 4 + 6 + 8) / 6 + (13 + 3 + 7 + 9) / 12)


def test_imputation_of_a_ramp_is_the_ramp() -> None:
    ramp = torch.arange(12.0).repeat(12, 1).view(1, 1, 12, 12)
    removed = torch.zeros(1, 12, 12, dtype=torch.bool)
    removed[0, 3:9, 2:10] = True
    assert torch.allclose(NoisyLinear(noise=0)(ramp, removed), ramp, atol=1e-4)


def test_imputation_noise_is_small_seeded_and_each_images_own() -> None:
    images = zoo.images(4, 32)
    removed = removed_pixels(rank_pixels(images, images), 50)
    clean = NoisyLinear(noise=0)(images, removed)
    noisy = NoisyLinear(noise=0.02, seed=5)(images, removed)
    noise = (noisy - clean)[removed.unsqueeze(1).expand_as(images)]
    assert float(noise.std()) == pytest.approx(0.02, rel=0.05)
    assert torch.equal(noisy, NoisyLinear(noise=0.02, seed=5)(images, removed))
    alone = NoisyLinear(noise=0.02, seed=5)(images[2:3], removed[2:3])
    assert torch.equal(noisy[2:3], alone)


def test_imputation_needs_a_pixel_to_start_from() -> None:
    images = zoo.images()
    ranks = rank_pixels(images, images)
    with pytest.raises(cpath.InputError, match="every pixel"):
        remove_pixels(images, ranks, 100, fill=NoisyLinear())
    with pytest.raises(cpath.InputError):
        NoisyLinear(noise=-1)
