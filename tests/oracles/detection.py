"""Detection by loops over all pairs and all thresholds."""

from __future__ import annotations


def auroc(positives, negatives):
    wins = sum((mine > other) + 0.5 * (mine == other) for mine in positives for other in negatives)
    return wins / (len(positives) * len(negatives))


def fpr_at(positives, negatives, tpr=0.95):
    """Share of the negatives at or above the highest threshold that finds that share of the positives."""
    for threshold in sorted({*positives, *negatives}, reverse=True):
        if sum(mine >= threshold for mine in positives) >= tpr * len(positives) - 1e-12:
            return sum(other >= threshold for other in negatives) / len(negatives)
    raise AssertionError("the lowest threshold finds all positives")
