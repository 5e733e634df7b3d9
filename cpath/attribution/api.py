"""Any attribution by name: `attribute`, `get`, `names`."""

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
from cpath.errors import InputError, unknown_name
from cpath.methods.base import Method
from cpath.probe import Target
from cpath.sites import DEFAULT_ACTIVATIONS, differentiating, evaluating


def names() -> tuple[str, ...]:
    """Names of all attributions: the registered ones, then the extraction methods as pathway gradients.

    Where both have a name ("random"), it is the attribution's; the pathway gradient of such a method is
    ``PathwayGradient(method=name)``.
    """
    return (*REGISTRY, *(name for name in methods.names() if name not in REGISTRY))


def get(name: str, **settings: Any) -> Attribution:
    """The attribution called ``name``, made with ``settings``.

    The name of an extraction method gives its `PathwayGradient`: ``sparsity`` is a setting, all others are the
    method's. Raises `UnknownNameError` for an unknown name, `InputError` for an unknown setting.
    """
    if not isinstance(name, str) or name not in names():
        raise unknown_name("attribution", name, names(), methods.base.REGISTRY.renamed | REGISTRY.renamed)
    return REGISTRY.make(name, settings) if name in REGISTRY else _pathway_gradient(name, settings)


def _pathway_gradient(method: str | Method, settings: dict[str, Any]) -> PathwayGradient:
    of_method = {key: value for key, value in settings.items() if key != "sparsity"}
    if isinstance(method, str):
        method = methods.get(method, **of_method)
    elif of_method:
        raise InputError(f"settings ({', '.join(of_method)}) go with a name; '{method.name}' is made already.")
    return PathwayGradient(method=method, sparsity=settings.get("sparsity", PathwayGradient.sparsity))


def attribute(
    model: nn.Module,
    images: Tensor,
    method: str | Attribution | Method = "neuron_mct",
    target: Target = None,
    *,
    activations: Iterable[str] = DEFAULT_ACTIVATIONS,
    max_batch: int = 64,
    **settings: Any,
) -> Tensor:
    """Attributes the response to the input, for each image: (B, C, H, W), detached.

    ``method`` a name (see `names`) with its ``settings``, an `Attribution`, or an extraction method, which stands
    for its pathway gradient. Attributions with one number a pixel (GradCAM, NeuronIntGrad*, the controls) give
    (B, 1, H, W). ``images``, ``target``, ``activations`` and ``max_batch`` as for `cpath.score`. The model runs
    in eval mode and is left as it was, and so are the images.

    Raises `InputError` for unusable images, targets or settings, `SiteError` where a site is needed and none
    is found, `UnknownNameError` for an unknown name, `MissingPackageError` without Captum where it is needed,
    `OutOfMemoryError` where a pass of ``max_batch`` images does not fit the device's memory.
    """
    max_batch = check_count("max_batch", max_batch)
    if isinstance(method, str):
        method = get(method, **settings)
    elif isinstance(method, Method):
        method = _pathway_gradient(method, settings)
    elif not isinstance(method, Attribution):
        raise InputError(f"method must be a name, an Attribution or a Method, not {method!r}.")
    elif settings:
        raise InputError(f"settings ({', '.join(settings)}) go with a name; '{method.name}' is made already.")
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer images at once"
    with evaluating(model), differentiating(), within_memory(remedy):
        probe = ResponseProbe(model, images, target, activations=activations, max_batch=max_batch)
        if images.dim() != 4:
            raise InputError(f"an attribution needs images (B, C, H, W), not {tuple(images.shape)}.")
        at_once = max(1, probe.rows_at_once // method.rows)
        parts = [method.maps(probe.part(slice(start, start + at_once))) for start in range(0, len(probe), at_once)]
    maps = torch.cat(parts)
    shape = tuple(images.shape)
    if tuple(maps.shape) not in (shape, (shape[0], 1, *shape[2:])):
        raise InputError(f"attribution '{method.name}' gave shape {tuple(maps.shape)} for images {shape}.")
    if not torch.isfinite(maps).all():
        raise InputError(f"attribution '{method.name}' gave NaN or infinite values: gradients overflow.")
    return maps
