"""Whatever a model keeps on itself, put back: features, attention maps, counters, caches.

Many models store what they compute, as an attribute or in a list. cpath runs them with scaled and masked sites, and
in lanes of `torch.vmap`; what they store then is of no use to anyone, and a tensor of a lane is dead afterwards.

Worked example. This model keeps its features. After a score they are those of the caller's own pass:

    >>> from cpath.keeping import Keeping
    >>> class Keeper(nn.Sequential):
    ...     def forward(self, x):
    ...         self.features = super().forward(x)
    ...         return self.features
    >>> keeper = Keeper(model).eval()
    >>> logits = keeper(images)
    >>> kept = Keeping(keeper)
    >>> _ = keeper(0 * images)
    >>> kept.restore()
    True
    >>> keeper.features is logits
    True
"""

from __future__ import annotations

import operator
from collections import OrderedDict, deque
from collections.abc import Iterable, MutableSequence
from dataclasses import is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from cpath._torch import MODULE_ATTRIBUTES, version

_Attributes = dict[str, Any]


class Keeping:
    """State that the modules of a model keep on themselves, as it is now; parameters, hooks and modes apart.

    Args:
        model: The model.
        values: Keep the values of tensors too, which a model may change in place. Without it only which objects are
            where is kept, which takes no time to speak of.
    """

    def __init__(self, model: nn.Module, *, values: bool = True) -> None:
        self._values = values
        self._objects: list[tuple[_Attributes, _Attributes]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._tensors: list[tuple[Tensor, int, Tensor]] = []
        self._noted: set[int] = set()
        for module in model.modules():
            if not isinstance(module, _OTHER_MODULES):
                now = vars(module)
                attributes = {key: value for key, value in now.items() if key not in MODULE_ATTRIBUTES}
                self._objects.append((now, attributes))
                self._note_all(attributes.values())

    def _note_all(self, values: Iterable[Any]) -> None:
        for value in values:
            if type(value) not in _PLAIN:
                self._note(value)

    def _note(self, value: Any) -> None:
        if id(value) in self._noted:
            return
        self._noted.add(id(value))  # what is noted is held by this object, so that no other takes its identity
        # The kinds that every module has come first: a model has hundreds of modules.
        if isinstance(value, dict):
            self._containers.append((value, dict(value)))
            self._note_all(value.values())
        elif isinstance(value, set):
            self._containers.append((value, set(value)))
        elif isinstance(value, tuple):
            self._note_all(value)
        elif isinstance(value, list | deque):
            self._containers.append((value, list(value)))
            self._note_all(value)
        elif isinstance(value, Tensor):
            if self._values and not isinstance(value, nn.Parameter) and not value.is_inference():
                self._tensors.append((value, version(value), value.detach().clone()))
        elif _is_record(value):
            self._objects.append((vars(value), dict(vars(value))))
            self._note_all(vars(value).values())

    def restore(self) -> bool:
        """Put everything back.

        Returns:
            True if anything had changed.
        """
        changed = [_restore_attributes(now, before) for now, before in self._objects]
        changed += [_restore_content(now, before) for now, before in self._containers]
        changed += [_restore_values(tensor, number, before) for tensor, number, before in self._tensors]
        return any(changed)


def _is_record(value: Any) -> bool:
    """True for an object that only holds values; others may lead to anything, a trainer and its data set too."""
    holds = isinstance(value, SimpleNamespace) or (is_dataclass(value) and not isinstance(value, type | nn.Module))
    return holds and hasattr(value, "__dict__")


# A lazy module becomes another one in its first pass; a scripted one has no attributes in Python.
_OTHER_MODULES = (LazyModuleMixin, torch.jit.ScriptModule)

_PLAIN = frozenset({bool, int, float, complex, str, bytes, type(None)})


def _restore_attributes(now: _Attributes, before: _Attributes) -> bool:
    added = [key for key in now if key not in before and key not in MODULE_ATTRIBUTES]
    replaced = [key for key, value in before.items() if key not in now or now[key] is not value]
    for key in added:
        del now[key]
    for key in replaced:
        now[key] = before[key]
    return bool(added or replaced)


def _restore_content(now: Any, before: Any) -> bool:
    """Restore a container by the methods of its plain base class, because a model's own may do other things."""
    kind: Any
    if isinstance(now, dict):
        kind = OrderedDict if isinstance(now, OrderedDict) else dict
        same = not now and not before
        same = same or (len(now) == len(before) and all(key in now and now[key] is before[key] for key in before))
    elif isinstance(now, set):
        same, kind = now == before, set
    else:
        same = len(now) == len(before) and all(map(operator.is_, now, before))
        kind = list if isinstance(now, list) else deque
    if not same:
        kind.clear(now)
        (kind.extend if issubclass(kind, MutableSequence) else kind.update)(now, before)
    return not same


def _restore_values(tensor: Tensor, number: int, before: Tensor) -> bool:
    if version(tensor) == number:
        return False
    with torch.no_grad():
        tensor.copy_(before)
    return True
