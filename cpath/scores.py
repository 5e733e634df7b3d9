"""Scores: one non-negative number per unit, from which a pathway at any sparsity follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cpath.baselines import Baseline, moved, named, selected, unnamed
from cpath.bits import pack_bits, unpack_bits
from cpath.checks import SomeImages, check_count, check_image, warn, within_memory
from cpath.display import scores_html
from cpath.errors import EmptyPathwayWarning, InputError, SiteError, described
from cpath.inputs import Given, Inputs
from cpath.layout import SiteLayout, common_dtype
from cpath.methods.base import Contributions, Method, check_contributions, get
from cpath.pathway import Pathway
from cpath.probe import Probe
from cpath.response import Target
from cpath.sites import DEFAULT_SITES, check_sites, differentiating, evaluating
from cpath.storage import read_tensors, write_tensors
from cpath.threshold import any_true, check_sparsity, keep_above
from cpath.units import NEURONS, Units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 2
"""Version of the file format that `Scores.save` writes. Format 1 had neither units, baselines nor signs."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Magnitude of each unit's contribution to the response, for every input of a batch. Made by `score`.

    ``len(scores)`` is the number of inputs; indexing selects inputs.

    Attributes:
        flat: Scores (B, units), non-negative floats. `values` are views of it.
        layout: Shape of each site's units.
        method: Name of the extraction method.
        target: Class (B,) that each input is explained for; None if the response is a function of the output.
        sites: Names of the activation functions that are sites.
        residual: Relative completeness residual (B,) of each site, for `neuron_intgrad`:
            |Σ contributions − (f(x) − f(z ← b))| / |f(x) − f(z ← b)| with the baseline b, NaN for 0/0. None for
            other methods. Near 1 at a site with a layer normalisation behind it, if the baseline is zero: the
            response is the same for all α z, α > 0, and jumps at 0. ``baseline=mean_activations(…)``, or another
            site, avoids it (docs/architectures.md).
        left_out: Names of calls of activation functions that are no sites, as they do not depend on the input.
        negative: Bits (B, ⌈units / 8⌉), packed by `cpath.bits.pack_bits`, set where the contribution is negative,
            from which `signed` is made; None if the method knows no sign.
        baseline: Values (B, *site) or (1, *site) by site that pruned units are set to; None for zero.

    Example:
        >>> scores = cpath.score(model, images, "neuron_mct")
        >>> scores
        Scores(method='neuron_mct', images=2, sites=2, neurons=352)
        >>> scores[0].values["relu2"].shape
        torch.Size([1, 6, 4, 4])
    """

    flat: Tensor
    layout: SiteLayout
    method: str
    target: Tensor | None
    sites: tuple[str, ...] = DEFAULT_SITES
    residual: dict[str, Tensor] | None = None
    left_out: tuple[str, ...] = ()
    negative: Tensor | None = None
    baseline: dict[str, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.flat)

    def __getitem__(self, images: SomeImages) -> Scores:
        """Select images.

        Args:
            images: The number of one image, a slice, or a tensor of numbers or booleans.

        Returns:
            The scores of the selected images; of one image, a batch of one.

        Raises:
            InputError: If ``images`` is none of these.
            MissingImageError: If there is no such image.
        """
        images = check_image(images, len(self), "scores belong")
        return replace(
            self,
            flat=self.flat[images],
            target=None if self.target is None else self.target[images],
            residual=self.residual and {name: value[images] for name, value in self.residual.items()},
            negative=None if self.negative is None else self.negative[images],
            baseline=selected(self.baseline, images),
        )

    def __repr__(self) -> str:
        sites, units = len(self.layout.shapes), f"{self.layout.unit}s={self.layout.units}"
        return f"Scores(method={self.method!r}, images={len(self)}, sites={sites}, {units})"

    def _repr_html_(self) -> str:
        return scores_html(self)

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """Scores (B, *units) of each site, in call order."""
        return self.layout.views(self.flat)

    @property
    def signed(self) -> dict[str, Tensor]:
        """Contributions (B, *units) of each site, in call order: the scores with their signs, made at each use.

        Raises:
            InputError: If the method knows no sign.

        Example:
            >>> scores = cpath.score(model, images)
            >>> record = cpath.Probe(model, images).record()
            >>> product = record.activations["relu2"] * record.gradients["relu2"]
            >>> torch.equal(scores.signed["relu2"], product)
            True
        """
        return self.layout.views(torch.where(self._is_negative(), -self.flat, self.flat))

    def _is_negative(self) -> Tensor:
        """Find the negative contributions: booleans (B, units)."""
        if self.negative is None:
            raise InputError(
                f"these scores have no signs: method '{self.method}' knows none, or the file that they come from "
                "is of the format before signs."
            )
        return unpack_bits(self.negative, self.layout.units)

    def pathway(self, sparsity: float, *, positive: bool = False) -> Pathway:
        """Keep the units that are left when ``sparsity`` per cent of all units are pruned.

        Keeps the units that score above the ⌈sparsity / 100 · N⌉-th smallest score of the whole network. Ties
        are never split and a zero is never kept, so the realised sparsity can be higher: see `cpath.threshold`.
        Warns (`cpath.EmptyPathwayWarning`) if the pathway of an image is empty for that reason.

        Args:
            sparsity: Per cent of the units to prune, 0 ≤ sparsity < 100.
            positive: Keep none whose contribution is negative: these count as zeros.

        Returns:
            The pathway of every image.

        Raises:
            InputError: If ``sparsity`` is outside this range, or the scores have no signs for ``positive``.

        Example:
            >>> scores = cpath.score(model, images)
            >>> scores.pathway(90).sparsity >= 90
            tensor([True, True])
            >>> speaking_for = scores.pathway(90, positive=True)
            >>> bool((scores.signed["relu2"][speaking_for.masks["relu2"]] > 0).all())
            True
        """
        sparsity = check_sparsity(sparsity)
        if 0 < sparsity < 1:
            warn(
                f"sparsity={sparsity:.15g} prunes {sparsity:.15g} per cent of the {self.layout.unit}s: "
                f"for {100 * sparsity:g} per cent say sparsity={100 * sparsity:g}.",
            )
        flat = self.flat.masked_fill(self._is_negative(), 0) if positive else self.flat
        masks = keep_above(flat, sparsity)
        empty = any_true(masks).count(False) if sparsity > 0 else 0
        if empty:
            warn(EmptyPathwayWarning(self.method, sparsity, empty, len(self)))
        return Pathway(
            masks, self.layout, self.method, sparsity, self.target, self.sites, self.left_out, self.baseline
        )

    def show(self, inputs: Tensor | None = None, **settings: Any) -> Figure:
        """Draw how strong each site is, how the scores are distributed, and where in the input they are.

        Args:
            inputs: Images (B, C, H, W) to show beside the positions, if any.
            settings: Further settings of `cpath.viz.show_scores`.

        Returns:
            A figure of matplotlib.

        Raises:
            MissingPackageError: If matplotlib is not installed.
        """
        from cpath import viz

        return viz.show_scores(self, inputs, **settings)

    def to(self, device: torch.device | str) -> Scores:
        """Move the scores to a device.

        Args:
            device: The device.

        Returns:
            The scores on ``device``.
        """
        return replace(
            self,
            flat=self.flat.to(device),
            target=None if self.target is None else self.target.to(device),
            residual=self.residual and {name: value.to(device) for name, value in self.residual.items()},
            negative=None if self.negative is None else self.negative.to(device),
            baseline=moved(self.baseline, device),
        )

    def save(self, path: str | Path) -> None:
        """Write the scores to a safetensors file. The file appears whole or not at all.

        Args:
            path: The file to write.

        Example:
            >>> cpath.score(model, images).save(folder / "scores.safetensors")
            >>> cpath.Scores.load(folder / "scores.safetensors").method
            'neuron_mct'
        """
        tensors = {"scores": self.flat}
        if self.target is not None:
            tensors["target"] = self.target
        if self.residual is not None:
            tensors["residual"] = torch.stack(list(self.residual.values()), 1)
        if self.negative is not None:
            tensors["negative"] = self.negative
        tensors |= named(self.baseline)
        metadata = {
            "kind": "scores",
            "format": FORMAT,
            "method": self.method,
            "sites": self.layout.shapes,
            "unit": self.layout.unit,
            "activations": self.sites,
            "left_out": self.left_out,
        }
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read scores from a file that `save` wrote.

        Args:
            path: The file to read.

        Returns:
            The scores, on the CPU.

        Raises:
            InputError: If the file is missing, damaged, or of another kind.
        """
        tensors, metadata = read_tensors(path, "scores", (1, FORMAT))
        layout = SiteLayout.named(metadata["sites"], metadata.get("unit"))
        if "scores" not in tensors or tensors["scores"].shape[-1:] != (layout.units,):
            raise InputError(f"{path} is damaged: its scores do not fit its sites.")
        residual = None
        if "residual" in tensors:
            residual = dict(zip(layout.shapes, tensors["residual"].unbind(1), strict=True))
        return cls(
            tensors["scores"],
            layout,
            metadata["method"],
            tensors.get("target"),
            tuple(metadata["activations"]),
            residual,
            tuple(metadata.get("left_out", ())),
            tensors.get("negative"),
            unnamed(tensors, layout),
        )


