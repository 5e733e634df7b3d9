"""Running a model: in eval mode, with gradients, with the outputs of its sites recorded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from cpath.display import Shown, activations_html
from cpath.keeping import Keeping
from cpath.sites.choice import DEFAULT_SITES, Sites
from cpath.sites.model import check_model
from cpath.sites.modules import intercept

# A neuron is dead if its output is zero, and active otherwise. The sign does not matter: a GELU of −0.1 is active.


def is_dead(output: Tensor) -> Tensor:
    """Mark the dead neurons of a site.

    Args:
        output: Output (B, *site).

    Returns:
        Booleans (B, *site), True where the output is 0.
    """
    return output == 0


def is_active(output: Tensor, out: Tensor | None = None) -> Tensor:
    """Mark the active neurons of a site.

    Args:
        output: Output (B, *site).
        out: Booleans (B, *site) to write the result to, if any.

    Returns:
        Booleans (B, *site), True where the output is not 0.
    """
    if out is not None and output.device.type == "cpu" and output.dtype != torch.bfloat16:
        np.not_equal(output.numpy(), 0, out=out.numpy())  # three times as fast
        return out
    return torch.ne(output, 0, out=out)


@contextmanager
def evaluating(model: nn.Module, *, keeping: bool = True) -> Iterator[None]:
    """Put every module of a model into eval mode inside a ``with`` block, and leave the model as it was afterwards.

    Each module gets its mode back and, with ``keeping``, whatever it keeps on itself: features, maps, counters.
    Both are the model's own: two threads that use one model at once restore each other's too early.

    Args:
        model: The model.
        keeping: Restore what the modules keep. Without it that of the last pass in the block stays, as is right
            where the caller runs the model.

    Returns:
        A context manager.

    Raises:
        InputError: If ``model`` is no module.
    """
    training = [module for module in check_model(model).modules() if module.training]
    kept = Keeping(model) if keeping else None
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
        if kept is not None:
            kept.restore()


@contextmanager
def differentiating() -> Iterator[None]:
    """Compute gradients inside a ``with`` block, even if the caller is under ``no_grad`` or ``inference_mode``.

    Returns:
        A context manager.
    """
    with torch.inference_mode(False), torch.enable_grad():
        yield


@dataclass(repr=False)
class Observation(Shown):
    """Outputs of the sites in the last forward pass. Made by `observe`.

    Attributes:
        activations: Output (B, *site) of every site, in call order; detached copies.
    """

    activations: dict[str, Tensor] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        return activations_html("Observation", self.activations)


@contextmanager
def observe(model: nn.Module, *, sites: Sites = DEFAULT_SITES) -> Iterator[Observation]:
    """Record the output of every site while a model runs in eval mode, inside a ``with`` block.

    A second forward pass replaces the outputs of the first one. Only the thread that entered the block is seen.
    Call the model itself, not its ``forward``. Sites that no pathway has are recorded too: those whose output does
    not depend on the input (tables of positions), and output sites, behind which no parameter takes part.

    Args:
        model: The model.
        sites: What the sites are: names of activation functions (see `ACTIVATIONS`), ``"attention"``, classes of
            modules, patterns over names of modules; see `cpath.sites`.

    Returns:
        A context manager, which gives an `Observation`.

    Raises:
        SiteError: If the model or a part of it is scripted, or it is a DataParallel model on several GPUs, which
            runs in threads of its own.
        UnknownNameError: If an entry of ``sites`` fits no function, module or class of the model.

    Example:
        >>> with cpath.observe(model) as seen:
        ...     logits = model(images)
        >>> seen.activations["relu1"].shape
        torch.Size([2, 4, 8, 8])
    """
    seen = Observation()

    def visit(name: str, output: Tensor) -> None:
        if name in seen.activations:  # no name occurs twice in one forward pass
            seen.activations.clear()
        # A copy, because later in-place operations of the model would change the original.
        seen.activations[name] = output.detach().clone()

    with evaluating(model, keeping=False), intercept(model, visit, sites=sites):
        yield seen
