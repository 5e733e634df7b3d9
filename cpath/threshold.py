"""Pruning at a sparsity: the exact k-th smallest of millions of scores, for about the cost of reading them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cpath.errors import InputError

T = TypeVar("T")

_SAMPLE = 1 << 14
_SMALL = 1 << 16
_BLOCK = 1 << 17


def check_sparsity(sparsity: float) -> float:
    """``sparsity`` as a float; raises `InputError` outside 0 ≤ sparsity < 100."""
    try:
        value = math.nan if isinstance(sparsity, (bool, np.bool_, bytes)) else float(sparsity)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if math.isnan(value):
        raise InputError(f"sparsity must be a number, not {sparsity!r}.")
    if not 0 <= value < 100:
        hint = " (per cent, not a fraction)" if value >= 100 else ""
        raise InputError(f"sparsity is the per cent of neurons to prune, 0 ≤ sparsity < 100{hint}; got {value:g}.")
    return value


def per_cent_of(percent: float, count: int) -> Fraction:
    """``percent`` per cent of ``count``, of the decimal number that was asked for, not of its nearest float."""
    return Fraction(repr(float(percent))) * count / 100


def pruned_count(sparsity: float, neurons: int) -> int:
    """⌈sparsity / 100 · neurons⌉."""
    return math.ceil(per_cent_of(sparsity, neurons))


def keep_above(scores: Tensor, sparsity: float) -> Tensor:
    """Masks (B, N), True where a score is above the k-th smallest of its row, k = ⌈sparsity / 100 · N⌉.

    ``scores`` (B, N), non-negative. Ties at the k-th smallest are all pruned, and so is every zero.
    """
    return keep_above_kth(scores, [pruned_count(sparsity, scores.shape[1])] * len(scores))


def keep_above_kth(scores: Tensor, ks: Sequence[int]) -> Tensor:
    """Masks (B, N), True where a score is above the k-th smallest of its row; ``ks`` one k a row, 0 ≤ k ≤ N.

    ``scores`` (B, N), non-negative. Ties at the k-th smallest are all False, and so is every zero.
    """
    if scores.dtype == torch.bfloat16:  # unknown to NumPy; exact in float32
        scores = scores.float()
    masks = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    for_each_row(_keep_row_above_kth, scores.contiguous(), ks, masks)
    return masks


def for_each_row(work: Callable[..., T], values: Tensor, *others: Sequence[Any] | Tensor) -> list[T]:
    """What ``work`` returns for each row of ``values`` (B, N) and what ``others`` have for it.

    On a CPU all of torch's threads share the rows: for work by NumPy, which is often several times faster than
    torch on one thread, and lets go of the interpreter meanwhile.
    """
    rows = list(zip(values, *others, strict=True))
    threads = min(torch.get_num_threads(), len(rows))
    if values.device.type == "cpu" and threads > 1 and values.shape[1] > _SMALL:
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda row: work(*row), rows))
    return [work(*row) for row in rows]


def _keep_row_above_kth(row: Tensor, k: int, mask: Tensor) -> None:
    if k == len(row):  # nothing is above the largest
        mask.fill_(False)
    elif row.device.type != "cpu":
        torch.gt(row, row.kthvalue(k).values if k else 0, out=mask)
    elif k == 0:
        np.greater(row.numpy(), 0, out=mask.numpy())
    else:
        _keep_above_kth(row.numpy(), k, mask.numpy())


def _keep_above_kth(values: np.ndarray, k: int, mask: np.ndarray) -> None:
    """Writes ``values`` > (their k-th smallest) into ``mask``.

    A sample tells two values that the k-th smallest most likely lies between. One pass counts what is above
    the upper one and collects what is between, where the exact k-th is then selected. Should the sample
    have misled, the selection runs over the whole row.
    """
    n = len(values)
    if n > _SMALL:
        low, high = _bracket(values, k)
        between = np.empty(_BLOCK, dtype=np.bool_)
        above, found = 0, []
        for start in range(0, n, _BLOCK):  # a block stays in the cache
            part, above_here = values[start : start + _BLOCK], mask[start : start + _BLOCK]
            between_here = between[: len(part)]
            np.greater(part, high, out=above_here)
            np.greater(part, low, out=between_here)
            np.not_equal(between_here, above_here, out=between_here)
            above += int(np.count_nonzero(above_here))
            found.append(np.flatnonzero(between_here) + start)
        candidates = np.concatenate(found)
        below = n - above - len(candidates)  # at most `low`
        if below < k <= n - above:
            selected = values[candidates]
            kth = np.partition(selected, k - below - 1)[k - below - 1]
            mask[candidates[selected > kth]] = True
            return
        if low == 0 and k <= below:  # the k-th smallest is a zero
            mask[candidates] = True
            return
    np.greater(values, np.partition(values, k - 1)[k - 1], out=mask)


def _bracket(values: np.ndarray, k: int) -> tuple[np.floating, np.floating]:
    """Two values around the k-th smallest, ``low`` < it ≤ ``high``, five standard deviations to each side."""
    n = len(values)
    stride = n // _SAMPLE
    while math.gcd(stride, 2 * 3 * 5 * 7) > 1:  # not in step with rows and channels
        stride += 1
    sample = values[::stride]
    m = len(sample)
    share = k / n
    spread = 5 * math.sqrt(m * share * (1 - share)) + 2
    first = max(0, math.floor(share * m - spread))
    last = min(m - 1, math.ceil(share * m + spread))
    ordered = np.partition(sample, [first, last])
    low, high = ordered[first], ordered[last]
    if low > 0:  # ties with `low` belong between
        low = np.nextafter(low, values.dtype.type(-1))
    return low, high


def count_true(masks: Tensor) -> Tensor:
    """(B,) number of True in each row of ``masks`` (B, N); many times faster than `sum` on a CPU."""
    if masks.device.type != "cpu":
        return masks.sum(1)
    return torch.tensor([np.count_nonzero(row) for row in masks.numpy()], dtype=torch.int64)


def any_true(masks: Tensor) -> list[bool]:
    """Whether each row of ``masks`` (B, N) has a True; on a CPU, no more of it is read than that takes."""
    if masks.device.type != "cpu":
        return [bool(found) for found in masks.any(1).tolist()]
    return [bool(row.any()) for row in masks.numpy()]
