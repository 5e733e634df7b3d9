"""Scores: one non-negative number per neuron, from which a pathway at any sparsity follows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from cpath.checks import SomeImages, check_count, check_image, within_memory
from cpath.errors import InputError, SiteError
from cpath.layout import SiteLayout, common_dtype
from cpath.methods.base import Contributions, Method, check_contributions, get
from cpath.pathway import Pathway
from cpath.probe import Probe, Target, check_images
from cpath.sites import DEFAULT_ACTIVATIONS, check_activations, differentiating, evaluating
from cpath.storage import read_tensors, write_tensors
from cpath.threshold import any_true, check_sparsity, keep_above

FORMAT = 1
"""Of the files that `Scores.save` writes."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What each neuron contributes to the response, for every image of a batch. Made by `score`."""

    flat: Tensor
    """(B, neurons) non-negative floats; `values` are views of it."""
    layout: SiteLayout
    method: str
    target: Tensor
    """(B,) class that each image is explained for."""
    activations: tuple[str, ...] = DEFAULT_ACTIVATIONS
    """Names of the activation functions that are sites."""
    residual: dict[str, Tensor] | None = None
    """(B,) by site, for `neuron_intgrad`: relative completeness residual
    |Σ contributions − (f(x) − f(z ← 0))| / |f(x) − f(z ← 0)|, NaN for 0/0."""

    def __len__(self) -> int:
        return len(self.flat)

    def __getitem__(self, images: SomeImages) -> Scores:
        """The scores of some of the images (a slice, or a tensor of numbers or booleans), or of one."""
        images = check_image(images, len(self), "scores belong")
        residual = self.residual and {name: value[images] for name, value in self.residual.items()}
        return replace(self, flat=self.flat[images], target=self.target[images], residual=residual)

    def __repr__(self) -> str:
        sites, neurons = len(self.layout.shapes), self.layout.neurons
        return f"Scores(method={self.method!r}, images={len(self)}, sites={sites}, neurons={neurons})"

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """Scores by site, (B, *site), in forward order."""
        return self.layout.views(self.flat)

    def pathway(self, sparsity: float) -> Pathway:
        """The pathway that is left when ``sparsity`` per cent of all neurons are pruned, 0 ≤ sparsity < 100.

        Keeps the neurons that score above the ⌈sparsity / 100 · N⌉-th smallest score of the whole network. Ties
        are never split and a zero is never kept, so the realised sparsity can be higher. Warns where that leaves
        nothing of an image's pathway.
        """
        sparsity = check_sparsity(sparsity)
        if 0 < sparsity < 1:
            warnings.warn(
                f"sparsity={sparsity:g} prunes {sparsity:g} per cent of the neurons: "
                f"for {100 * sparsity:g} per cent say sparsity={100 * sparsity:g}.",
                stacklevel=2,
            )
        masks = keep_above(self.flat, sparsity)
        empty = any_true(masks).count(False) if sparsity > 0 else 0
        if empty:
            warnings.warn(
                f"at sparsity={sparsity:g} the pathways of {empty} of {len(self)} images are empty: the largest "
                f"scores of '{self.method}' tie, or are zero. Ask for less; of scores that only tell which "
                "neurons to keep, sparsity=0 keeps these.",
                RuntimeWarning,
                stacklevel=2,
            )
        return Pathway(masks, self.layout, self.method, sparsity, self.target, self.activations)

    def to(self, device: torch.device | str) -> Scores:
        """The scores on another device."""
        residual = self.residual and {name: value.to(device) for name, value in self.residual.items()}
        return replace(self, flat=self.flat.to(device), target=self.target.to(device), residual=residual)

    def save(self, path: str | Path) -> None:
        """Writes the scores to ``path`` (safetensors), atomically."""
        tensors = {"scores": self.flat, "target": self.target}
        if self.residual is not None:
            tensors["residual"] = torch.stack(list(self.residual.values()), 1)
        metadata = {
            "kind": "scores",
            "format": FORMAT,
            "method": self.method,
            "sites": self.layout.shapes,
            "activations": self.activations,
        }
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """The scores in a file that `save` wrote, on the CPU; raises `InputError` for any other file."""
        tensors, metadata = read_tensors(path, "scores", FORMAT)
        layout = SiteLayout({name: tuple(shape) for name, shape in metadata["sites"].items()})
        if "scores" not in tensors or tensors["scores"].shape[-1:] != (layout.neurons,):
            raise InputError(f"{path} is damaged: its scores do not fit its sites.")
        residual = None
        if "residual" in tensors:
            residual = dict(zip(layout.shapes, tensors["residual"].unbind(1), strict=True))
        return cls(
            tensors["scores"],
            layout,
            metadata["method"],
            tensors["target"],
            tuple(metadata["activations"]),
            residual,
        )


