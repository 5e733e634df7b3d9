"""Classes by name: what extraction methods and attributions have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cpath.checks import check_name
from cpath.errors import InputError, unknown_name

RESERVED = frozenset({"run", "network", "base", "untouched", "all", "original", "input", "quick"})
"""Names that stand in the tables of the experiments where a method's would, for rows that belong to none."""

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(dict[str, type[T]]):
    """Subclasses of one class by name, in the order of registration.

    ``kind`` is what errors call them, ``base`` the class, which users know as ``base_name``; ``name_as`` is the
    class attribute that holds the name. ``renamed`` gives the new names by old ones: who asks for an old name is
    told the new one.
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

    def register(self, name: str) -> Callable[[C], C]:
        """Class decorator that puts the class under ``name``; the same class may come again (a module reloaded).

        Raises `InputError` for what is no subclass, for a name that another one has, for one that is reserved
        (see `RESERVED`), and for what is no name.
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

    def make(self, name: object, settings: Mapping[str, Any]) -> T:
        """What is registered under ``name``, made with ``settings``.

        Raises `UnknownNameError` for an unknown name, `InputError` for an unknown setting.
        """
        if not isinstance(name, str) or name not in self:
            raise unknown_name(self._kind, name, self, self.renamed)
        try:
            return self[name](**settings)
        except TypeError as error:
            raise InputError(f"{self._kind} '{name}': {error}") from error
