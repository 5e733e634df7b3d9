"""Errors that cpath raises on purpose: each says what is wrong and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

import torch


class CpathError(Exception):
    """Anything cpath refuses to do."""


class InputError(CpathError, ValueError):
    """An argument is unusable: NaN images, a wrong target, a sparsity outside [0, 100)."""


class SiteError(CpathError, RuntimeError):
    """The model has no site, or its sites do not behave as cpath needs them to."""


class MaskError(CpathError, ValueError):
    """A pathway does not fit the model or the images it is used with."""


class StorageError(CpathError, OSError):
    """A file cannot be written: the disk is full, the folder read-only. What was there before is left."""


class MissingImageError(CpathError, IndexError):
    """A pathway has no image of that number."""


class OutOfMemoryError(CpathError, torch.OutOfMemoryError):
    """Too many images at once for the memory of the device."""


class MissingPackageError(CpathError, ImportError):
    """An optional package is not installed."""


class UnsupportedTorchError(CpathError, ImportError):
    """The installed torch lacks something that cpath cannot do without."""


class UnknownNameError(CpathError, KeyError):
    """A name that nothing is registered under."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr, with quotes around the sentence


def unknown_name(
    kind: str, name: object, known: Iterable[str], renamed: Mapping[str, str] | None = None
) -> UnknownNameError:
    """Error for an unknown ``name`` of some ``kind``, with the close matches and all known names.

    Where ``renamed`` (new names by old ones) knows it, the error gives the new name alone.
    """
    if isinstance(name, str) and renamed and name in renamed:
        return UnknownNameError(f"the {kind} '{name}' is called '{renamed[name]}' now: use that name.")
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    return UnknownNameError(f"unknown {kind} '{name}'.{hint} Known: {', '.join(names)}.")
