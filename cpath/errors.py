"""Errors that cpath raises on purpose. Each message says what is wrong and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import TypeGuard

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


class TrainingError(CpathError, RuntimeError):
    """A training has failed: its loss is no longer a number, and its network is of no use."""


class MissingPackageError(CpathError, ImportError):
    """An optional package is not installed."""


class UnsupportedTorchError(CpathError, ImportError):
    """The installed torch lacks something that cpath cannot do without."""


class UnknownNameError(CpathError, KeyError):
    """No method, attribution, site or other thing has the given name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show the repr, with quotation marks around the sentence


class EmptyPathwayWarning(RuntimeWarning):
    """The pathways of some images keep no neuron at the sparsity that was asked for.

    Args:
        method: Name of the extraction method.
        sparsity: The sparsity, per cent.
        empty: Number of images whose pathways are empty.
        images: Number of all images.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always", cpath.EmptyPathwayWarning)
        ...     pathway = cpath.score(model, images, "active").pathway(99)
        >>> caught[0].message.empty, caught[0].message.sparsity
        (2, 99.0)
    """

    def __init__(self, method: str, sparsity: float, empty: int, images: int) -> None:
        super().__init__(method, sparsity, empty, images)
        self.method, self.sparsity, self.empty, self.images = method, sparsity, empty, images

    def __str__(self) -> str:
        return (
            f"at sparsity={self.sparsity:.15g} the pathways of {self.empty} of {self.images} images are empty: the "
            f"largest scores of '{self.method}' tie, or are zero. Ask for a lower sparsity; sparsity=0 keeps every "
            "neuron whose score is not zero."
        )


class OutputSiteWarning(UserWarning):
    """Sites are left out because no parameter takes part behind them: their neurons are the answer itself.

    Args:
        left_out: Names of these sites.
        sites: The choice of sites, without them.

    Example:
        >>> import warnings
        >>> head = torch.nn.Sequential(model, torch.nn.ReLU())
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always", cpath.OutputSiteWarning)
        ...     scores = cpath.score(head, images)
        >>> caught[0].message.left_out, list(scores.values)
        (('1',), ['0.relu1', '0.relu2'])
    """

    def __init__(self, left_out: tuple[str, ...], sites: tuple[str, ...]) -> None:
        super().__init__(left_out, sites)
        self.left_out, self.sites = left_out, sites

    def __str__(self) -> str:
        first, more = self.left_out[:3], " and others" if len(self.left_out) > 3 else ""
        names = ", ".join(f"'{name}'" for name in first) + more
        sites, are, them = ("sites", "are", "them") if len(self.left_out) > 1 else ("site", "is", "it")
        named = (*self.sites, *dict.fromkeys(name.partition("#")[0] for name in first))
        return (
            f"{sites} {names} {are} left out: no parameter of the model takes part behind {them}, so that the "
            f"neurons there are the answer itself, and those of one class keep it. To include {them} all the same, "
            f"name {them}: sites={named!r}."
        )


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
    close = similar(name, names)
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    told = f"'{name}'" if isinstance(name, str) and len(name) <= _LONGEST else described(name)
    if not names:
        return UnknownNameError(f"unknown {kind} {told}: there is none to choose from.")
    return UnknownNameError(f"unknown {kind} {told}.{hint} Known: {', '.join(names)}.")


def similar(name: object, known: Iterable[str]) -> list[str]:
    """Find the names that may have been meant: spelt alike, or with all the words of another.

    Args:
        name: The other name.
        known: The names to choose from.

    Returns:
        At most three of them.
    """
    if not isinstance(name, str) or len(name) < 3:
        return []
    plain = {one.lower().replace("-", "_"): one for one in known}
    wanted = name.lower().replace("-", "_").replace(" ", "_")
    alike = difflib.get_close_matches(wanted, plain, n=3, cutoff=0.7)
    words = set(wanted.split("_"))
    longer = [one for one in plain if words <= set(re.split(r"[_.]", one))]
    return [plain[one] for one in dict.fromkeys([*alike, *longer])][:3]


_LONGEST = 60


def described(value: object) -> str:
    """Describe any value in a few words, for a message: never the elements of a tensor or the parts of a network.

    Args:
        value: The value.

    Returns:
        Its repr if that is short, else its kind.

    Example:
        >>> from cpath.errors import described
        >>> described(images), described("neuron_mct"), described(torch.nn.Linear(2, 3))
        ('a tensor of shape (2, 3, 8, 8)', "'neuron_mct'", 'a network (Linear)')
    """
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, torch.nn.Module):
        return f"a network ({type(value).__name__})"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, str | bytes):
        return repr(value) if len(value) <= _LONGEST else f"{value[:_LONGEST]!r}…"
    items = list(islice(value.values() if isinstance(value, Mapping) else value, 20)) if _holds(value) else []
    text = repr(value) if all(isinstance(item, str | float | int | None) for item in items) else ""
    if text and "\n" not in text and len(text) <= _LONGEST:
        return text
    return f"an object of type {type(value).__name__}"


def _holds(value: object) -> TypeGuard[Collection[object]]:
    """True for a collection; an array without dimensions only looks like one."""
    return isinstance(value, Collection) and getattr(value, "shape", None) != ()
