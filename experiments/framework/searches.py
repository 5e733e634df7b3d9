"""Which scorings the pathways of several methods at several sparsities need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cpath


@dataclass(frozen=True)
class Search:
    """One scoring, and the sparsities that it serves."""

    name: str
    """Of the method."""
    label: str
    """Of the scoring: the same, with the sparsity where the method searches for one alone."""
    method: cpath.Method
    sparsities: list[float]

    def pathways(self, scores: cpath.Scores) -> Iterator[tuple[float, cpath.Pathway]]:
        """Each sparsity with its pathway."""
        for sparsity in self.sparsities:
            # What is not ranked is a pathway as it is; a threshold would leave nothing of it.
            yield sparsity, scores.pathway(sparsity if self.method.graded else 0)


def searches(methods: Mapping[str, cpath.Method], sparsities: Sequence[float]) -> list[Search]:
    """The scorings of ``methods``: one each, but for those whose search has to know the sparsity."""
    found: list[Search] = []
    for name, method in methods.items():
        of_method: list[Search] = []
        for sparsity in sparsities:
            at = method.at(sparsity)
            known = next((search for search in of_method if search.method == at), None)
            if known is None:
                label = name if at == method else f"{name}@{sparsity:g}"
                of_method.append(Search(name, label, at, [sparsity]))
            else:
                known.sparsities.append(sparsity)
        found += of_method
    return found
