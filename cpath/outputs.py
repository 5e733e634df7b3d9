"""Outputs of sites, and gradients with respect to them: their checks and their memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cpath.errors import SiteError


def check_site(name: str, output: Tensor, batch: int) -> Tensor:
    """Check that the first dimension of a site's output is the batch.

    Args:
        name: Name of the site.
        output: Its output.
        batch: Number of inputs B.

    Returns:
        ``output`` (B, *site).

    Raises:
        SiteError: If it is not.
    """
    if output.dim() == 0 or output.shape[0] != batch:
        raise SiteError(
            f"site '{name}' gives shape {tuple(output.shape)}, but its first dimension must be the batch "
            f"({batch}): cpath works on each input's own neurons. A single input is a batch of one: input[None]."
        )
    return output


def gradient_at(value: Tensor, source: Tensor) -> Tensor | None:
    """Compute ∂value/∂source.

    Args:
        value: A scalar.
        source: Any tensor.

    Returns:
        The gradient; None if ``value`` does not depend on ``source``.
    """
    if not value.requires_grad:
        return None
    (found,) = torch.autograd.grad(value, source, allow_unused=True)
    return found


def no_gradient_error(name: str) -> SiteError:
    """Make the error for a site that is not part of autograd's graph.

    Args:
        name: Name of the site.

    Returns:
        The error, to be raised.
    """
    return SiteError(
        f"site '{name}' runs where gradients are switched off or does not depend on the inputs: its neurons have "
        "no gradient. Remove the no_grad() in the model, or its checkpointing with use_reentrant=True."
    )


def in_memory_of_their_own(
    gradients: Mapping[str, Tensor | None], outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Make gradients safe to be changed in place.

    Autograd gives several sites the same memory (both sides of an addition, the parts of a concatenation), and
    views that repeat one number (behind a sum).

    Args:
        gradients: Gradient by site; None where the response does not depend on the site.
        outputs: Output by site.

    Returns:
        Gradients by site, with zeros of the shape of the output in the place of None.
    """
    taken: set[int] = set()
    owned = {}
    for name, gradient in gradients.items():
        if gradient is None:
            owned[name] = torch.zeros_like(outputs[name])
            continue
        memory = gradient.untyped_storage()
        repeats = memory.nbytes() < gradient.numel() * gradient.element_size()
        if repeats or memory.data_ptr() in taken:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
        taken.add(gradient.untyped_storage().data_ptr())
        owned[name] = gradient
    return owned