def score(
    model: nn.Module,
    inputs: Given | Inputs,
    method: str | Method = "neuron_mct",
    target: Target = None,
    *,
    sites: Iterable[str] = DEFAULT_SITES,
    unit: str | Units = NEURONS,
    baseline: Mapping[str, Tensor] | Baseline | None = None,
    max_batch: int = 64,
) -> Scores:
    """Score every unit of a model by its contribution to the response, for each input.

    The model runs in eval mode and is left as it was.

    Args:
        model: A model that maps ``inputs`` to logits (B, classes), see `cpath.response`.
        inputs: Tensor (B, …) on the model's device, such as images (B, C, H, W), normalised as the model expects,
            or token ids; a tuple of positional or a mapping of keyword arguments, see `cpath.inputs`.
        method: Name of an extraction method (see `cpath.methods.names`), or a `Method`.
        target: Class to explain: None for the predicted class, an int, or ints (B,); or a function of the model's
            output that returns the response, floats (B,).
        sites: Names of the activation functions whose calls are sites.
        unit: What is scored, kept and pruned as one: ``"neuron"``, ``"channel"``, ``"token"`` or ``"head"``, or
            `cpath.Units`, which names the axes of sites whose shapes do not tell them (see `cpath.units`).
        baseline: What pruned units are set to, and contributions are measured from: None for zero, or tensors
            (B, *site), (1, *site) or (*site) by site, as `mean_activations` and `observe` give them.
        max_batch: Largest number of inputs in one forward pass, counting repetitions. It bounds the memory and
            does not change the result.

    Returns:
        The scores of all units for each input.

    Raises:
        InputError: If inputs, target, method, baseline or ``max_batch`` are unusable.
        SiteError: If the model has no site, or a site has no such units.
        UnknownNameError: If no method or activation function has the given name.
        OutOfMemoryError: If a pass of ``max_batch`` inputs does not fit into the device's memory.

    Example:
        >>> scores = cpath.score(model, images, "neuron_intgrad", target=3)
        >>> scores.flat.shape, scores.target
        (torch.Size([2, 352]), tensor([3, 3]))
        >>> cpath.score(model, images, "neuron_intgrad", unit="channel")
        Scores(method='neuron_intgrad', images=2, sites=2, channels=10)
    """
    method = _method(method)
    sites = check_sites(sites)
    max_batch = check_count("max_batch", max_batch)
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer inputs at once"
    with evaluating(model), differentiating(), within_memory(remedy):
        whole = Probe(model, inputs, target, sites=sites, unit=unit, baseline=baseline, max_batch=max_batch)
        return _score(method, whole)


