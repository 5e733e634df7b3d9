"""Pathways of classes by loops over sets: slow, obvious, without tensors of counts."""

from __future__ import annotations

import math


def kept_units(row) -> frozenset[int]:
    return frozenset(index for index, kept in enumerate(row) if kept)


def frequencies(rows, labels, classes, units):
    """Share of the class's inputs whose pathway holds the unit, as lists; NaN without inputs."""
    found = []
    for number in range(classes):
        mine = [kept_units(row) for row, label in zip(rows, labels, strict=True) if label == number]
        found.append(
            [sum(unit in pathway for pathway in mine) / len(mine) if mine else math.nan for unit in range(units)]
        )
    return found


def class_pathways(rows, labels, classes, units, frequency):
    """Units in more than a share of the class's pathways, as sets."""
    shares = frequencies(rows, labels, classes, units)
    return [
        {unit for unit in range(units) if shares[number][unit] > frequency + 1e-12} for number in range(classes)
    ]


def jaccard(one, other):
    return len(one & other) / len(one | other) if one | other else math.nan


def containment(one, other):
    return len(one & other) / len(one) if one else math.nan


def typicality(row, shares):
    """Mean frequency of the pathway's units, in parts of that of the most frequent ones."""
    mine = kept_units(row)
    best = sum(sorted(shares, reverse=True)[: len(mine)])
    return sum(shares[unit] for unit in mine) / best if mine and best else math.nan
