"""Nodes and weights of quadratures on [0, 1]."""

from __future__ import annotations

import numpy as np

from cpath.checks import check_count
from cpath.errors import InputError, unknown_name


def _midpoint(n: int) -> tuple[np.ndarray, np.ndarray]:
    return (np.arange(n) + 0.5) / n, np.full(n, 1 / n)


def _trapezoid(n: int) -> tuple[np.ndarray, np.ndarray]:
    if n < 2:
        raise InputError("the trapezoid rule needs nodes ≥ 2.")
    weights = np.full(n, 1 / (n - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, n), weights


def _endpoint(n: int) -> tuple[np.ndarray, np.ndarray]:
    # Midpoints of n - 1 equal cells and the right end with the half cell that is left.
    h = 1 / (n - 0.5)
    weights = np.full(n, h)
    weights[-1] = h / 2
    nodes = (np.arange(n) + 0.5) * h
    nodes[-1] = 1.0
    return nodes, weights


def _legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (nodes + 1) / 2, weights / 2


RULES = {
    "midpoint": _midpoint,
    "endpoint": _endpoint,
    "trapezoid": _trapezoid,
    "legendre": _legendre,
}
"""Rules by name: midpoints of equal cells; midpoints and the right end; trapezoid; Gauss-Legendre."""


def quadrature(rule: str, n: int) -> tuple[list[float], list[float]]:
    """Compute the nodes and weights of a quadrature on [0, 1].

    Args:
        rule: Name of the rule (see `RULES`).
        n: Number of nodes.

    Returns:
        The nodes in ascending order, and their weights, which sum to 1.

    Raises:
        UnknownNameError: If there is no such rule.
        InputError: If the rule needs more nodes.

    Example:
        >>> from cpath.methods.quadrature import quadrature
        >>> quadrature("midpoint", 2)
        ([0.25, 0.75], [0.5, 0.5])
    """
    if rule not in RULES:
        raise unknown_name("quadrature rule", rule, RULES)
    nodes, weights = RULES[rule](check_count("nodes", n))
    return nodes.tolist(), weights.tolist()
