"""Pathways: the units that are kept at a sparsity, as an immutable value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cpath.baselines import blended, check_baseline, moved, named, selected, unnamed
from cpath.bits import pack_bits, unpack_bits
from cpath.checks import SomeImages, check_image, warn
from cpath.devices import widest
from cpath.display import pathway_html
from cpath.errors import InputError, MaskError, described
from cpath.layout import SiteLayout
from cpath.sites import DEFAULT_SITES, EVERY_SITE, check_sites, evaluating, intercept, is_dead, unwrap
from cpath.storage import read_tensors, write_tensors
from cpath.threshold import count_true
from cpath.trial import known
from cpath.units import NEURONS, Units, check_units

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMAT = 2  # 1 had neither units nor baselines


@dataclass(frozen=True, eq=False)
class Pathway:
    """Neurons through which a network answers each image of a batch.

    Made by `Scores.pathway` or `find_pathway`, or from masks of one's own by `from_masks`. ``len(pathway)`` is the
    number of images; indexing selects images.

    Attributes:
        flat: Masks (B, units), bool, True for a kept unit. `masks` are views of it.
        layout: Shape of each site's units.
        method: Name of the extraction method.
        requested_sparsity: Per cent of the units that were to be pruned; None if no sparsity was asked for.
        target: Class (B,) that each input was explained for; None if it is unknown, or the response was a function.
        sites: Names of the activation functions that are sites.
        left_out: Names of their calls that are no sites, because they do not depend on the input.
        baseline: Values (B, *site) or (1, *site) by site that pruned units are set to; None for zero.

    Example:
        >>> pathway = cpath.find_pathway(model, images, "random", sparsity=75)
        >>> pathway
        Pathway(method='random', images=2, sites=2, neurons=352, sparsity=75.00 %)
    """

    flat: Tensor
    layout: SiteLayout
    method: str = "custom"
    requested_sparsity: float | None = None
    target: Tensor | None = None
    sites: tuple[str, ...] = DEFAULT_SITES
    left_out: tuple[str, ...] = ()
    baseline: dict[str, Tensor] | None = None

    @classmethod
    def from_masks(
        cls,
        masks: Mapping[str, Tensor],
        *,
        method: str = "custom",
        requested_sparsity: float | None = None,
        target: Tensor | None = None,
        sites: Iterable[str] = DEFAULT_SITES,
        unit: str | Units = NEURONS,
        baseline: Mapping[str, Tensor] | None = None,
    ) -> Pathway:
        """Make a pathway from boolean masks. The masks are copied.

        Args:
            masks: Boolean masks (B, *units) by site name, in call order, which broadcast to the sites' outputs.
                True keeps a unit.
            method: Name of their origin.
            requested_sparsity: Per cent of the units that were to be pruned, if any.
            target: Class (B,) that each image was explained for, if any.
            sites: Names of the activation functions that are sites.
            unit: What a mask keeps or prunes as one. A channel's mask of (C, H, W) has the shape (B, C, 1, 1).
            baseline: What pruned units are set to: None for zero, or tensors (B, *site), (1, *site) or (*site) by
                site.

        Returns:
            The pathway.

        Raises:
            MaskError: If a mask is not a boolean tensor, the masks differ in B, or one has more values than units.
            UnknownNameError: If there is no activation function of a given name.
            InputError: If the baseline is unusable.

        Example:
            >>> masks = {"relu1": torch.ones(1, 4, 8, 8).bool(), "relu2": torch.zeros(1, 6, 4, 4).bool()}
            >>> round(cpath.Pathway.from_masks(masks).sparsity.item(), 1)
            27.3
        """
        if not isinstance(masks, Mapping) or not masks:
            raise MaskError("a pathway needs the mask of at least one site: boolean masks (B, *site) by its name.")
        for name, mask in masks.items():
            if not isinstance(name, str) or not isinstance(mask, Tensor):
                raise MaskError(f"the mask of site {described(name)} must be a tensor, and the site's name text.")
        batches = {mask.shape[0] if mask.dim() else 0 for mask in masks.values()}
        if len(batches) != 1 or 0 in batches:
            raise MaskError(f"all masks must be (B, *site) with the same B ≥ 1; got B of {sorted(batches)}.")
        for name, mask in masks.items():
            if mask.dtype != torch.bool:
                raise MaskError(f"the mask of site '{name}' must be boolean, not {mask.dtype}.")
        layout, names = SiteLayout.of(masks, check_units(unit)), check_sites(sites, masks)
        for name, mask in masks.items():
            if tuple(mask.shape[1:]) != layout.shapes[name]:
                raise MaskError(
                    f"the mask of site '{name}' has the shape {tuple(mask.shape[1:])} for each image, where its "
                    f"{layout.unit}s have {layout.shapes[name]}: a unit has one value."
                )
        flat = layout.flatten(masks)
        values = check_baseline(baseline, len(flat), flat.device)
        carried = None if values is None else values.of(layout)
        return cls(flat, layout, method, requested_sparsity, target, names, baseline=carried)

    def __len__(self) -> int:
        return len(self.flat)

    def __getitem__(self, images: SomeImages) -> Pathway:
        """Select images.

        Args:
            images: The number of one image, a slice, or a tensor of numbers or booleans.

        Returns:
            The pathways of the selected images; of one image, a batch of one.

        Raises:
            InputError: If ``images`` is none of these.
            MissingImageError: If there is no such image.
        """
        images = check_image(images, len(self), "pathway belongs")
        target = None if self.target is None else self.target[images]
        return replace(self, flat=self.flat[images], target=target, baseline=selected(self.baseline, images))

    def __repr__(self) -> str:
        low, high = float(self.sparsity.min()), float(self.sparsity.max())
        realised = f"{low:.2f}" if high - low < 0.005 else f"{low:.2f} to {high:.2f}"
        return (
            f"Pathway(method={self.method!r}, images={len(self)}, sites={len(self.layout.shapes)}, "
            f"{self.layout.unit}s={self.layout.units}, sparsity={realised} %)"
        )

    def _repr_html_(self) -> str:
        return pathway_html(self)

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """Masks (B, *units) of each site, bool, in call order. They broadcast to the sites' outputs."""
        return self.layout.views(self.flat)

    @cached_property
    def sparsity(self) -> Tensor:
        """Realised sparsity (B,), per cent of all units; at least the requested one, as ties are never split."""
        kept = count_true(self.flat).to(widest(self.flat.device))
        return 100 * (1 - kept / self.layout.units)

    def to(self, device: torch.device | str) -> Pathway:
        """Move the pathway to a device.

        Args:
            device: The device.

        Returns:
            The pathway on ``device``.
        """
        target = None if self.target is None else self.target.to(device)
        return replace(self, flat=self.flat.to(device), target=target, baseline=moved(self.baseline, device))

    # Measures

    def jaccard(self, other: Pathway) -> Tensor:
        """Compute the Jaccard index |A∩B| / |A∪B| with another pathway of the same images.

        Args:
            other: The other pathway, of the same network and images.

        Returns:
            Overlap (B,), a fraction in [0, 1]; NaN where both pathways are empty.

        Raises:
            MaskError: If the pathways belong to different networks, input sizes or numbers of images.

        Example:
            >>> pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90)
            >>> pathway.jaccard(pathway).tolist()
            [1.0, 1.0]
        """
        theirs = self.aligned(other)
        return _ratio(self.flat & theirs, self.flat | theirs)

    def jaccard_by_site(self, other: Pathway) -> dict[str, Tensor]:
        """Compute the Jaccard index within each site.

        Args:
            other: The other pathway, of the same network and images.

        Returns:
            Overlap (B,) by site, a fraction in [0, 1]; NaN where neither pathway has a unit in the site.

        Raises:
            MaskError: If the pathways belong to different networks, input sizes or numbers of images.
        """
        theirs = self.aligned(other)
        return self._ratio_by_site(self.flat & theirs, self.flat | theirs)

    def dead_share(self, activations: Mapping[str, Tensor]) -> Tensor:
        """Compute the share of the pathway's units that are dead: |A∩dead| / |A|.

        A channel, token or head is dead if all its neurons are.

        Args:
            activations: Outputs (B, *site) by site of the unrestricted network on the same images, as `observe`
                gives them.

        Returns:
            Share (B,), a fraction in [0, 1]; NaN where the pathway is empty.

        Raises:
            MaskError: If the activations belong to another model or other images.

        Example:
            >>> pathway = cpath.find_pathway(model, images, "neuron_mct", sparsity=90)
            >>> with cpath.observe(model) as seen, torch.no_grad():
            ...     _ = model(images)
            >>> pathway.dead_share(seen.activations).tolist()
            [0.0, 0.0]
        """
        return _ratio(self.flat & self.dead(activations), self.flat)

    def dead_share_by_site(self, activations: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compute the share of dead units within each site.

        Args:
            activations: As for `dead_share`.

        Returns:
            Share (B,) by site, a fraction in [0, 1]; NaN where the pathway has no unit in the site.

        Raises:
            MaskError: If the activations belong to another model or other images.
        """
        return self._ratio_by_site(self.flat & self.dead(activations), self.flat)

    def _ratio_by_site(self, part: Tensor, whole: Tensor) -> dict[str, Tensor]:
        return {name: _ratio(part[:, where], whole[:, where]) for name, where in self.layout.slices.items()}

    def dead(self, activations: Mapping[str, Tensor]) -> Tensor:
        """Find the units that are dead (z = 0 for all their neurons), whether or not the pathway holds them.

        Args:
            activations: As for `dead_share`.

        Returns:
            Booleans (B, units), laid out as `flat`.

        Raises:
            MaskError: If the activations belong to another model or other images.
        """
        if not isinstance(activations, Mapping):
            raise InputError(
                f"activations must be tensors by site, as `observe` gives them, not {described(activations)}."
            )
        missing = [name for name in self.layout.shapes if name not in activations]
        if missing:
            raise MaskError(
                f"activations lack the site '{missing[0]}'. Pass all activations that `observe` recorded."
            )
        for name, shape in self.layout.shapes.items():
            count, *of_site = activations[name].shape
            if count != len(self) or not self.layout.fits(name, tuple(of_site)):
                raise MaskError(
                    f"activations of site '{name}' have shape {tuple(activations[name].shape)}, the pathway "
                    f"has {(len(self), *shape)}: they belong to other images or another model."
                )
        dead = {name: is_dead(activations[name]) for name in self.layout.shapes}
        return self.layout.flatten({name: self.layout.all(name, marked) for name, marked in dead.items()})

    def _check_same(self, other: Pathway) -> None:
        if not isinstance(other, Pathway):
            raise InputError(f"a pathway can only be compared with a cpath.Pathway, not {described(other)}.")
        if self.layout.unit != other.layout.unit:
            raise MaskError(f"the pathways are of {self.layout.unit}s and of {other.layout.unit}s.")
        if self.layout.shapes != other.layout.shapes:
            raise MaskError("the pathways belong to different networks or input sizes: their sites differ.")
        if len(self) != len(other):
            raise MaskError(f"the pathways belong to {len(self)} and {len(other)} images.")

    def aligned(self, other: Pathway) -> Tensor:
        """Lay out the masks of another pathway in this pathway's order of sites.

        Args:
            other: The other pathway, of the same network and images.

        Returns:
            Booleans (B, units), laid out as `flat`.

        Raises:
            InputError: If ``other`` is not a pathway.
            MaskError: If the pathways belong to different networks, input sizes or numbers of images.
        """
        self._check_same(other)
        same_order = list(self.layout.shapes) == list(other.layout.shapes)
        return other.flat if same_order else self.layout.flatten(other.masks)

    # Use

    @contextmanager
    def restrict(self, model: nn.Module) -> Iterator[set[str]]:
        """Run the model through the pathway only, in eval mode, inside a ``with`` block.

        Every unit that is not kept is set to its baseline, which is zero unless the pathway has another. Only
        the thread that entered the block is restricted: call the model there, itself and not its ``forward``. Warns
        if no site was reached. Gradients of a model that checkpoints activations need ``use_reentrant=False``.

        Args:
            model: The model that the pathway was found in.

        Returns:
            A context manager, which gives the set of site names reached so far.

        Raises:
            MaskError: If the masks do not fit the model or the images. A pathway of one image applies to any number
                of images.
            SiteError: If sites are hidden, as for `observe`.

        Example:
            >>> pathway = cpath.find_pathway(model, images, sparsity=90)
            >>> with pathway.restrict(model) as reached:
            ...     logits = model(images)
            >>> sorted(reached)
            ['relu1', 'relu2']
        """
        masks = self.masks
        seen: set[str] = set()

        def visit(name: str, output: Tensor) -> Tensor:
            seen.add(name)
            mask = self._fitting_mask(masks, name, output)
            return blended(output, mask, self._fitting_baseline(name, output))

        left_out = self.left_out_of(model)
        sites = intercept(model, visit, edits=EVERY_SITE, sites=self.sites, left_out=left_out)
        with evaluating(model, keeping=False), sites:
            yield seen
        if seen:
            self.check_reached(seen)
        else:
            warn(
                "no site was reached while the model was restricted, so the restriction had no effect. Call the "
                "model itself, in the thread that entered the block.",
            )

    def left_out_of(self, model: nn.Module) -> frozenset[str]:
        """Get the calls that are no sites when a model runs with this pathway.

        Args:
            model: The model that the pathway was found in, or a copy of it.

        Returns:
            Names of the calls that do not depend on the input, as far as this pathway or the model tell.
        """
        return frozenset({*self.left_out, *known(unwrap(model), self.sites)} - set(self.layout.shapes))

    def check_reached(self, seen: set[str]) -> None:
        """Check that a restricted run of a model reached every site of the pathway.

        Args:
            seen: Names of the sites that were reached.

        Raises:
            MaskError: If a site of the pathway is missing.
        """
        unused = [name for name in self.layout.shapes if name not in seen]
        if unused:
            raise MaskError(
                f"the model never reached site '{unused[0]}' of the pathway ({len(unused)} such): the pathway "
                "belongs to another model."
            )

    def _fitting_mask(self, masks: Mapping[str, Tensor], name: str, output: Tensor) -> Tensor:
        mask = masks.get(name)
        if mask is None:
            raise MaskError(f"the pathway has no mask for site '{name}': it belongs to another model.")
        if not self.layout.fits(name, tuple(output.shape[1:])):
            raise MaskError(
                f"at site '{name}' the model gives {tuple(output.shape[1:])} per image, but the pathway has "
                f"{tuple(mask.shape[1:])}: it belongs to another model or input size."
            )
        if len(mask) not in (1, len(output)):
            raise MaskError(f"the pathway belongs to {len(mask)} images, the batch has {len(output)}.")
        if mask.device != output.device:
            raise MaskError(
                f"the pathway is on {mask.device}, the model on {output.device}: use pathway.to('{output.device}')."
            )
        return mask

    def _fitting_baseline(self, name: str, output: Tensor) -> Tensor | None:
        if self.baseline is None:
            return None
        value = self.baseline[name]
        if value.shape[1:] != output.shape[1:] or len(value) not in (1, len(output)):
            raise MaskError(
                f"at site '{name}' the model gives {tuple(output.shape)}, but the pathway's baseline has "
                f"{tuple(value.shape)}: it belongs to another input size or other images."
            )
        return value.to(output.dtype)

    def show(self, inputs: Tensor | None = None, **settings: Any) -> Figure:
        """Draw how much of each site the pathway keeps, and where in the input.

        Args:
            inputs: Images (B, C, H, W) to lay the kept positions over, if any.
            settings: Further settings of `cpath.viz.show_pathway`.

        Returns:
            A figure of matplotlib.

        Raises:
            MissingPackageError: If matplotlib is not installed.
        """
        from cpath import viz

        return viz.show_pathway(self, inputs, **settings)

    # Files

    def save(self, path: str | Path) -> None:
        """Write the pathway to a safetensors file, one bit per unit. The file appears whole or not at all.

        Args:
            path: The file to write.

        Example:
            >>> pathway = cpath.find_pathway(model, images, sparsity=90)
            >>> pathway.save(folder / "pathway.safetensors")
            >>> pathway.jaccard(cpath.Pathway.load(folder / "pathway.safetensors")).tolist()
            [1.0, 1.0]
        """
        tensors = {"masks": pack_bits(self.flat), **named(self.baseline)}
        if self.target is not None:
            tensors["target"] = self.target
        metadata = {
            "kind": "pathway",
            "format": _FORMAT,
            "method": self.method,
            "requested_sparsity": self.requested_sparsity,
            "sparsity": self.sparsity.tolist(),  # for readers of the file's header alone
            "sites": self.layout.shapes,
            "unit": self.layout.unit,
            "activations": self.sites,
            "left_out": self.left_out,
        }
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Pathway:
        """Read a pathway from a file that `save` wrote.

        Args:
            path: The file to read.

        Returns:
            The pathway, on the CPU.

        Raises:
            InputError: If the file is missing, damaged, or of another kind.
        """
        tensors, metadata = read_tensors(path, "pathway", (1, _FORMAT))
        layout = SiteLayout.named(metadata["sites"], metadata.get("unit"))
        packed = tensors.get("masks")
        if packed is None or packed.dtype != torch.uint8 or packed.shape[-1:] != ((layout.units + 7) // 8,):
            raise InputError(f"{path} is damaged: its masks do not fit its sites.")
        return cls(
            unpack_bits(packed, layout.units),
            layout,
            metadata["method"],
            metadata["requested_sparsity"],
            tensors.get("target"),
            tuple(metadata["activations"]),
            tuple(metadata.get("left_out", ())),
            unnamed(tensors, layout),
        )


def check_pathway(pathway: object) -> Pathway:
    """Check that an argument is a pathway.

    Args:
        pathway: The argument.

    Returns:
        ``pathway``.

    Raises:
        InputError: If it is none.
    """
    if not isinstance(pathway, Pathway):
        raise InputError(f"pathway must be a cpath.Pathway, not {described(pathway)}.")
    return pathway


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Share (B,) of the True of ``whole`` that are True in ``part`` too; NaN for 0/0."""
    return count_true(part).to(widest(part.device)) / count_true(whole)
