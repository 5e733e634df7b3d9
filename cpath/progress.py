"""Progress bars of the library's long runs, where there is a terminal to show them and tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterator

_PATIENCE = 5.0  # seconds without a bar


def steps(count: int, doing: str) -> Iterator[int]:
    """Count steps, with a progress bar once they take more than a few seconds.

    Args:
        count: Number of steps.
        doing: Description of the work.

    Returns:
        Iterator over 0, …, count − 1.

    Example:
        >>> from cpath.progress import steps
        >>> list(steps(3, "counting"))
        [0, 1, 2]
    """
    try:
        from tqdm.auto import tqdm
    except ModuleNotFoundError:  # which is no reason to fail
        yield from range(count)
        return
    yield from tqdm(range(count), desc=doing, unit="step", delay=_PATIENCE, leave=False, disable=None)
