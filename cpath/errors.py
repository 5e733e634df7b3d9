"""Errors that cpath raises on purpose. Each message says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import torch


class CpathError(Exception):
    """Base class of all errors that cpath raises on purpose.

    Example:
        >>> try:
        ...     cpath.find_pathway(model, images, sparsity=120)
        ... except cpath.CpathError as error:
        ...     print(error)
        sparsity is the per cent of neurons to prune, 0 ≤ sparsity < 100 (per cent, not a fraction); got 120.
    """


class InputError(CpathError, ValueError):
    """An argument is unusable: NaN images, a wrong target, a sparsity outside [0, 100)."""


class SiteError(CpathError, RuntimeError):
    """The model has no site, or its sites do not behave as cpath needs them to."""


class MaskError(CpathError, ValueError):
    """A pathway does not fit the model or the images that it is used with."""


class StorageError(CpathError, OSError):
    """A file cannot be written: the disk is full or the folder read-only. An older file is left as it was."""


class MissingImageError(CpathError, IndexError):
    """There is no image of the given number."""


class OutOfMemoryError(CpathError, torch.OutOfMemoryError):
    """The memory of the device is too small for the number of images at once."""


class MissingPackageError(CpathError, ImportError):
    """An optional package is not installed."""


class UnsupportedTorchError(CpathError, ImportError):
    """The installed torch lacks something that cpath cannot do without."""


class UnknownNameError(CpathError, KeyError):
    """No method, attribution, site or other thing has the given name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr, with quotation marks around the sentence


def unknown_name(
    kind: str, name: object, known: Iterable[str], renamed: Mapping[str, str] | None = None
) -> UnknownNameError:
    """Make the error for an unknown name, with close matches and all known names.

    Args:
        kind: The kind of thing that was named, such as "method".
        name: The unknown name.
        known: All known names.
        renamed: New names by old ones. If ``name`` is an old one, the error gives the new name alone.

    Returns:
        The error, to be raised.
    """
    if isinstance(name, str) and renamed and name in renamed:
        return UnknownNameError(f"the {kind} '{name}' is called '{renamed[name]}' now: use that name.")
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return UnknownNameError(f"unknown {kind} '{name}'.{hint} Known: {', '.join(names)}.")
