"""Attributions by name: `attribute`, `get`, `names`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cpath import methods
from cpath.attribution import by_captum  # noqa: F401 (registered first, so that `names` lists them first)
from cpath.attribution.base import REGISTRY, Attribution
from cpath.attribution.pathways import PathwayGradient
from cpath.attribution.response import ResponseProbe
from cpath.checks import check_count, within_memory
from cpath.devices import making_tensors_on
from cpath.errors import InputError, UnknownNameError, described, unknown_name
from cpath.inputs import GivenT
from cpath.methods.base import Method
from cpath.response import Target
from cpath.sites import DEFAULT_SITES, differentiating, evaluating
from cpath.units import NEURONS, Units, check_units

_OF_CAPTUM = {
    "guidedbackprop": "gbp",
    "inputxgradient": "input_mct",
    "integratedgradients": "input_intgrad",
    "layergradcam": "gradcam",
    "noisetunnel": "smoothgrad",
    "saliency": "gradients",
}
"""Attributions by their names in Captum, in small letters."""


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
        if isinstance(name, str) and (ours := _OF_CAPTUM.get(re.sub(r"[\W_]", "", name).lower())):
            raise UnknownNameError(f"unknown attribution '{name}': what Captum calls so is '{ours}' here.")
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
    inputs: GivenT,
    method: str | Attribution | Method = "neuron_mct",
    target: Target = None,
    *,
    sites: Iterable[str] = DEFAULT_SITES,
    unit: str | Units = NEURONS,
    baseline: Mapping[str, Tensor] | None = None,
    max_batch: int = 64,
    **settings: Any,
) -> GivenT:
    """Attribute the response to the input, for each input of a batch.

    The model runs in eval mode. The model and the inputs are left as they were.

    Args:
        model: A model that maps ``inputs`` to logits (B, classes), see `cpath.response`.
        inputs: Floats (B, …) on the model's device, such as images (B, C, H, W), normalised as the model expects; a
            tuple of positional arguments or a mapping of keyword arguments, see `cpath.inputs`. Whole numbers such
            as token ids have no gradient: pass their embeddings.
        method: Name of an attribution (see `names`), an `Attribution`, or an extraction method, which stands for
            its pathway gradient.
        target: Class to explain: None for the predicted class, an int, or ints (B,); or a function of the model's
            output that returns the response, floats (B,).
        sites: Names of the activation functions whose calls are sites.
        unit: What the pathway of a pathway gradient keeps and prunes as one, as for `cpath.score`.
        baseline: What the pathway of a pathway gradient sets pruned units to, as for `cpath.score`.
        max_batch: Largest number of inputs in one forward pass, counting repetitions. It bounds the memory and
            does not change the result.
        settings: Settings of the attribution, if ``method`` is a name, and ``sparsity`` of a pathway gradient.

    Returns:
        Attributions (B, …) of the shape of ``inputs``, detached; (B, 1, H, W) of those with one number per pixel
        (GradCAM, NeuronIntGrad*, random map, Sobel), which need images. For a tuple or a mapping, the attributions
        of all tensors of floats in the same structure, with None in the place of everything else.

    Raises:
        InputError: If inputs, target or settings are unusable, or the attribution needs images.
        SiteError: If the attribution needs a site and the model has none.
        UnknownNameError: If no attribution or method has the given name.
        MissingPackageError: If the attribution needs Captum, which is not installed.
        OutOfMemoryError: If a pass of ``max_batch`` inputs does not fit into the device's memory.

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
    if not isinstance(method, PathwayGradient) and (check_units(unit).kind != NEURONS.kind or baseline is not None):
        raise InputError(f"attribution '{method.name}' has no pathway, and so neither unit nor baseline.")
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer inputs at once"
    with evaluating(model), differentiating(), within_memory(remedy):
        probe = ResponseProbe(model, inputs, target, sites=sites, unit=unit, baseline=baseline, max_batch=max_batch)
        _ = probe.inputs.leaves()  # raises where there are none
        at_once = probe.inputs_at_once(method.rows)
        with making_tensors_on(probe.device):
            parts = [
                _found(method, probe.part(slice(start, start + at_once))) for start in range(0, len(probe), at_once)
            ]
    maps: GivenT = probe.inputs.structured(
        {number: torch.cat([part[number] for part in parts]) for number in parts[0]}
    )
    return maps


def _found(method: Attribution, probe: ResponseProbe) -> dict[int, Tensor]:
    """Compute the maps of a part of the inputs, by the number of their tensor."""
    found = method.maps(probe)
    if isinstance(found, tuple):
        maps = dict(zip(probe.inputs.sources, found, strict=True))
    elif len(probe.inputs.sources) == 1:
        maps = {probe.inputs.sources[0]: found}
    else:
        maps = {probe.image_number: found}
    for number, values in maps.items():
        _check_map(method.name, values, tuple(probe.inputs.tensors[number].shape))
    return maps


def _check_map(name: str, values: Tensor, shape: tuple[int, ...]) -> None:
    one_a_pixel = (shape[0], 1, *shape[2:]) if len(shape) == 4 else shape
    if tuple(values.shape) not in (shape, one_a_pixel):
        raise InputError(
            f"attribution '{name}' gave shape {tuple(values.shape)} for inputs {shape}: it must give the same "
            "shape, or for images one with a single channel."
        )
    if not torch.isfinite(values).all():
        raise InputError(f"attribution '{name}' gave NaN or infinite values: gradients overflow.")
