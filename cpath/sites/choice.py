"""The choice of sites: the calls of a model that a user's names, classes and patterns stand for."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn

from cpath._torch import compiled_from, plain_name
from cpath.errors import InputError, UnknownNameError, described, similar, unknown_name
from cpath.sites.functions import ACTIVATIONS, ATTENTION, FUNCTIONS

Sites = str | type[nn.Module] | Iterable[str | type[nn.Module]]
"""One entry of a choice of sites, or several."""

DEFAULT_SITES = ("relu",)

OUT = "!"
"""Beginning of an entry that takes sites out."""

_SHOWN = 12  # modules or classes in a message


def check_sites(sites: object, of: nn.Module | Collection[str] | None = None) -> tuple[str, ...]:
    """Check a choice of sites: its form, and what is at hand that it must fit.

    Args:
        sites: One entry, or several: names of functions, classes of modules or their names, patterns.
        of: The model behind any wrapper; or the names of the sites that the choice must stand for.

    Returns:
        The entries; a class is given by its dotted name.

    Raises:
        InputError: If an entry is neither text nor a class of modules, or nothing but ``!`` entries is given.
        UnknownNameError: If an entry fits neither a function nor the model or the sites.
    """
    if isinstance(sites, str | type):
        sites = (sites,)
    if not isinstance(sites, Iterable):
        raise InputError(
            f"sites must be names of activation functions, classes of modules or patterns, not {described(sites)}."
        )
    names = tuple(_checked(entry) for entry in sites)
    if names and all(name.startswith(OUT) for name in names):
        raise InputError(f"sites={names!r} takes sites out of none: name those to choose from too, as 'relu'.")
    if isinstance(of, nn.Module):
        choose(of, names)
    elif of is not None:
        _check_words(names, of)
    return names


def _check_words(names: Iterable[str], sites: Collection[str]) -> None:
    """Refuse misspelt functions; a class, unlike a module, is not to be told from the names of sites."""
    modules = {site.partition("#")[0].partition(":")[0] for site in sites}
    for name in names:
        if name.isidentifier() and name.islower() and name not in FUNCTIONS and name not in modules:
            raise unknown_name("activation function", name, FUNCTIONS)


def _checked(entry: object) -> str:
    if isinstance(entry, type) and issubclass(entry, nn.Module):
        return f"{entry.__module__}.{entry.__qualname__}"
    if isinstance(entry, str) and entry.removeprefix(OUT).strip():
        return entry
    if isinstance(entry, nn.Module):
        raise InputError(f"sites take the class of a module, {type(entry).__name__}, or its name, not the module.")
    raise InputError(f"sites must be names, classes of modules or patterns; {described(entry)} is none.")


@dataclass(frozen=True)
class Choice:
    """The calls of one model that are sites.

    Attributes:
        functions: Names of the functions whose every call is a site.
        modules: The entries that chose each module whose output is a site, by the module's identity.
        calls: Patterns of the names of function calls that are sites.
        without: Entries that take sites out.
    """

    functions: frozenset[str] = frozenset()
    modules: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    calls: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    @property
    def is_of_activations(self) -> bool:
        """True if it names activation functions and nothing else."""
        return not (self.modules or self.calls or self.without or ATTENTION in self.functions)

    @property
    def binding(self) -> tuple[str, ...]:
        """Entries that must choose or take out something when the model runs: all but activation functions."""
        of_modules = dict.fromkeys(entry for entries in self.modules.values() for entry in entries)
        return (*of_modules, *self.calls, *self.without, *(self.functions & {ATTENTION}))


def choose(model: nn.Module, sites: Iterable[str]) -> Choice:
    """Find what the entries of a choice stand for in a model.

    Args:
        model: The model, without a wrapper.
        sites: The entries, as `check_sites` returns them.

    Returns:
        The choice.

    Raises:
        UnknownNameError: If an entry fits no function, module or class of the model.
    """
    sites = tuple(sites)
    functions = frozenset(sites) & FUNCTIONS
    rest = [entry for entry in sites if entry not in functions]
    if not rest:
        return Choice(functions)
    modules: dict[int, tuple[str, ...]] = {}
    calls = []
    named = [(name, module) for name, module in _named(model) if compiled_from(module) is None]
    for entry in rest:
        if entry.startswith(OUT):
            continue
        if ":" in entry:
            _check_call(entry, named)
            calls.append(entry)
            continue
        chosen = _matching(entry, named)
        if not chosen:
            raise _no_match_error(entry, named)
        for module in chosen:
            modules[id(module)] = (*modules.get(id(module), ()), entry)
    return Choice(functions, modules, tuple(calls), tuple(entry for entry in rest if entry.startswith(OUT)))


def _named(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give every module under all of its names, without what `torch.compile` adds to them."""
    for name, module in model.named_modules(remove_duplicate=False):
        yield plain_name(name), module


def _matching(entry: str, named: Iterable[tuple[str, nn.Module]]) -> list[nn.Module]:
    """Find the modules whose names match, or else those of the class; the model itself is never among them."""
    parts = {id(module): module for name, module in named if name and fnmatchcase(name, entry)}
    if not parts:
        fits = {kind: _is_called(kind, entry) for kind in {type(module) for _, module in named}}
        parts = {id(module): module for name, module in named if name and fits[type(module)]}
    return list(parts.values())


def _is_called(kind: type, entry: str) -> bool:
    """True for a class, or one derived from it, that the entry names: bare, dotted, or as a package exports it."""
    if any(entry in (base.__name__, f"{base.__module__}.{base.__qualname__}") for base in kind.__mro__):
        return True
    path, _, name = entry.rpartition(".")
    exported = getattr(sys.modules.get(path), name, None)
    return isinstance(exported, type) and issubclass(kind, exported)


def _check_call(entry: str, named: Iterable[tuple[str, nn.Module]]) -> None:
    path, _, function = entry.rpartition(":")
    if not any(fnmatchcase(kind, function) for kind in FUNCTIONS):
        raise unknown_name("activation function", function, FUNCTIONS)
    if not any(fnmatchcase(name, path) for name, _ in named):
        raise _no_match_error(path, named)


def _no_match_error(entry: str, named: Iterable[tuple[str, nn.Module]]) -> UnknownNameError:
    parts = {name: module for name, module in named if name}
    classes = Counter(type(module).__name__ for module in parts.values())
    names = list(dict.fromkeys([*similar(entry, parts), *parts]))
    more = f" and {len(names) - _SHOWN} others" if len(names) > _SHOWN else ""
    has = (
        f"The model has the modules {', '.join(names[:_SHOWN])}{more}, of the classes "
        f"{', '.join(f'{name} ({count}×)' for name, count in classes.most_common(_SHOWN))}."
    )
    if entry.isidentifier():
        error = unknown_name("activation function", entry, (*ACTIVATIONS, ATTENTION))
        return UnknownNameError(f"{error} No module and no class of the model is called so either. {has}")
    return UnknownNameError(f"no module of the model has a name or a class that matches {described(entry)}. {has}")
