"""Attributions by name: `attribute`, `get`, `names`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from cpath import methods
from cpath.attribution.base import REGISTRY, Attribution
from cpath.attribution.pathways import PathwayGradient
from cpath.attribution.response import ResponseProbe
from cpath.checks import check_count, within_memory
from cpath.devices import making_tensors_on
from cpath.errors import InputError, described, unknown_name
from cpath.methods.base import Method
from cpath.probe import Target
from cpath.sites import DEFAULT_SITES, differentiating, evaluating


def names() -> tuple[str, ...]:
    """List the names of all attributions: the registered ones, then the extraction methods as pathway gradients.

    A name that both have ("random") stands for the attribution; the pathway gradient of such a method is
    ``PathwayGradient(method=name)``.

    Returns:
        The names.

    Example:
        >>> cpath.attribution.names()[:3]
        ('gradients', 'input_mct', 'input_intgrad')
    """
    return (*REGISTRY, *(name for name in methods.names() if name not in REGISTRY))


def get(name: str, **settings: Any) -> Attribution:
    """Make the attribution of a name.

    Args:
        name: Name of an attribution, or of an extraction method, which gives its `PathwayGradient`.
        settings: Settings of the attribution. Of a `PathwayGradient`, ``sparsity`` is one and all others are the
            method's.

    Returns:
        The attribution.

    Raises:
        UnknownNameError: If no attribution or method has this name.
        InputError: If a setting is unknown or unusable.

    Example:
        >>> cpath.attribution.get("smoothgrad", samples=10)
        SmoothGrad(samples=10, noise=0.15, seed=0)
    """
    if not isinstance(name, str) or name not in names():
        raise unknown_name("attribution", name, names(), methods.base.REGISTRY.renamed | REGISTRY.renamed)
    return REGISTRY.make(name, settings) if name in REGISTRY else _pathway_gradient(name, settings)


def _settings_error(made: Attribution | Method, settings: Iterable[str]) -> InputError:
    return InputError(
        f"'{made.name}' was passed as an object, so it cannot take further settings ({', '.join(settings)}): "
        "give them to its constructor, or pass its name."
    )


def _pathway_gradient(method: str | Method, settings: dict[str, Any]) -> PathwayGradient:
    of_method = {key: value for key, value in settings.items() if key != "sparsity"}
    if isinstance(method, str):
        method = methods.get(method, **of_method)
    elif of_method:
        raise _settings_error(method, of_method)
    return PathwayGradient(method=method, sparsity=settings.get("sparsity", PathwayGradient.sparsity))


def attribute(
    model: nn.Module,
    images: Tensor,
    method: str | Attribution | Method = "neuron_mct",
    target: Target = None,
    *,
    sites: Iterable[str] = DEFAULT_SITES,
    max_batch: int = 64,
    **settings: Any,
) -> Tensor:
    """Attribute the response to the input, for each image.

    The model runs in eval mode. The model and the images are left as they were.

    Args:
        model: A classifier that maps ``images`` to logits (B, classes).
        images: Floats (B, C, H, W) on the model's device, normalised as the model expects.
        method: Name of an attribution (see `names`), an `Attribution`, or an extraction method, which stands for
            its pathway gradient.
        target: Class to explain: None for the predicted class, an int, or ints (B,).
        sites: Names of the activation functions whose calls are sites.
        max_batch: Largest number of images in one forward pass, counting repetitions. It bounds the memory and
            does not change the result.
        settings: Settings of the attribution, if ``method`` is a name, and ``sparsity`` of a pathway gradient.

    Returns:
        Attributions (B, C, H, W), detached; (B, 1, H, W) of those with one number per pixel (GradCAM,
        NeuronIntGrad*, random map, Sobel).

    Raises:
        InputError: If images, target or settings are unusable.
        SiteError: If the attribution needs a site and the model has none.
        UnknownNameError: If no attribution or method has the given name.
        MissingPackageError: If the attribution needs Captum, which is not installed.
        OutOfMemoryError: If a pass of ``max_batch`` images does not fit into the device's memory.

    Example:
        >>> cpath.attribute(model, images, "neuron_mct", sparsity=80).shape
        torch.Size([2, 3, 8, 8])
        >>> cpath.attribute(model, images, "gradcam", target=1).shape
        torch.Size([2, 1, 8, 8])
    """
    max_batch = check_count("max_batch", max_batch)
    if isinstance(method, str):
        method = get(method, **settings)
    elif isinstance(method, Method):
        method = _pathway_gradient(method, settings)
    elif not isinstance(method, Attribution):
        raise InputError(f"method must be a name, an Attribution or a Method, not {described(method)}.")
    elif settings:
        raise _settings_error(method, settings)
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer images at once"
    with evaluating(model), differentiating(), within_memory(remedy):
        probe = ResponseProbe(model, images, target, sites=sites, max_batch=max_batch)
        if images.dim() != 4:
            raise InputError(f"an attribution needs images (B, C, H, W), not {tuple(images.shape)}.")
        at_once = max(1, probe.rows_at_once // method.rows)
        with making_tensors_on(images.device):
            parts = [
                method.maps(probe.part(slice(start, start + at_once))) for start in range(0, len(probe), at_once)
            ]
    maps = torch.cat(parts)
    shape = tuple(images.shape)
    if tuple(maps.shape) not in (shape, (shape[0], 1, *shape[2:])):
        raise InputError(
            f"attribution '{method.name}' gave shape {tuple(maps.shape)} for images {shape}: it must give the same "
            "shape, or one with a single channel."
        )
    if not torch.isfinite(maps).all():
        raise InputError(f"attribution '{method.name}' gave NaN or infinite values: gradients overflow.")
    return maps
