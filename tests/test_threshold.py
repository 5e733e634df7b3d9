from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import cpath
from cpath import threshold
from cpath.threshold import any_true, check_sparsity, count_true, keep_above, keep_above_kth, pruned_count
from tests.oracles import threshold as oracle

BRACKETED = (1 << 16) + 1  # rows longer than this are thresholded by way of a sample

sparsities = st.one_of(
    st.sampled_from([0, 0.0, 10, 50, 80, 80.1, 90, 98.6, 99, 99.9, 1e-5]),
    st.decimals(0, "99.99", places=2).map(float),
    st.floats(0, 100, exclude_max=True),
)
# Few different values, so that ties and zeros are common.
tied = st.sampled_from([0.0, 0.0, 0.0, 0.125, 0.25, 1.0, 3.0, 1e-7])
magnitudes = st.one_of(tied, st.floats(0, 1e4, width=32))


def assert_keeps_what_sorting_keeps(scores: Tensor, sparsity: float) -> None:
    masks = keep_above(scores, sparsity)
    assert masks.dtype == torch.bool
    for row, mask in zip(scores, masks, strict=True):
        assert oracle.trues(mask.tolist()) == oracle.kept(row.tolist(), sparsity)


@given(st.lists(magnitudes, min_size=1, max_size=60), sparsities)
@settings(max_examples=300)
def test_short_rows_keep_what_sorting_keeps(values, sparsity):
    assert_keeps_what_sorting_keeps(torch.tensor([values], dtype=torch.float64), sparsity)


@given(
    st.integers(1, 4),
    st.integers(1, 30),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    sparsities,
    st.data(),
)
def test_batches_of_every_float_type_keep_what_sorting_keeps(batch, neurons, dtype, sparsity, data):
    values = data.draw(st.lists(magnitudes, min_size=batch * neurons, max_size=batch * neurons))
    scores = torch.tensor(values, dtype=torch.float64).view(batch, neurons).to(dtype)
    assert_keeps_what_sorting_keeps(scores, sparsity)


