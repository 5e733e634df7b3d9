"""Registry of classes by name, which extraction methods and attributions share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Mapping
from typing import Any, TypeVar

from cpath.checks import check_name
from cpath.errors import InputError, UnknownNameError, unknown_name

RESERVED = frozenset({"run", "network", "base", "untouched", "all", "original", "input", "training", "quick"})
"""Names that the tables of the experiments use in place of a method's, for rows that belong to no method."""

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(dict[str, type[T]]):
    """Subclasses of one class by name, in the order of registration.

    Args:
        kind: Word for them in messages.
        base: Their base class.
        base_name: Name of the base class for users.
        name_as: Class attribute that holds the name.
        renamed: New names by old ones. The error for an old name gives the new one.
    """

    def __init__(
        self,
        kind: str,
        base: type[Any],
        base_name: str,
        name_as: str,
        renamed: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.renamed = dict(renamed or {})
        self._kind, self._base, self._base_name, self._name_as = kind, base, base_name, name_as
        self._elsewhere: list[tuple[Container[str], str]] = []

    def register(self, name: str) -> Callable[[C], C]:
        """Register a class under a name. The same class may be registered again, by a module that is reloaded.

        Args:
            name: The name.

        Returns:
            A class decorator.

        Raises:
            InputError: If the name is reserved (see `RESERVED`), no name, or taken by another class, or if the
                class is no subclass of the base class.
        """
        if check_name(name) in RESERVED:
            raise InputError(
                f"the {self._kind} name '{name}' is reserved: the tables of the experiments use it for rows that "
                f"belong to no {self._kind}. Register the class under another name."
            )

        def add(cls: C) -> C:
            if not isinstance(cls, type) or not issubclass(cls, self._base):
                called = getattr(cls, "__qualname__", repr(cls))
                raise InputError(f"{called} must be a subclass of {self._base_name} to be registered as '{name}'.")
            known = self.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise InputError(
                    f"the {self._kind} name '{name}' is taken by {known.__module__}.{known.__qualname__}."
                )
            setattr(cls, self._name_as, name)
            self[name] = cls
            return cls

        return add

    def point_to(self, others: Container[str], told: str) -> None:
        """Have the error for a name that is of another kind say what it is.

        Args:
            others: Names of the other kind.
            told: What such a name is, with ``{name}`` in its place.
        """
        self._elsewhere.append((others, told))

    def make(self, name: object, settings: Mapping[str, Any]) -> T:
        """Make an object of a registered class.

        Args:
            name: Name of the class.
            settings: Its keyword arguments.

        Returns:
            The object.

        Raises:
            UnknownNameError: If the name is unknown.
            InputError: If a setting is unknown.
        """
        if not isinstance(name, str) or name not in self:
            for others, told in self._elsewhere:
                if isinstance(name, str) and name in others:
                    raise UnknownNameError(f"'{name}' is no {self._kind}: {told.format(name=name)}.")
            raise unknown_name(self._kind, name, self, self.renamed)
        known = inspect.signature(self[name]).parameters
        unknown = [setting for setting in settings if setting not in known]
        if unknown and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
            has = f"its settings are {', '.join(known)}" if known else "it has none"
            raise InputError(f"{self._kind} '{name}' has no setting '{unknown[0]}': {has}.")
        try:
            return self[name](**settings)
        except TypeError as error:
            raise InputError(f"{self._kind} '{name}': {error}") from error
