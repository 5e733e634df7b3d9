"""Baselines: what pruned units are set to. Zero, a mean, or the values on another input.

A baseline is a mapping of site to tensor. `mean_activations` makes one of a dataset, and `cpath.observe` one of a
counterfactual input:

    >>> with cpath.observe(model) as seen, torch.no_grad():
    ...     _ = model(images.flip(3))
    >>> pathway = cpath.find_pathway(model, images, sparsity=90, baseline=seen.activations)
    >>> with pathway.restrict(model):  # pruned neurons answer as to the mirrored images
    ...     logits = model(images)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cpath.errors import InputError, MaskError, described
from cpath.layout import SiteLayout


class Baseline:
    """Values that pruned units of a batch are set to, by site. Made by `check_baseline`.

    Args:
        values: Tensors (B, *site), (1, *site) or (*site) by site name.
        batch: Number of images B.
    """

    def __init__(self, values: Mapping[str, Tensor], batch: int) -> None:
        self._values = dict(values)
        self._batch = batch
        # A tensor's rows are known once its site's number of dimensions is, so selections wait until then.
        self._selections: tuple[slice | Tensor, ...] = ()

    def part(self, images: slice | Tensor) -> Baseline:
        """Select images.

        Args:
            images: A slice, or a tensor of numbers or booleans.

        Returns:
            The baseline of these images.
        """
        part = Baseline(self._values, self._batch)
        part._selections = (*self._selections, images)
        return part

    def at(self, name: str, output: Tensor) -> Tensor:
        """Get the values of a site.

        Args:
            name: Name of the site.
            output: Its output (B, *site).

        Returns:
            Values (B, *site) or (1, *site), of the type of ``output``.

        Raises:
            InputError: If the baseline lacks the site, or its values do not fit the output.
        """
        value = self._of(name, output.dim())
        if value.shape[1:] != output.shape[1:]:
            raise InputError(
                f"the baseline of site '{name}' has the shape {tuple(value.shape[1:])} for each input, but the "
                f"model gives {tuple(output.shape[1:])}: record it with inputs of the same size."
            )
        return value.to(output.dtype)

    def of(self, layout: SiteLayout) -> dict[str, Tensor]:
        """Get the values of all sites of a network.

        Args:
            layout: The sites, with their units.

        Returns:
            Values (B, *site) or (1, *site) by site.

        Raises:
            InputError: If the baseline lacks a site.
            MaskError: If the values of a site do not fit its units.
        """
        values = {name: self._of(name, 1 + len(shape)) for name, shape in layout.shapes.items()}
        for name, value in values.items():
            if not layout.fits(name, tuple(value.shape[1:])):
                raise MaskError(
                    f"the baseline of site '{name}' has the shape {tuple(value.shape[1:])} for each input, which "
                    f"does not fit its {layout.unit}s, {layout.shapes[name]}."
                )
        return values

    def _of(self, name: str, dimensions: int) -> Tensor:
        value = self._values.get(name)
        if value is None:
            raise InputError(
                f"the baseline has no values for site '{name}': record it from the same model with the same sites."
            )
        if value.dim() == dimensions - 1:
            return value.unsqueeze(0)
        if value.dim() != dimensions or len(value) not in (1, self._batch):
            raise InputError(
                f"the baseline of site '{name}' has the shape {tuple(value.shape)}: it must be that of the site's "
                f"output for one input, or for each of the {self._batch} inputs."
            )
        if len(value) > 1:
            for images in self._selections:
                value = value[images]
        return value


def check_baseline(baseline: object, batch: int, device: torch.device) -> Baseline | None:
    """Check what is to take the place of pruned units, as far as that needs no model.

    Args:
        baseline: None for zero, tensors by site, or a checked baseline.
        batch: Number of images B.
        device: Device of the images.

    Returns:
        The baseline; None for zero.

    Raises:
        InputError: If it is none, or holds something else than finite floats on ``device``.
    """
    if baseline is None or isinstance(baseline, Baseline):
        return baseline
    if not isinstance(baseline, Mapping):
        raise InputError(
            "baseline must be None (zero), or tensors by site as cpath.mean_activations and cpath.observe give "
            f"them, not {described(baseline)}."
        )
    if not baseline:
        raise InputError(
            "the baseline holds no site: it was read before the model ran, or cpath.observe looked for sites that "
            "the model does not have. Give both the same ones, as in cpath.observe(model, sites='gelu')."
        )
    return Baseline({name: _checked(name, value, device) for name, value in baseline.items()}, batch)


def _checked(name: object, value: object, device: torch.device) -> Tensor:
    if not isinstance(name, str) or not isinstance(value, Tensor) or not value.is_floating_point():
        raise InputError(f"a baseline holds tensors of floats by name of site, not {described(value)}.")
    if value.device != device:
        raise InputError(
            f"the baseline of site '{name}' is on {value.device}, the images on {device}: "
            f"pass {{name: value.to('{device}') for name, value in baseline.items()}}."
        )
    if not torch.isfinite(value).all():
        raise InputError(f"the baseline of site '{name}' holds NaN or infinite values.")
    # Tensors made under inference_mode cannot be saved for a backward pass.
    return value.clone() if value.is_inference() else value.detach()


def blended(output: Tensor, kept: Tensor, baseline: Tensor | None) -> Tensor:
    """Set the pruned units of a site's output to their baseline.

    Args:
        output: Output (B, *site).
        kept: Masks or gates (B, *units) that broadcast to it.
        baseline: Values (B, *site) or (1, *site); None for zero.

    Returns:
        kept · output + (1 − kept) · baseline, which is exactly ``output`` where ``kept`` is 1 and exactly the
        baseline where it is 0.
    """
    if baseline is None:
        return output * kept.to(output.dtype)
    if kept.dtype == torch.bool:
        return torch.where(kept, output, baseline)
    return torch.lerp(baseline, output, kept.to(output.dtype))


def selected(baseline: Mapping[str, Tensor] | None, images: slice | Tensor) -> dict[str, Tensor] | None:
    """Select the images' rows of a baseline; rows that all images share stay.

    Args:
        baseline: Values (B, *site) or (1, *site) by site.
        images: A slice, or a tensor of numbers or booleans.

    Returns:
        The values of these images.
    """
    if baseline is None:
        return None
    return {name: value if len(value) == 1 else value[images] for name, value in baseline.items()}


def moved(baseline: Mapping[str, Tensor] | None, device: torch.device | str) -> dict[str, Tensor] | None:
    """Move a baseline to a device.

    Args:
        baseline: Values by site.
        device: The device.

    Returns:
        The values on ``device``.
    """
    return None if baseline is None else {name: value.to(device) for name, value in baseline.items()}


_PREFIX = "baseline:"


def named(baseline: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Name the tensors of a baseline for a file.

    Args:
        baseline: Values by site; None for zero.

    Returns:
        Tensors by name in the file; none for zero.
    """
    return {_PREFIX + name: value for name, value in (baseline or {}).items()}


def unnamed(tensors: Mapping[str, Tensor], layout: SiteLayout) -> dict[str, Tensor] | None:
    """Find the baseline among the tensors of a file.

    Args:
        tensors: Tensors by name.
        layout: The sites.

    Returns:
        Values by site; None for zero.
    """
    found = {name: tensors[_PREFIX + name] for name in layout.shapes if _PREFIX + name in tensors}
    return found or None