def long_row(kind: str, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = {
        "uniform": lambda: rng.random(n),
        "heavy": lambda: rng.standard_cauchy(n),
        "mostly zero": lambda: rng.random(n) * (rng.random(n) < 0.03),
        "few values": lambda: rng.integers(0, 4, n) / 4,
        "constant": lambda: np.full(n, 0.7),
        "zero": lambda: np.zeros(n),
        "sorted": lambda: np.sort(rng.random(n)),
        "one large": lambda: np.where(np.arange(n) == n // 2, 1.0, 0.0),
        "subnormal": lambda: rng.integers(0, 50, n) * 1e-44,
    }
    if kind in values:
        return np.abs(values[kind]())
    stride = int(kind.removeprefix("every "))
    row = rng.random(n)
    row[::stride] += 10
    return row


LONG_ROWS = [
    "uniform",
    "heavy",
    "mostly zero",
    "few values",
    "constant",
    "zero",
    "sorted",
    "one large",
    "subnormal",
]


@pytest.mark.parametrize("kind", [*LONG_ROWS, *(f"every {stride}" for stride in (4, 11, 13, 17))])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_long_rows_keep_what_sorting_keeps(kind, dtype):
    # Many lengths, because the stride of the sample depends on it.
    for seed, n in enumerate((BRACKETED, 200_003, 4 * BRACKETED)):
        scores = torch.from_numpy(long_row(kind, n, seed)[None]).to(dtype)
        ordered = np.sort(scores[0].double().numpy())
        for sparsity in (0, 0.001, 50, 80.1, 97, 99.99, 99.9999):
            k = oracle.pruned(sparsity, n)
            expected = scores[0].double() > (ordered[k - 1] if k else 0.0)
            assert torch.equal(keep_above(scores, sparsity)[0], expected), (n, sparsity)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_rows_shared_out_among_threads_keep_what_sorting_keeps():
    scores = torch.from_numpy(np.stack([long_row(kind, 2 * BRACKETED, 7) for kind in LONG_ROWS]))
    for ks in ([100_000] * len(scores), [1 + 14_000 * row for row in range(len(scores))]):
        masks = keep_above_kth(scores, ks)
        for row, k, mask in zip(scores, ks, masks, strict=True):
            assert torch.equal(mask, row > row.sort().values[k - 1])


@pytest.mark.parametrize("kind", ["uniform", "heavy", "mostly zero", "few values", "zero", "sorted", "one large"])
def test_only_a_part_of_a_long_row_is_ever_partitioned(kind, monkeypatch):
    n = 4 * BRACKETED
    sizes = []
    original = np.partition
    monkeypatch.setattr(np, "partition", lambda a, *args: (sizes.append(len(a)), original(a, *args))[1])
    scores = torch.from_numpy(long_row(kind, n, 0)[None])
    for sparsity in (10, 50, 80, 90, 97, 99):
        keep_above(scores, sparsity)
    assert 0 < max(sizes) < n


@given(st.integers(BRACKETED, BRACKETED + 4000), st.integers(0, 99), st.data())
@settings(max_examples=15)
def test_long_rows_whose_sample_lies_keep_what_sorting_keeps(n, seed, data):
    # The sample takes every stride-th value; there the row holds the opposite of what it holds elsewhere.
    rng = np.random.default_rng(seed)
    row = rng.random(n).astype(np.float32)
    sampled = n // threshold._SAMPLE
    while np.gcd(sampled, 210) > 1:
        sampled += 1
    row[::sampled] = data.draw(st.sampled_from([0.0, 1e-3, 0.5, 2.0, 1e30]))
    row[1::sampled] = data.draw(st.sampled_from([0.0, 0.5, 3.0]))
    sparsity = data.draw(st.sampled_from([1, 20, 50, 80, 90, 99, 99.9]))
    scores = torch.from_numpy(row[None])
    ordered = np.sort(row)
    expected = scores[0] > float(ordered[oracle.pruned(sparsity, n) - 1])
    assert torch.equal(keep_above(scores, sparsity)[0], expected)


@given(st.lists(magnitudes, min_size=1, max_size=40), sparsities, sparsities)
def test_higher_sparsity_keeps_a_subset(values, one, other):
    scores = torch.tensor([values], dtype=torch.float64)
    few, many = keep_above(scores, max(one, other)), keep_above(scores, min(one, other))
    assert not (few & ~many).any()


@given(st.lists(magnitudes, min_size=1, max_size=40), sparsities)
def test_at_least_k_neurons_and_every_zero_are_pruned(values, sparsity):
    scores = torch.tensor([values], dtype=torch.float64)
    mask = keep_above(scores, sparsity)
    assert int((~mask).sum()) >= oracle.pruned(sparsity, len(values))
    assert not mask[scores == 0].any()


@given(st.permutations(range(1, 41)), sparsities)
def test_exactly_k_neurons_are_pruned_where_nothing_is_tied(values, sparsity):
    scores = torch.tensor([list(values)], dtype=torch.float64)
    assert int((~keep_above(scores, sparsity)).sum()) == oracle.pruned(sparsity, 40)


@given(sparsities, st.integers(1, 10**8))
def test_pruned_count_is_that_of_the_decimal_number(sparsity, neurons):
    assert pruned_count(float(sparsity), neurons) == oracle.pruned(float(sparsity), neurons)


def test_decimal_sparsities_are_not_rounded_up_by_their_float():
    # 80.1 / 100 · 1000 is 801.0000000000001 in floats, which would prune one neuron too many.
    assert pruned_count(80.1, 1000) == 801
    assert pruned_count(0.07, 10_000) == 7
    assert pruned_count(57.0, 100) == 57
    assert pruned_count(1e-05, 10_000_000) == 1
    assert pruned_count(0.0, 5) == 0
    scores = torch.arange(1, 1001, dtype=torch.float32)[None]
    assert int(keep_above(scores, 80.1).sum()) == 199


def test_rows_are_thresholded_each_on_its_own():
    scores = torch.tensor([[1.0, 2, 3, 4], [40, 30, 20, 10], [0, 0, 0, 7]])
    assert keep_above(scores, 50).tolist() == [
        [False, False, True, True],
        [True, True, False, False],
        [False, False, False, True],
    ]


def test_strided_scores_are_thresholded_as_their_copy():
    scores = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)).T
    assert torch.equal(keep_above(scores, 60), keep_above(scores.contiguous(), 60))


def test_scores_are_not_changed():
    scores = torch.rand(2, BRACKETED, generator=torch.Generator().manual_seed(0))
    before = scores.clone()
    keep_above(scores, 90)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("sparsity", [-1, -1e-9, 100, 100.5, 1e9, float("nan"), float("inf"), "x", None, [90], 1j])
def test_sparsity_outside_its_range_is_refused(sparsity):
    with pytest.raises(cpath.InputError, match="sparsity"):
        check_sparsity(sparsity)


@pytest.mark.parametrize("sparsity", [0, 90, 99.99, np.float32(50), np.int64(3), torch.tensor(12.5), "80.1"])
def test_sparsity_is_taken_from_any_number(sparsity):
    value = check_sparsity(sparsity)
    assert type(value) is float
    assert value == float(sparsity)


def counts(masks: Sequence[Sequence[bool]]) -> list[int]:
    return [len(oracle.trues(mask)) for mask in masks]


@given(st.integers(1, 4), st.integers(0, 20), st.data())
def test_count_true_counts_each_row(batch, neurons, data):
    masks = data.draw(
        st.lists(st.lists(st.booleans(), min_size=neurons, max_size=neurons), min_size=batch, max_size=batch)
    )
    tensor = torch.tensor(masks, dtype=torch.bool).view(batch, neurons)
    assert count_true(tensor).tolist() == counts(masks)
    assert count_true(tensor[:, ::2]).tolist() == counts([mask[::2] for mask in masks])


def test_rows_with_a_true_are_told_from_those_without():
    masks = torch.zeros(4, 1000, dtype=torch.bool)
    masks[1, 0] = masks[2, 999] = True
    assert any_true(masks) == [False, True, True, False]
    assert any_true(masks[:, 1:]) == [False, False, True, False]