def score(
    model: nn.Module,
    images: Tensor,
    method: str | Method = "neuron_mct",
    target: Target = None,
    *,
    activations: Iterable[str] = DEFAULT_ACTIVATIONS,
    max_batch: int = 64,
) -> Scores:
    """Scores every neuron of ``model`` by its contribution to the response, for each image.

    ``images`` (B, C, H, W) floats on the model's device; ``method`` a registered name or a `Method`;
    ``target`` the class to explain: None (the predicted one), an int, or (B,) ints; ``activations`` the
    functions that are sites; ``max_batch`` the most images, counting repetitions, in one forward pass: it
    bounds the memory and does not change the result. The model runs in eval mode and is left as it was.

    Raises `InputError` for unusable images or targets, `SiteError` where no site is found, `UnknownNameError`
    for an unknown method, `OutOfMemoryError` where a pass of ``max_batch`` images does not fit the device's memory.
    """
    method = _method(method)
    activations = check_activations(activations)
    max_batch = check_count("max_batch", max_batch)
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer images at once"
    with evaluating(model), differentiating(), within_memory(remedy):
        whole = Probe(model, check_images(model, images), target, activations=activations, max_batch=max_batch)
        return _score(method, whole)


def find_pathway(
    model: nn.Module,
    images: Tensor,
    method: str | Method = "neuron_mct",
    sparsity: float = 90,
    target: Target = None,
    *,
    activations: Iterable[str] = DEFAULT_ACTIVATIONS,
    max_batch: int = 64,
) -> Pathway:
    """The pathway that ``method`` finds at ``sparsity`` per cent: `score` and `Scores.pathway` in one.

    A method that only tells which neurons to keep (``graded`` is False: `active`, and `greedy_released`, which
    searches for this sparsity) has its pathway without a threshold; ``requested_sparsity`` is what was asked for.
    Arguments and errors as for `score` and `Scores.pathway`.
    """
    sparsity = check_sparsity(sparsity)
    method = _method(method).at(sparsity)
    scores = score(model, images, method, target, activations=activations, max_batch=max_batch)
    if method.graded:
        return scores.pathway(sparsity)
    return replace(scores.pathway(0), requested_sparsity=sparsity)


def _method(method: object) -> Method:
    method = get(method) if isinstance(method, str) else method
    if not isinstance(method, Method):
        hint = f": {method.__name__}() is one" if isinstance(method, type) and issubclass(method, Method) else ""
        raise InputError(f"method must be a registered name or a cpath.Method, not {method!r}{hint}.")
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


def _score(method: Method, whole: Probe) -> Scores:
    flat: Tensor | None = None
    layout: SiteLayout | None = None
    targets: list[Tensor] = []
    residuals: list[Mapping[str, Tensor]] = []
    for start in range(0, len(whole), whole.max_batch):
        probe = whole.part(slice(start, start + whole.max_batch))
        found = method.contributions(probe)
        values, residual = (found.values, found.residual) if isinstance(found, Contributions) else (found, None)
        _check_values(method, values, len(probe))
        if layout is None or flat is None:
            layout = SiteLayout.of(values)
            device = next(iter(values.values())).device
            flat = torch.empty(len(whole), layout.neurons, dtype=common_dtype(values), device=device)
        elif SiteLayout.of(values).shapes != layout.shapes:
            raise SiteError("the model's sites differ from one image to another: their scores cannot be compared.")
        rows = flat[start : start + len(probe)]
        for name, view in layout.views(rows).items():
            torch.abs(values[name].to(flat.dtype), out=view)
        check_contributions(rows, method.name)
        targets.append(probe.target)
        if residual is not None:
            residuals.append(residual)
    assert flat is not None
    assert layout is not None
    residual = (
        {name: torch.cat([part[name] for part in residuals]) for name in layout.shapes} if residuals else None
    )
    return Scores(flat, layout, method.name, torch.cat(targets), whole.activation_names, residual)