def find_pathway(
    model: nn.Module,
    inputs: Given | Inputs,
    method: str | Method = "neuron_mct",
    sparsity: float = 90,
    target: Target = None,
    *,
    sites: Iterable[str] = DEFAULT_SITES,
    unit: str | Units = NEURONS,
    baseline: Mapping[str, Tensor] | Baseline | None = None,
    positive: bool = False,
    max_batch: int = 64,
) -> Pathway:
    """Find the pathway of each input at a sparsity: `score` and `Scores.pathway` in one call.

    A method that only tells which neurons to keep (``graded`` is False: `active`, and `greedy_released`,
    which searches for this sparsity) has its pathway without a threshold. Its ``requested_sparsity`` is the one
    asked for.

    Args:
        model: A model that maps ``inputs`` to logits (B, classes), see `cpath.response`.
        inputs: Tensor (B, …) on the model's device, such as images (B, C, H, W), normalised as the model expects,
            or token ids; a tuple of positional or a mapping of keyword arguments, see `cpath.inputs`.
        method: Name of an extraction method (see `cpath.methods.names`), or a `Method`.
        sparsity: Per cent of all units to prune, 0 ≤ sparsity < 100.
        target: Class to explain: None for the predicted class, an int, or ints (B,); or a function of the model's
            output that returns the response, floats (B,).
        sites: Names of the activation functions whose calls are sites.
        unit: What is kept and pruned as one, as for `score`.
        baseline: What pruned units are set to, as for `score`.
        positive: Keep no unit whose contribution is negative.
        max_batch: Largest number of inputs in one forward pass, counting repetitions.

    Returns:
        The pathway of every input.

    Raises:
        InputError: If an argument is unusable.
        SiteError: If the model has no site.
        UnknownNameError: If no method or activation function has the given name.
        OutOfMemoryError: If a pass of ``max_batch`` inputs does not fit into the device's memory.

    Example:
        >>> pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=75)
        >>> {name: tuple(mask.shape) for name, mask in pathway.masks.items()}
        {'relu1': (2, 4, 8, 8), 'relu2': (2, 6, 4, 4)}
    """
    sparsity = check_sparsity(sparsity)
    method = _method(method).at(sparsity)
    scores = score(model, inputs, method, target, sites=sites, unit=unit, baseline=baseline, max_batch=max_batch)
    if method.graded:
        return scores.pathway(sparsity, positive=positive)
    return replace(scores.pathway(0, positive=positive), requested_sparsity=sparsity)


