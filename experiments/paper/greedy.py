"""Greedy pruning as the paper's figures were made: the same call, whatever sparsity the other methods have."""

from __future__ import annotations

from dataclasses import dataclass

from cpath import Method
from cpath.methods import GreedyReleased


@dataclass(frozen=True, kw_only=True)
class GreedyAsCalled(GreedyReleased):
    """Released greedy pruning with settings that no sparsity of a comparison changes.

    The released scripts compare methods at several sparsities, and call ``prune_greedy(1, 99)`` for each of them:
    ``GreedyAsCalled(rounds=99, sparsity=99, round_zero=True)``. Its one pathway stands beside the others at all
    sparsities, and is found once.
    """

    def at(self, sparsity: float) -> Method:
        """Stay as it is."""
        return self


AS_PUBLISHED = GreedyAsCalled(rounds=99, sparsity=99, round_zero=True)
"""The call that the published numbers of «Greedy» were made with."""
