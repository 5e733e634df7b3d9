"""Thresholds by sorting Python numbers, overlaps by Python sets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal, localcontext


def pruned(sparsity: float, neurons: int) -> int:
    """⌈s / 100 · N⌉ of the decimal number as it is written."""
    with localcontext() as context:
        context.prec = 60
        return int((Decimal(str(sparsity)) * neurons / 100).to_integral_value(ROUND_CEILING))


def kept(scores: Sequence[float], sparsity: float) -> set[int]:
    """Indices of the neurons of one image in its pathway."""
    k = pruned(sparsity, len(scores))
    threshold = sorted(scores)[k - 1] if k else 0.0
    return {index for index, score in enumerate(scores) if score > threshold and score > 0}


def share(part: set[int], whole: set[int]) -> float:
    return len(part) / len(whole) if whole else math.nan


def jaccard(one: set[int], other: set[int]) -> float:
    return share(one & other, one | other)


def trues(mask: Sequence[bool]) -> set[int]:
    return {index for index, value in enumerate(mask) if value}
