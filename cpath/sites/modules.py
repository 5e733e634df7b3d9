"""The mode that also sees the outputs of modules, and the attention inside ``nn.MultiheadAttention``."""

from __future__ import annotations

import copy
import threading
from collections.abc import Container, Mapping, MutableMapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from cpath._torch import under_modes
from cpath.checks import without_warning_of_hooks
from cpath.errors import SiteError
from cpath.sites.choice import DEFAULT_SITES, OUT, Choice, Sites, check_sites, choose
from cpath.sites.functions import ATTENTION, FUNCTIONS
from cpath.sites.mode import Inputs, SiteMode, Visitor
from cpath.sites.model import seen_modules

_SHOWN = 12  # sites in a message

_attention = under_modes(F.multi_head_attention_forward)


class _Seen(NamedTuple):
    """The last site of a forward pass."""

    output: Tensor
    module: str
    site: str


class ModuleSiteMode(SiteMode):
    """`SiteMode` for every choice but one of activation functions alone.

    The outputs of modules are seen by a hook on all modules, which exists inside the ``with`` block alone, and does
    nothing for other models and threads. Where a module gives back the very tensor of a site inside it (an
    activation module; the last module of a `torch.nn.Sequential`), both are one site, which has the inner one's
    name.

    ``nn.MultiheadAttention`` takes no fast path under a mode. What it computes attention with depends on
    ``need_weights``; its output per head is the site either way.

    Args:
        modules: The modules of the model by name.
        choice: The calls that are sites.
        visit: Function of a site's name and output.
        options: The rest, as for `SiteMode`.
    """

    def __init__(self, modules: Mapping[str, nn.Module], choice: Choice, visit: Visitor, **options: Any) -> None:
        super().__init__(modules, choice, visit, **options)
        if choice.modules or choice.calls:
            self._kinds = FUNCTIONS
        self._entries: dict[tuple[int, str], tuple[str, ...]] = {}
        self._last: _Seen | None = None
        self._now: list[tuple[str, str]] = []  # module and name of the site that is being called
        self._heads = 0  # of the attention that is being computed
        self._weighted = False  # its weights are known
        self._thread = 0
        self._handle: RemovableHandle | None = None

    def __enter__(self) -> Self:
        self._thread = threading.get_ident()
        if self.choice.modules:
            self._eager.enter_context(without_warning_of_hooks())
            self._handle = register_module_forward_hook(self._after)
        return super().__enter__()

    def __exit__(self, *exc: Any) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._last = None
        return super().__exit__(*exc)

    # Calls of functions

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._last is not None and _writes_to(self._last.output, func, args, kwargs):
            self._last = None
        if func is F.multi_head_attention_forward and not self._heads:
            return self._attend(args, kwargs)
        if self._heads and func is F.softmax:
            self._weighted = True
        elif self._weighted and func is torch.bmm:
            self._weighted = False
            return self._weighted_values(args, kwargs)
        self._now.clear()
        output = super()._call(func, args, kwargs)
        if self._now:
            self._last = _Seen(output, *self._now[0])
        return output

    def _site_name(self, kind: str) -> str | None:
        inner = self._running()
        if inner is None:
            return None
        base = self._call_name(inner, kind)
        entries = self._entries_of(inner, base, kind)
        if not entries and kind not in self.choice.functions:
            return None
        name = self._counted(base)
        self.met.update(entries, self.choice.functions & {kind})
        if self._taken_out(name):
            return None
        if entries:
            self.named.add(name)
        self._now.append((self._names[id(inner)], name))
        return name

    def _entries_of(self, inner: nn.Module, base: str, kind: str) -> tuple[str, ...]:
        """Find the entries that choose a call of a function in a module, other than the function's name."""
        key = id(inner), kind
        if key not in self._entries:
            of_its_own = base == self._names[id(inner)]
            self._entries[key] = (
                self.choice.modules.get(id(inner), ())
                if of_its_own
                else tuple(entry for entry in self.choice.calls if fnmatchcase(base, entry))
            )
        return self._entries[key]

    def _taken_out(self, name: str) -> bool:
        entries = [entry for entry in self.choice.without if fnmatchcase(name, entry.removeprefix(OUT))]
        self.met.update(entries)
        return bool(entries)

    # Attention inside torch's own module

    def _attend(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute multi-head attention so that what it consists of is seen."""
        self._heads, self._weighted = args[4] if len(args) > 4 else kwargs["num_heads"], False
        TorchFunctionMode.__enter__(self)  # type: ignore[no-untyped-call]
        try:
            return _attention(*args, **kwargs)
        finally:
            TorchFunctionMode.__exit__(self, None, None, None)  # type: ignore[no-untyped-call]
            self._heads, self._weighted = 0, False

    def _weighted_values(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Visit the product of the weights, which are asked for, and the values, (B · heads, tokens, d)."""
        flat = torch.bmm(*args, **kwargs)
        name = self._site_name(ATTENTION) if ATTENTION in self._kinds else None
        if name is None or name in self._left_out:
            return flat
        self._check_no_inputs(name)
        # The model goes on with what is visited, so that gradients pass it.
        output = flat.view(-1, self._heads, *flat.shape[1:])
        replacement = self._visit(name, output)
        kept = output if replacement is None or name not in self._edits else replacement
        return kept.reshape(flat.shape)

    # Outputs of modules

    def _after(self, module: nn.Module, args: object, output: Any) -> Any:
        """Visit the output of a module that is a site; returns what takes its place, or None."""
        entries = self.choice.modules.get(id(module))
        if entries is None or threading.get_ident() != self._thread or self._running() is None:
            return None
        path = self._names[id(module)]
        value = _first_tensor(output)
        last = self._last
        if last is not None and value is last.output and f"{last.module}.".startswith(f"{path}."):
            self.met.update(entries)
            self.named.add(last.site)
            return None
        name = self._counted(path)
        self.met.update(entries)
        if self._taken_out(name) or name in self._left_out:
            return None
        if value is None or not value.is_floating_point():
            kind = "no tensor" if value is None else f"a tensor of {value.dtype}"
            raise SiteError(
                f"module '{path}' returns {kind} first, which has no neurons: take it out with sites='!{path}'."
            )
        self.named.add(name)
        self._check_no_inputs(name)
        replacement = self._visit(name, value)
        if replacement is None or name not in self._edits:
            self._last = _Seen(value, path, name)
            return None
        # A copy, because the next module may write over it.
        replacement = replacement.clone()
        self._last = _Seen(replacement, path, name)
        return _with_first(output, replacement)

    def _check_no_inputs(self, name: str) -> None:
        if self._inputs is not None:
            raise SiteError(f"site '{name}' is no call of an activation function: it has no pre-activation.")


def check_met(mode: SiteMode, seen: Sequence[str]) -> None:
    """Check, after a forward pass, that every entry of the choice of sites has chosen or taken out something.

    Args:
        mode: The mode that the model ran in.
        seen: Names of the sites of that pass.

    Raises:
        SiteError: If one has not, activation functions apart.
    """
    unmet = [entry for entry in mode.choice.binding if entry not in mode.met]
    if not seen:  # another error tells that there is no site at all
        unmet = [entry for entry in unmet if not entry.startswith(OUT)]
    if not unmet:
        return
    entry = unmet[0]
    if entry == ATTENTION:
        raise SiteError(
            "the model calls no attention that can be seen, torch.nn.functional.scaled_dot_product_attention or "
            "nn.MultiheadAttention: load a model of Hugging Face with attn_implementation='sdpa', switch on fused "
            "attention in timm, or name the modules that compute attention."
        )
    names = ", ".join(seen[:_SHOWN]) or "none"
    names += f" and {len(seen) - _SHOWN} others" if len(seen) > _SHOWN else ""
    if entry.startswith(OUT):
        raise SiteError(f"'{entry}' takes no site out: no name of a site matches it. The sites are {names}.")
    raise SiteError(
        f"the model calls nothing that matches '{entry}': it has such modules, but runs none of them, or not by "
        f"calling it. The sites that were seen are {names}."
    )


def _first_tensor(output: object) -> Tensor | None:
    """Get the first tensor of what a module returned, or None."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        output = tuple(output.values())
    if isinstance(output, tuple | list):
        return next((part for part in map(_first_tensor, output) if part is not None), None)
    return None


def _with_first(output: Any, tensor: Tensor) -> Any:
    """Copy what a module returned, with another first tensor in it."""
    if isinstance(output, Tensor):
        return tensor
    if isinstance(output, MutableMapping):
        key = next(key for key, part in output.items() if _first_tensor(part) is not None)
        changed = copy.copy(output)
        changed[key] = _with_first(output[key], tensor)
        return changed
    at = next(number for number, part in enumerate(output) if _first_tensor(part) is not None)
    parts = [*output[:at], _with_first(output[at], tensor), *output[at + 1 :]]
    if hasattr(output, "_fields"):  # of a named tuple
        return type(output)(*parts)
    return type(output)(parts)


def _writes_to(tensor: Tensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """True for a call that changes a tensor in place. Its version does not tell inside `torch.vmap`."""
    if kwargs.get("out") is tensor:
        return True
    if not args or args[0] is not tensor:
        return kwargs.get("input") is tensor and bool(kwargs.get("inplace"))
    name: str = getattr(func, "__name__", "")
    by_name = name.endswith("_") and not name.endswith("__")
    return by_name or name == "__setitem__" or name in _INPLACE_OPERATORS or bool(kwargs.get("inplace"))


_INPLACE_OPERATORS = frozenset(
    f"__i{name}__"
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and", "or", "xor", "matmul")
)


def intercept(
    model: nn.Module,
    visit: Visitor,
    *,
    edits: Container[str] = (),
    sites: Sites = DEFAULT_SITES,
    write_back: bool = True,
    in_place: bool = False,
    inputs: Inputs | None = None,
    left_out: Container[str] = (),
) -> SiteMode:
    """Call a function at every site of a model, in call order, inside a ``with`` block.

    Only the thread that entered the block is seen. Call the model itself, not its ``forward``. A changed network
    keeps what its backward pass needs, with or without activation checkpointing.

    Args:
        model: The model.
        visit: Called as ``visit(name, output)``. At the sites in ``edits``, its return value takes the output's
            place, unless it is None.
        edits: Names of these sites. `EVERY_SITE` contains all.
        sites: What the sites are, see `cpath.sites`.
        write_back: Write the new output of an in-place activation to its input too, as the model expects. Without
            it a model that ignores the return value of an in-place activation goes on with the wrong values.
        in_place: Set if ``visit`` itself changes outputs in place.
        inputs: Called as ``inputs(name, value, kinks)`` with each site's pre-activation before the activation runs,
            and the inputs at which its slope changes, None if it is curved.
        left_out: Names of calls that are no sites after all, as those that do not depend on the input.

    Returns:
        A context manager.

    Raises:
        UnknownNameError: If an entry of ``sites`` fits no function, module or class of the model.
        SiteError: If sites are hidden, in a scripted model or part, or in a DataParallel model on several GPUs; or
            if gradients of a changed network pass a checkpoint with ``use_reentrant=True``.
    """
    modules = seen_modules(model, FUNCTIONS.intersection(sites := check_sites(sites)))
    choice = choose(modules[""], sites)
    kind = SiteMode if choice.is_of_activations else ModuleSiteMode
    return kind(
        modules,
        choice,
        visit,
        edits=edits,
        write_back=write_back,
        in_place=in_place,
        inputs=inputs,
        left_out=left_out,
    )
