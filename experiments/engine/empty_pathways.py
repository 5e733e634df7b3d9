"""Empty pathways of a job, said in one line at its end in place of a warning for every batch."""

from __future__ import annotations

import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cpath import EmptyPathwayWarning

_LOG = logging.getLogger(__name__)


@contextmanager
def saying_empty_pathways_once() -> Iterator[None]:
    """Collect the warnings of empty pathways inside a ``with`` block, and log one line at its end if there are any.

    An image that is explained more than once, as by several networks, counts each time. All other warnings are
    shown as usual.

    Returns:
        A context manager.
    """
    found: Counter[tuple[str, float]] = Counter()
    show = warnings.showwarning

    def note(message: Warning | str, *about: Any, **more: Any) -> None:
        if isinstance(message, EmptyPathwayWarning):
            found[message.method, message.sparsity] += message.empty
        else:
            show(message, *about, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", EmptyPathwayWarning)
        warnings.showwarning = note
        try:
            yield
        finally:
            if found:
                _LOG.warning("%s", _line(found))


def _line(found: Counter[tuple[str, float]]) -> str:
    by_method: defaultdict[str, list[str]] = defaultdict(list)
    for (method, sparsity), count in sorted(found.items()):
        by_method[method].append(f"{count} at sparsity={sparsity:.15g}")
    said = "; ".join(f"'{method}' {', '.join(counts)}" for method, counts in by_method.items())
    return (
        f"images with an empty pathway: {said}. The largest scores tie there, or are zero: a lower sparsity may "
        "keep some neurons."
    )
