"""Adapters that offer cpath's attributions in the forms of Captum and Quantus. Neither is needed to import them."""

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
from cpath.response import Target
from cpath.sites import DEFAULT_SITES, check_sites, unwrap


def _captum_wrapped(method: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``method`` the attribute ``__wrapped__`` that Captum's own methods have and its NoiseTunnel calls."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        return method(*args, **kwargs)

    return call


class CaptumAttribution:
    """Attribution of a model in the form of Captum's ``Attribution``. Works inside Captum's NoiseTunnel.

    Args:
        model: A classifier that maps images (B, C, H, W) to logits (B, classes).
        method: Attribution or extraction method, as for `cpath.attribute`.
        sites: Names of the activation functions whose calls are sites.
        max_batch: Largest number of images in one forward pass, counting repetitions.
        settings: Settings of ``method``, as for `cpath.attribute`.

    Raises:
        UnknownNameError: If no attribution or method has the given name.
        InputError: If a setting is unknown or unusable.

    Example:
        >>> explainer = cpath.attribution.CaptumAttribution(model, "neuron_mct", sparsity=90)
        >>> maps = explainer.attribute(images, target=3)
        >>> from captum.metrics import infidelity
        >>> def perturb(x):
        ...     noise = 0.01 * torch.randn_like(x)
        ...     return noise, x - noise
        >>> infidelity(model, perturb, images, maps, target=3).shape
        torch.Size([2])
    """

    is_gradient_method = False
    multiplies_by_inputs = False

    def __init__(
        self,
        model: nn.Module,
        method: str | Attribution | Method = "neuron_mct",
        *,
        sites: Iterable[str] = DEFAULT_SITES,
        max_batch: int = 64,
        **settings: Any,
    ) -> None:
        if isinstance(method, str):
            method, settings = get(method, **settings), {}
        self.forward_func = model
        self._method = method
        sites = check_sites(sites, unwrap(model))
        self._settings: dict[str, Any] = {"sites": sites, "max_batch": max_batch, **settings}

    def has_convergence_delta(self) -> bool:
        """Tell Captum that no convergence delta is reported.

        Returns:
            False.
        """
        return False

    @_captum_wrapped
    def attribute(
        self, inputs: Tensor | tuple[Tensor, ...], target: Any = None, additional_forward_args: None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Compute the attribution.

        Args:
            inputs: Inputs (B, …) such as images (B, C, H, W), or a tuple of the model's positional arguments.
            target: Class to explain or function, as for `cpath.attribute`, or a list of B classes.
            additional_forward_args: Only None is supported: pass all arguments as ``inputs``.

        Returns:
            Attributions of the shape of ``inputs``, in a tuple if ``inputs`` is one, with 0 for whole numbers. If
            the attribution has one number per pixel, each of the C channels gets 1/C of it, so that the sum over a
            pixel is kept.

        Raises:
            InputError: If there are additional arguments of the model.
        """
        if additional_forward_args is not None:
            raise InputError("pass the additional arguments of the model in inputs, a tuple, or bind them in it.")
        if isinstance(target, (list, tuple)):
            target = torch.as_tensor(target, device="cpu")
        if isinstance(inputs, Tensor):
            return _whole(attribute(self.forward_func, inputs, self._method, target, **self._settings), inputs)
        maps = attribute(self.forward_func, inputs, self._method, target, **self._settings)
        return tuple(_whole(found, tensor) for found, tensor in zip(maps, inputs, strict=True))


def _whole(found: Tensor | None, tensor: Tensor) -> Tensor:
    """Give an attribution the shape of its tensor."""
    if found is None:
        return torch.zeros(tensor.shape, device=tensor.device)
    return found if found.shape == tensor.shape else (found / tensor.shape[1]).expand_as(tensor).contiguous()


def quantus_explain(
    model: nn.Module,
    inputs: np.ndarray | Tensor,
    targets: np.ndarray | Tensor | int | None = None,
    method: str | Attribution | Method = "neuron_mct",
    device: torch.device | str | None = None,
    **settings: Any,
) -> np.ndarray:
    """Compute an attribution as a Quantus ``explain_func``.

    Args:
        model: A classifier that maps images to logits (B, classes).
        inputs: Images (B, C, H, W). They are converted to the dtype and device of ``model``.
        targets: Classes (B,) to explain, one class, or None for the predicted ones.
        method: Attribution or extraction method, as for `cpath.attribute`.
        device: Device that Quantus passes on. Nothing is moved to it.
        settings: Settings of ``method``, as for `cpath.attribute`.

    Returns:
        Attributions (B, C, H, W) or (B, 1, H, W).

    Raises:
        InputError: If ``device`` is not the model's, or an argument is unusable.

    Example:
        >>> maps = cpath.attribution.quantus_explain(model, images.numpy(), [0, 3], "neuron_mct", sparsity=90)
        >>> maps.shape
        (2, 3, 8, 8)

        A metric of Quantus takes the function together with its settings:

        >>> import quantus  # doctest: +SKIP
        >>> metric = quantus.PixelFlipping()  # doctest: +SKIP
        >>> metric(  # doctest: +SKIP
        ...     model=model, x_batch=images.numpy(), y_batch=labels,
        ...     explain_func=cpath.attribution.quantus_explain,
        ...     explain_func_kwargs={"method": "neuron_mct", "sparsity": 90},
        ... )
    """
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0, device="cpu"))
    if device is not None and torch.device(device).type != parameter.device.type:
        raise InputError(f"device is '{device}', but the model is on '{parameter.device}': move the model first.")
    images = _tensor(inputs).to(parameter)
    labels: Target = None
    if targets is not None:
        # Quantus may hold its labels as floats.
        labels = _tensor(targets).to(parameter.device, torch.int64).reshape(-1).expand(len(images))
    return attribute(model, images, method, labels, **settings).cpu().numpy()


def _tensor(values: np.ndarray | Tensor | int) -> Tensor:
    return values if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")
