"""A first look at a model: what cannot be told from one forward pass, found once for each model.

The model runs on one input alone and on a pair that begins with it. The two runs tell the sites whose first
dimension is the batch from those where it only has the same size, and from those that do not see the input at all;
and a model whose answer to an input is always the same from one that draws random numbers or mixes the batch. The
first run also tells the sites behind which no parameter takes part any more: their neurons are the answer itself,
and they are no sites unless the choice of sites names them.

Worked example. The second site of this model is a table of positions, which no image changes:

    >>> from cpath.trial import left_out
    >>> class Positions(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.fc, self.table, self.head = nn.Linear(192, 5), nn.Linear(1, 5), nn.Linear(5, 5)
    ...
    ...     def forward(self, x):
    ...         positions = torch.arange(4.0).view(1, 4, 1)
    ...         return self.head(torch.relu(self.fc(x.flatten(1))) + torch.relu(self.table(positions)).mean(1))
    >>> sorted(left_out(Positions().eval(), images, ("relu",)))
    [':relu#2']
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from cpath._torch import compiled_from, eagerly, running
from cpath.checks import warn
from cpath.errors import OutputSiteWarning, SiteError
from cpath.flow import Flow
from cpath.inputs import Given, Inputs
from cpath.keeping import Keeping
from cpath.response import raw_logits
from cpath.sites import check_met, intercept


@dataclass(frozen=True)
class Found:
    """The sites of a model that belong to no pathway.

    Attributes:
        constant: Names of those that do not depend on the input.
        outputs: Names of those behind which no parameter takes part, unless the choice of sites names them.
    """

    constant: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()


_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[str, ...], Found]] = WeakKeyDictionary()


@dataclass
class _Run:
    """A forward pass: its output, the output of each site, and the names of the output sites."""

    output: object = None
    sites: dict[str, Tensor] = field(default_factory=dict)
    at_output: frozenset[str] = frozenset()


def known(model: nn.Module, sites: tuple[str, ...]) -> frozenset[str]:
    """Get the sites that belong to no pathway, as far as `left_out` has found them for this model.

    Args:
        model: The model.
        sites: The choice of sites.

    Returns:
        Names of the sites.
    """
    found = found_in(model, sites)
    return found.constant | found.outputs


def found_in(model: nn.Module, sites: tuple[str, ...]) -> Found:
    """Get what `left_out` has found for this model; nothing before it has.

    Args:
        model: The model.
        sites: The choice of sites.

    Returns:
        The sites that belong to no pathway, by the reason.
    """
    return _KNOWN.get(model, {}).get(sites, Found())


def takes_other_batches(model: nn.Module, sites: tuple[str, ...]) -> bool:
    """Tell whether `left_out` could run a model on one input and on two.

    Args:
        model: The model.
        sites: The choice of sites.

    Returns:
        False for a model that holds something of each input of one batch, and takes no other batch.
    """
    return sites in _KNOWN.get(model, {})


def left_out(model: nn.Module, inputs: Given | Inputs, sites: tuple[str, ...]) -> frozenset[str]:
    """Find the sites that belong to no pathway, and warn or refuse what would give wrong numbers.

    The first call for a model runs it on three inputs, without gradients; later ones only look up what was found.
    A model that cannot be run so, because it takes only batches of a certain size, is not looked at.

    Args:
        model: The model, in eval mode.
        inputs: Inputs (B, …), see `cpath.inputs`.
        sites: The choice of sites.

    Returns:
        Names of the sites that do not depend on the input, and of output sites that are not named explicitly.

    Raises:
        SiteError: If the first dimension of a site is not the batch, an entry of the choice matches nothing that
            the model calls, or the model runs parts in other threads.
    """
    of_model = _KNOWN.setdefault(model, {})
    if sites not in of_model:
        found = _look(model, Inputs.of(inputs), sites)
        if found is None:
            return frozenset()
        told = any(found.outputs <= other.outputs for other in of_model.values())
        of_model[sites] = found
        if found.outputs and not told:
            warn(OutputSiteWarning(tuple(sorted(found.outputs)), sites))
    return known(model, sites)


def _look(model: nn.Module, inputs: Inputs, sites: tuple[str, ...]) -> Found | None:
    first = inputs[:1].detach()
    pair = first.paired(inputs[1:2].detach())
    kept, devices = Keeping(model), [inputs.device] if inputs.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad(), eagerly(), _elsewhere(model) as parts:
        try:
            alone = _run(model, first, sites)
            together = _run(model, pair, sites, alone.sites)
            again = alone if _agree(alone.output, together.output) else _run(model, first, sites)
        except SiteError:
            raise
        except Exception:  # the model's own, which comes again where its input is the caller's
            return None
        finally:
            kept.restore()
    if parts:
        raise SiteError(
            f"the model runs its part '{parts[0]}' in another thread, where no site is seen: have it run its "
            "branches one after another."
        )
    constant = _without_input(alone.sites, together.sites)
    _warn(alone.output, again.output, together.output)
    return Found(constant, alone.at_output - constant)


def _run(
    model: nn.Module, inputs: Inputs, sites: tuple[str, ...], before: Mapping[str, Tensor] | None = None
) -> _Run:
    """Run the model; the outputs are kept with their values if the run ``before``, if any, has the same shape."""
    run = _Run()

    def visit(name: str, output: Tensor) -> None:
        wanted = before is None or (name in before and before[name].shape == output.shape)
        run.sites[name] = output.clone() if wanted else torch.empty(output.shape, device="meta")

    if before is not None:
        with intercept(model, visit, sites=sites):
            run.output = raw_logits(inputs.clone().call(model))
        return run
    flow = Flow(model)

    def follow(name: str, output: Tensor) -> None:
        visit(name, output)
        flow.start(name, output)

    with flow, intercept(model, follow, sites=sites) as mode:
        run.output = raw_logits(inputs.clone().call(model))
    check_met(mode, list(run.sites))
    run.at_output = flow.sites_of(run.output) - flow.hidden - mode.named
    return run


def _without_input(alone: Mapping[str, Tensor], together: Mapping[str, Tensor]) -> frozenset[str]:
    """Find the sites that are the same for one input and for two; raise `SiteError` for what is no batch."""
    found = []
    for name, one in alone.items():
        two = together.get(name)
        if two is None:  # a branch that only some inputs take
            continue
        if one.shape == two.shape and _close(one, two):
            found.append(name)
        elif one.dim() == 0 or (len(one), len(two)) != (1, 2):
            raise _no_batch_error(name, one, two)
    return frozenset(found)


def _no_batch_error(name: str, one: Tensor, two: Tensor) -> SiteError:
    shapes = f"gives shape {tuple(one.shape)} for one input and {tuple(two.shape)} for two"
    grown = [dim for dim, sizes in enumerate(zip(one.shape, two.shape, strict=False)) if sizes == (1, 2)]
    if len(grown) == 1 and one.dim() == two.dim():
        remedy = f"its dimension {grown[0]} is. Build the model with batch_first=True, or move that dimension first"
    else:
        remedy = "no dimension is. Name other sites, or change the model"
    return SiteError(
        f"site '{name}' {shapes}, but its first dimension must be the batch, as cpath works on each input's own "
        f"neurons: {remedy}. sites=(…, '!{name}') leaves it out."
    )


def _warn(alone: object, again: object, together: object) -> None:
    if _agree(alone, together):
        return
    if not _agree(alone, again):
        cause = "gives one input different answers in eval mode: it draws random numbers. Scores hold for one draw"
    else:
        cause = "gives an input another answer in a batch than alone: it mixes the batch in eval mode. Scores hold"
        cause += " for this batch"
    warn(f"the model {cause} only, and the parts of a computation may not fit together.")


def _agree(alone: object, other: object) -> bool:
    """Check that the output for the first input is the same; True for what is no output of a classifier."""
    if not isinstance(alone, Tensor) or not isinstance(other, Tensor) or not alone.dim() or not other.dim():
        return True
    if alone.shape[1:] != other.shape[1:] or not len(other) or len(alone) != 1:
        return True
    return _close(alone[0], other[0])


def _close(one: Tensor, other: Tensor) -> bool:
    """Check that two results are the same up to rounding, which differs between batches of other sizes."""
    if not one.is_floating_point() or one.is_meta:
        return True
    share = max(3 * math.sqrt(torch.finfo(one.dtype).eps), 1e-5 if one.device.type == "cpu" else 1e-2)
    size = float(one.abs().max()) if one.numel() else 0.0
    return not math.isfinite(size) or bool((one - other).abs().max() <= share * size)


@contextmanager
def _elsewhere(model: nn.Module) -> Iterator[list[str]]:
    """List the parts of a model that it runs in other threads than the one that runs the model."""
    names = {id(module): name for name, module in model.named_modules()}
    here, found = threading.get_ident(), []

    def note(module: nn.Module, _: object) -> None:
        name = names.get(id(module))
        # A whole pass in another thread is the user's own.
        if name and threading.get_ident() != here and not running(model):
            found.append(name)

    if any(compiled_from(module) is not None for module in model.modules()):
        yield found  # torch would warn that what is compiled passes the hook by, and compiles no threads
        return
    hook = register_module_forward_pre_hook(note)
    try:
        yield found
    finally:
        hook.remove()
