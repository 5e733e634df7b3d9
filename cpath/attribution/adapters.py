"""cpath's attributions in the forms that Captum and Quantus take. Neither package is needed to use this file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpath.attribution.api import attribute, get
from cpath.attribution.base import Attribution
from cpath.errors import InputError
from cpath.methods.base import Method
from cpath.probe import Target
from cpath.sites import DEFAULT_ACTIVATIONS, check_activations


def _captum_wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    """Gives ``method`` the ``__wrapped__`` that Captum's own methods have and its NoiseTunnel calls."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return call


class CaptumAttribution:
    """A cpath attribution of ``model`` as an object like Captum's, with ``attribute(inputs, target=…)``.

    >>> explainer = cpath.attribution.CaptumAttribution(model, "neuron_mct", sparsity=90)
    >>> maps = explainer.attribute(images, target=3)
    >>> captum.metrics.infidelity(model, perturb, images, maps, target=3)

    ``method`` and ``settings`` as for `cpath.attribute`. Works inside Captum's NoiseTunnel.
    """

    is_gradient_method = False
    multiplies_by_inputs = False

    def __init__(
        self,
        model: nn.Module,
        method: str | Attribution | Method = "neuron_mct",
        *,
        activations: Iterable[str] = DEFAULT_ACTIVATIONS,
        max_batch: int = 64,
        **settings: Any,
    ) -> None:
        if isinstance(method, str):
            method, settings = get(method, **settings), {}
        self.forward_func = model
        self._method = method
        activations = check_activations(activations)
        self._settings: dict[str, Any] = {"activations": activations, "max_batch": max_batch, **settings}

    def has_convergence_delta(self) -> bool:
        """False: cpath's attributions report no convergence delta."""
        return False

    @_captum_wrapped
    def attribute(
        self, inputs: Tensor | tuple[Tensor], target: Any = None, additional_forward_args: None = None
    ) -> Tensor | tuple[Tensor]:
        """Attributions of the shape of ``inputs`` (B, C, H, W), in a tuple if ``inputs`` is one.

        ``target`` as for `cpath.attribute`, or a list. Where the attribution has one number a pixel, each of
        its C channels gets 1/C of it, so that sums over a pixel are kept. Raises `InputError` for several inputs
        and for additional arguments of the model.
        """
        images = inputs[0] if isinstance(inputs, tuple) else inputs
        if isinstance(inputs, tuple) and len(inputs) != 1:
            raise InputError(f"cpath attributes one input tensor, not {len(inputs)}.")
        if additional_forward_args is not None:
            raise InputError("cpath's models take images only: wrap the model to bind its additional arguments.")
        if isinstance(target, (list, tuple)):
            target = torch.as_tensor(target)
        maps = attribute(self.forward_func, images, self._method, target, **self._settings)
        if maps.shape != images.shape:
            maps = (maps / images.shape[1]).expand_as(images).contiguous()
        return (maps,) if isinstance(inputs, tuple) else maps


def quantus_explain(
    model: nn.Module,
    inputs: np.ndarray | Tensor,
    targets: np.ndarray | Tensor | int | None = None,
    method: str | Attribution | Method = "neuron_mct",
    device: torch.device | str | None = None,
    **settings: Any,
) -> np.ndarray:
    """A cpath attribution as a Quantus ``explain_func``: (B, C, H, W) or (B, 1, H, W), as an array.

    >>> metric = quantus.PixelFlipping(...)
    >>> metric(model=model, x_batch=x, y_batch=y, explain_func=cpath.attribution.quantus_explain,
    ...        explain_func_kwargs={"method": "neuron_mct", "sparsity": 90})

    ``inputs`` (B, C, H, W) are taken to the dtype and device of ``model``; ``device``, which Quantus hands on,
    moves nothing: raises `InputError` where it is not the model's. ``settings`` as for `cpath.attribute`.
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    if device is not None and torch.device(device).type != parameter.device.type:
        raise InputError(f"device is '{device}', but the model is on '{parameter.device}': move the model first.")
    images = torch.as_tensor(inputs).to(parameter)
    labels: Target = None
    if targets is not None:
        # Quantus may hold its labels as floats.
        labels = torch.as_tensor(targets).to(parameter.device, torch.int64).reshape(-1).expand(len(images))
    return attribute(model, images, method, labels, **settings).cpu().numpy()
