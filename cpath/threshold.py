"""Pruning at a sparsity: the neurons with the smallest scores of the whole network go.

With N scores in a row and a sparsity s in per cent, let k = ⌈s / 100 · N⌉ and t the k-th smallest score. The
neurons that score above t are kept, all others are pruned. Of eight neurons at 50 % that is k = 4:

    >>> from cpath.threshold import keep_above
    >>> scores = torch.tensor([[0.1, 0.4, 0.2, 0.3, 0.8, 0.5, 0.7, 0.6]])  # t = 0.4
    >>> keep_above(scores, 50).int()
    tensor([[0, 0, 0, 0, 1, 1, 1, 1]], dtype=torch.int32)

A tie is never split. Here three neurons share the score t = 0.3: to keep any one of them rather than another
would be arbitrary, so all three are pruned, and the realised sparsity is 62.5 % instead of 50 %:

    >>> scores = torch.tensor([[0.1, 0.2, 0.3, 0.3, 0.3, 0.5, 0.6, 0.7]])
    >>> keep_above(scores, 50).int()
    tensor([[0, 0, 0, 0, 0, 1, 1, 1]], dtype=torch.int32)

A score of zero says that a neuron contributes nothing, so it is never kept, not even at 0 %:

    >>> scores = torch.tensor([[0.0, 0.2, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0]])
    >>> keep_above(scores, 0).int()
    tensor([[0, 1, 0, 0, 0, 1, 0, 0]], dtype=torch.int32)

The k-th smallest of millions of scores is found exactly, for about the cost of reading them once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cpath.errors import InputError, described

T = TypeVar("T")

_SAMPLE = 1 << 14
_SMALL = 1 << 16
_BLOCK = 1 << 17


def check_sparsity(sparsity: float) -> float:
    """Check that a sparsity is usable.

    Args:
        sparsity: Per cent of the neurons to prune.

    Returns:
        ``sparsity`` as a float.

    Raises:
        InputError: If it is not a number in 0 ≤ sparsity < 100.
    """
    try:
        value = math.nan if isinstance(sparsity, (bool, np.bool_, bytes)) else float(sparsity)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        value = math.nan
    if math.isnan(value):
        raise InputError(f"sparsity must be a number, not {described(sparsity)}.")
    if not 0 <= value < 100:
        hint = " (per cent, not a fraction)" if value >= 100 else ""
        raise InputError(
            f"sparsity is the per cent of neurons to prune, 0 ≤ sparsity < 100{hint}; got {value:.15g}."
        )
    return value


def per_cent_of(percent: float, count: int) -> Fraction:
    """Take a percentage of a count without rounding.

    Args:
        percent: A percentage, read as the decimal number that was written and not as its nearest float.
        count: The whole.

    Returns:
        percent / 100 · count, exact.

    Example:
        >>> from cpath.threshold import per_cent_of
        >>> per_cent_of(1.1, 1000), 1.1 / 100 * 1000
        (Fraction(11, 1), 11.000000000000002)
    """
    return Fraction(repr(float(percent))) * count / 100


def pruned_count(sparsity: float, neurons: int) -> int:
    """Count the neurons to prune, ⌈sparsity / 100 · neurons⌉.

    Args:
        sparsity: Per cent of the neurons to prune.
        neurons: Number of all neurons.

    Returns:
        Number of neurons to prune.
    """
    return math.ceil(per_cent_of(sparsity, neurons))


def keep_above(scores: Tensor, sparsity: float) -> Tensor:
    """Mark the scores above the k-th smallest of their row, k = ⌈sparsity / 100 · N⌉.

    Scores that tie with the k-th smallest are all pruned, and so is every zero.

    Args:
        scores: Non-negative scores (B, N).
        sparsity: Per cent to prune, 0 ≤ sparsity ≤ 100.

    Returns:
        Masks (B, N), bool, True for a kept neuron.
    """
    return keep_above_kth(scores, [pruned_count(sparsity, scores.shape[1])] * len(scores))


def keep_above_kth(scores: Tensor, ks: Sequence[int]) -> Tensor:
    """Mark the scores above the k-th smallest of their row.

    Scores that tie with the k-th smallest are all False, and so is every zero.

    Args:
        scores: Non-negative scores (B, N).
        ks: One k for each row, 0 ≤ k ≤ N.

    Returns:
        Masks (B, N), bool.
    """
    if scores.dtype == torch.bfloat16:  # unknown to NumPy; exact in float32
        scores = scores.float()
    masks = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    for_each_row(_keep_row_above_kth, scores.contiguous(), ks, masks)
    return masks


def for_each_row(work: Callable[..., T], values: Tensor, *others: Sequence[Any] | Tensor) -> list[T]:
    """Call a function for each row of a tensor.

    On a CPU the rows are shared among torch's threads. This is meant for work by NumPy, which is often several
    times faster than torch on one thread and releases the interpreter's lock meanwhile.

    Args:
        work: The function, called with a row of ``values`` and the matching element of each of ``others``.
        values: Tensor (B, N).
        *others: Further arguments of ``work``, with B elements each.

    Returns:
        The return values of ``work``, in the order of the rows.
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
    """Write ``values`` > (their k-th smallest) into ``mask``.

    A sample gives two values between which the k-th smallest most likely lies. One pass counts the values above
    the upper one and collects those between, among which the exact k-th is then selected. If the sample was
    misleading, the selection runs over the whole row.
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
    """Find two values around the k-th smallest, ``low`` < it ≤ ``high``, five standard deviations to each side."""
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
    """Count the True in each row, many times faster than `sum` on a CPU.

    Args:
        masks: Booleans (B, N).

    Returns:
        Counts (B,), int64.
    """
    if masks.device.type != "cpu":
        return masks.sum(1)
    return torch.tensor([np.count_nonzero(row) for row in masks.numpy()], dtype=torch.int64, device="cpu")


def any_true(masks: Tensor) -> list[bool]:
    """Check which rows hold a True. On a CPU a row is read no further than its first True.

    Args:
        masks: Booleans (B, N).

    Returns:
        One bool for each row.
    """
    if masks.device.type != "cpu":
        return [bool(found) for found in masks.any(1).tolist()]
    return [bool(row.any()) for row in masks.numpy()]
