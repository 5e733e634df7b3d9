"""Means of activations over a dataset, the usual baseline of ablations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cpath.devices import widest
from cpath.errors import InputError
from cpath.inputs import Inputs
from cpath.probe import Probe
from cpath.sites import DEFAULT_SITES, evaluating


def mean_activations(
    model: nn.Module, loader: Iterable[Any], *, sites: str | Iterable[str] = DEFAULT_SITES
) -> dict[str, Tensor]:
    """Compute the mean output of every site over a dataset, for use as a baseline.

    The batches pass one by one, summed in float64 where the device has it, so that the memory is that of one
    batch's activations whatever the size of the dataset. The model runs in eval mode and is left as it was.

    Args:
        model: The model.
        loader: Batches: inputs, or tuples that begin with them as a DataLoader gives (inputs, labels). A tensor is
            one batch. All inputs must have the same size; they are moved to the model's device.
        sites: Names of the activation functions whose calls are sites.

    Returns:
        Means (1, *site) by site, in call order, of the type of the site's output.

    Raises:
        InputError: If there is no batch, inputs are unusable, or sizes differ.
        SiteError: If the model has no site.

    Example:
        >>> mean = cpath.mean_activations(model, [images[:1], images[1:]])
        >>> with cpath.observe(model) as seen, torch.no_grad():
        ...     _ = model(images)
        >>> torch.allclose(mean["relu1"], seen.activations["relu1"].mean(0, keepdim=True))
        True
        >>> cpath.score(model, images, "neuron_intgrad", baseline=mean).residual["relu2"].shape
        torch.Size([2])
    """
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    kinds: dict[str, torch.dtype] = {}
    for batch in [loader] if isinstance(loader, Tensor) else loader:
        for name, output in _activations(model, batch, sites).items():
            total = output.sum(0, keepdim=True, dtype=widest(output.device))
            if name in sums and sums[name].shape != total.shape:
                raise InputError(
                    f"site '{name}' gives {tuple(output.shape[1:])} for some inputs and "
                    f"{tuple(sums[name].shape[1:])} for others: a mean needs inputs of one size."
                )
            sums[name] = sums[name].add_(total) if name in sums else total
            counts[name] = counts.get(name, 0) + len(output)
            kinds[name] = output.dtype
    if not sums:
        raise InputError("the loader gave no batch to take a mean of.")
    return {name: (total / counts[name]).to(kinds[name]) for name, total in sums.items()}


def _activations(model: nn.Module, batch: Any, sites: str | Iterable[str]) -> dict[str, Tensor]:
    inputs = batch[0] if isinstance(batch, tuple | list) and batch else batch
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    if first is not None and isinstance(inputs, Tensor | Inputs):
        inputs = inputs.to(first.device)
    with evaluating(model):
        return Probe(model, inputs, sites=sites).record(gradients=False).activations