def _method(method: object) -> Method:
    method = get(method) if isinstance(method, str) else method
    if not isinstance(method, Method):
        hint = f": {method.__name__}() is one" if isinstance(method, type) and issubclass(method, Method) else ""
        raise InputError(f"method must be a registered name or a cpath.Method, not {described(method)}{hint}.")
    return method


def _check_values(method: Method, values: object, batch: int) -> None:
    if not isinstance(values, Mapping) or not values:
        raise InputError(
            f"method '{method.name}' must return tensors (B, *site) by site, as probe.record().activations "
            f"are, not {type(values).__name__}."
        )
    for name, value in values.items():
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != batch:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"method '{method.name}' must return ({batch}, *site) at site '{name}', not {shape}.")
        if value.is_complex():
            raise InputError(f"method '{method.name}' must return real numbers, not {value.dtype} ('{name}').")


def _whole(targets: list[Tensor | None]) -> Tensor | None:
    """Join the classes of all parts; None where the target is a function."""
    known = [classes for classes in targets if classes is not None]
    return torch.cat(known) if known else None


def _score(method: Method, whole: Probe) -> Scores:
    flat: Tensor | None = None
    layout: SiteLayout | None = None
    targets: list[Tensor | None] = []
    negative: list[Tensor] = []
    residuals: list[Mapping[str, Tensor]] = []
    for start in range(0, len(whole), whole.max_batch):
        probe = whole.part(slice(start, start + whole.max_batch))
        found = method.contributions(probe)
        values, residual = (found.values, found.residual) if isinstance(found, Contributions) else (found, None)
        _check_values(method, values, len(probe))
        if layout is None or flat is None:
            layout = whole.layout(values)
            device = next(iter(values.values())).device
            flat = torch.empty(len(whole), layout.units, dtype=common_dtype(values), device=device)
        elif whole.layout(values).shapes != layout.shapes:
            raise SiteError("the model's sites differ from one input to another: their scores cannot be compared.")
        rows = flat[start : start + len(probe)]
        below = _write_magnitudes(values, layout, rows, method.signed)
        check_contributions(rows, method.name)
        targets.append(probe.target)
        if below is not None:
            negative.append(pack_bits(below))
        if residual is not None:
            residuals.append(residual)
    assert flat is not None
    assert layout is not None
    residual = (
        {name: torch.cat([part[name] for part in residuals]) for name in layout.shapes} if residuals else None
    )
    return Scores(
        flat,
        layout,
        method.name,
        _whole(targets),
        whole.sites,
        residual,
        tuple(sorted(whole.left_out)),
        torch.cat(negative) if negative else None,
        None if whole.baseline is None else whole.baseline.of(layout),
    )


def _write_magnitudes(
    values: Mapping[str, Tensor], layout: SiteLayout, rows: Tensor, signed: bool
) -> Tensor | None:
    """Write the magnitudes of the units' contributions to ``rows`` (B, units); return where they are negative."""
    below = torch.empty(rows.shape, dtype=torch.bool, device=rows.device) if signed else None
    negative = {} if below is None else layout.views(below)
    for name, view in layout.views(rows).items():
        value = values[name]
        value = layout.any(name, value) if value.dtype == torch.bool else layout.sum(name, value)
        torch.abs(value.to(rows.dtype), out=view)
        if signed:
            _mark_negative(value, negative[name])
    return below


def _mark_negative(values: Tensor, out: Tensor) -> None:
    if values.device.type == "cpu" and values.dtype != torch.bfloat16 and not values.requires_grad:
        np.less(values.numpy(), 0, out=out.numpy())  # six times as fast
    else:
        torch.lt(values, 0, out=out)
