"""Pathways of classes: how often each unit is in the pathways of the inputs of a class, counted in one stream.

A counter holds one small number for each class and unit, whatever number of inputs it has seen. Counters of other
parts of the data, of other processes or of an earlier run are added to it::

    counter = cpath.PathwayCounter(classes=10)
    for images, labels in loader:
        counter.update(cpath.find_pathway(model, images, sparsity=90), labels)
    counter.pathway(0.5)            # of each class: the units in more than half of its inputs' pathways
    counter.similarity()            # (classes, classes)

Source: pathways of a class as in Wang et al. 2018 (distillation guided routing) and Qiu et al. 2019 (effective
paths).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cpath.checks import check_count
from cpath.devices import widest
from cpath.display import counter_html
from cpath.errors import InputError, MaskError, described
from cpath.layout import SiteLayout
from cpath.pathway import Pathway, check_pathway
from cpath.storage import read_tensors, write_tensors
from cpath.threshold import count_true

_FORMAT = 1
_KINDS = (torch.uint8, torch.int16, torch.int32, torch.int64)
"""Types of the counts, from the smallest; a counter takes the next when the inputs of a class may exceed one."""


class PathwayCounter:
    """Counts of every unit in the pathways of each class.

    `update`, `merge` and `reset` are those of a metric of torchmetrics. Memory is that of (classes, units) numbers
    of one byte each, of two once a class has more than 255 inputs, of four above 32767.

    Args:
        classes: Number of classes.

    Raises:
        InputError: If there are no classes.

    Example:
        >>> counter = cpath.PathwayCounter(classes=5)
        >>> counter.update(cpath.find_pathway(model, images, sparsity=90), torch.tensor([3, 3]))
        >>> counter
        PathwayCounter(classes=5, inputs=2, method='neuron_mct', sites=2, neurons=352)
        >>> counter.frequency[3].max().item(), counter.frequency[0].isnan().all().item()
        (1.0, True)
    """

    def __init__(self, classes: int) -> None:
        self._classes = check_count("classes", classes)
        self.reset()

    def reset(self) -> None:
        """Forget all that was counted."""
        self._counts: Tensor | None = None
        self._inputs = torch.zeros(self._classes, dtype=torch.int64)
        self._seen_as: dict[str, Any] = {}
        self._layout: SiteLayout | None = None

    # What was counted

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._classes

    @property
    def inputs(self) -> Tensor:
        """Number of inputs (classes,) of each class, int64."""
        return self._inputs.clone()

    @property
    def layout(self) -> SiteLayout:
        """Shape of each site's units."""
        if self._layout is None:
            raise InputError("the counter is empty: update it with pathways first.")
        return self._layout

    @property
    def counts(self) -> Tensor:
        """Counts (classes, units): in how many pathways of the class the unit is."""
        if self._counts is None:
            raise InputError("the counter is empty: update it with pathways first.")
        return self._counts

    @property
    def frequency(self) -> Tensor:
        """Share (classes, units) of a class's pathways that hold the unit; NaN for a class without inputs."""
        return self._of(slice(None))

    def __repr__(self) -> str:
        if self._layout is None:
            return f"PathwayCounter(classes={self.classes}, inputs=0)"
        return (
            f"PathwayCounter(classes={self.classes}, inputs={int(self._inputs.sum())}, "
            f"method={self._seen_as['method']!r}, sites={len(self._layout.shapes)}, "
            f"{self._layout.unit}s={self._layout.units})"
        )

    def _repr_html_(self) -> str:
        return counter_html(self)

    def _of(self, classes: slice | Tensor) -> Tensor:
        counts = self.counts[classes]
        inputs = self._inputs.to(counts.device)[classes]
        return counts.to(torch.float32) / inputs[:, None]

    # Counting

    def update(self, pathway: Pathway, labels: Tensor | Sequence[int]) -> None:
        """Count the pathways of a batch.

        Args:
            pathway: Pathways of B inputs, all found by one method at one sparsity.
            labels: Class (B,) of each input: its true class, or the predicted one.

        Raises:
            InputError: If labels are no classes, or the pathways were found by another method or at another
                sparsity than those counted so far.
            MaskError: If the pathways belong to another network, input size or kind of unit.
        """
        labels = self._checked(labels, len(check_pathway(pathway)))
        seen_as = {
            "method": pathway.method,
            "requested_sparsity": pathway.requested_sparsity,
            "sites": pathway.sites,
        }
        self._check_same(pathway.layout, seen_as)
        if self._layout is None:
            self._layout, self._seen_as = pathway.layout, seen_as
            shape = (self.classes, self.layout.units)
            self._counts = torch.zeros(shape, dtype=_KINDS[0], device=pathway.flat.device)
        flat = self._in_order(pathway)
        if flat.device != self.counts.device:
            raise InputError(
                f"the pathways are on {flat.device}, the counter on {self.counts.device}: "
                f"use pathway.to('{self.counts.device}')."
            )
        self._inputs += torch.bincount(labels, minlength=self.classes)
        self._make_room()
        for number in sorted(set(labels.tolist())):
            rows = (labels == number).nonzero().flatten().to(flat.device)
            # Sums in bytes are several times as fast; there are at most 255 rows in one.
            for part in rows.split(255):
                self.counts[number] += _sum_of_rows(flat, part)

    def merge(self, other: PathwayCounter) -> None:
        """Add the counts of another counter of the same network, method and sparsity.

        Args:
            other: The other counter, which stays as it is.

        Raises:
            InputError: If it is no counter, or of another number of classes, another method or sparsity.
            MaskError: If it belongs to another network, input size or kind of unit.

        Example:
            >>> pathway = cpath.find_pathway(model, images, sparsity=90)
            >>> one, other = cpath.PathwayCounter(5), cpath.PathwayCounter(5)
            >>> one.update(pathway[0], [1])
            >>> other.update(pathway[1], [1])
            >>> one.merge(other)
            >>> one.inputs.tolist()
            [0, 2, 0, 0, 0]
        """
        if not isinstance(other, PathwayCounter):
            raise InputError(f"only a cpath.PathwayCounter can be merged, not {described(other)}.")
        if other.classes != self.classes:
            raise InputError(f"the counters have {self.classes} and {other.classes} classes.")
        if other._counts is None or other._layout is None:
            return
        self._check_same(other._layout, other._seen_as)
        theirs = other._counts
        if self._layout is None:
            self._layout, self._seen_as = other._layout, dict(other._seen_as)
            self._counts = torch.zeros_like(theirs)
        elif list(self._layout.shapes) != list(other._layout.shapes):
            theirs = self._layout.flatten(other._layout.views(theirs))
        self._inputs += other._inputs
        self._make_room()
        self.counts.add_(theirs.to(self.counts))

    def _in_order(self, pathway: Pathway) -> Tensor:
        """Masks (B, units) of pathways of the counter's sites, in the counter's order of them."""
        if list(self.layout.shapes) == list(pathway.layout.shapes):
            return pathway.flat
        return self.layout.flatten(pathway.masks)

    def _make_room(self) -> None:
        """Take a larger type for the counts if the inputs of a class may exceed theirs."""
        most = int(self._inputs.max())
        kind = next(kind for kind in _KINDS if torch.iinfo(kind).max >= most)
        if torch.iinfo(kind).max > torch.iinfo(self.counts.dtype).max:
            self._counts = self.counts.to(kind)

    def _checked(self, labels: object, count: int) -> Tensor:
        try:
            found = torch.as_tensor(labels).cpu()
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"labels must be ({count},) whole numbers, not {described(labels)}.") from None
        if found.is_floating_point() or found.dtype == torch.bool or tuple(found.shape) != (count,):
            raise InputError(
                f"labels must be ({count},) whole numbers, one for each pathway, not {tuple(found.shape)} of "
                f"{found.dtype}."
            )
        if count and not 0 <= int(found.min()) <= int(found.max()) < self.classes:
            raise InputError(
                f"labels must be classes from 0 to {self.classes - 1}; got {int(found.min())} to "
                f"{int(found.max())}."
            )
        return found.long()

    def _check_same(self, layout: SiteLayout, seen_as: dict[str, Any]) -> None:
        if self._layout is None:
            return
        if layout.unit != self._layout.unit:
            raise MaskError(f"the counter counts {self._layout.unit}s, the pathways are of {layout.unit}s.")
        if layout.shapes != self._layout.shapes:
            raise MaskError(
                "the pathways belong to another network or input size than those counted: sites differ."
            )
        for key, told in (("method", "method"), ("requested_sparsity", "sparsity")):
            if seen_as[key] != self._seen_as[key]:
                raise InputError(
                    f"the counter holds pathways of {told} {self._seen_as[key]!r}, these are of {seen_as[key]!r}: "
                    "use a counter for each."
                )

    # Pathways of classes

    def pathway(self, frequency: float = 0.5) -> Pathway:
        """Make the pathways of the classes: the units in more than a share of the class's pathways.

        Args:
            frequency: The share, 0 ≤ frequency < 1.

        Returns:
            A pathway of as many rows as there are classes, row c for class c; empty for a class without inputs. One
            row, ``counter.pathway(0.5)[c]``, restricts any number of inputs to the pathway of class c.
            Pruned units are set to zero there, also where the pathways that were counted had another baseline.

        Raises:
            InputError: If nothing was counted, or the share is none.

        Example:
            >>> counter = cpath.PathwayCounter(classes=5)
            >>> counter.update(cpath.find_pathway(model, images, sparsity=90), torch.tensor([3, 3]))
            >>> counter.pathway(0)[3].flat.sum() >= counter.pathway(0.9)[3].flat.sum()
            tensor(True)
        """
        if isinstance(frequency, bool) or not isinstance(frequency, int | float) or not 0 <= frequency < 1:
            raise InputError(f"frequency must be a share, 0 ≤ frequency < 1, not {described(frequency)}.")
        # Whole numbers, so that half of four inputs is two and no rounding decides.
        least = torch.tensor([math.floor(frequency * int(n)) for n in self._inputs], device=self.counts.device)
        return Pathway(
            self.counts.long() > least[:, None],
            self.layout,
            self._seen_as["method"],
            target=torch.arange(self.classes, device=self.counts.device),
            sites=self._seen_as["sites"],
        )

    def similarity(self, frequency: float = 0.5, measure: Literal["jaccard", "containment"] = "jaccard") -> Tensor:
        """Compare the pathways of the classes.

        Args:
            frequency: As for `pathway`.
            measure: ``jaccard`` is |A∩B| / |A∪B|; ``containment`` is |A∩B| / |A|, the share of the row's class that
                the column's class has too.

        Returns:
            Matrix (classes, classes), fractions in [0, 1]; NaN where it is 0/0.

        Raises:
            InputError: If nothing was counted, or there is no such measure.
        """
        return _similarity(self.pathway(frequency).flat, measure)

    def similarity_by_site(
        self, frequency: float = 0.5, measure: Literal["jaccard", "containment"] = "jaccard"
    ) -> dict[str, Tensor]:
        """Compare the pathways of the classes within each site.

        Args:
            frequency: As for `pathway`.
            measure: As for `similarity`.

        Returns:
            Matrices (classes, classes) by site, fractions in [0, 1]; NaN where it is 0/0.

        Raises:
            InputError: If nothing was counted, or there is no such measure.
        """
        flat = self.pathway(frequency).flat
        return {name: _similarity(flat[:, where], measure) for name, where in self.layout.slices.items()}

    def typicality(self, pathway: Pathway, classes: Tensor | Sequence[int] | None = None) -> Tensor:
        """Measure how typical inputs' pathways are of a class.

        The mean frequency, in the class, of the units of the input's pathway, in parts of the largest mean that as
        many units can have: 1 for the units that are most frequent in the class.

        Args:
            pathway: Pathways of B inputs.
            classes: Class (B,) of each; by default that which each was explained for.

        Returns:
            Typicality (B,), a fraction in [0, 1]; NaN for an empty pathway and for a class without inputs.

        Raises:
            InputError: If nothing was counted, or ``classes`` are none.
            MaskError: If the pathways belong to another network.

        Example:
            >>> pathway = cpath.find_pathway(model, images, sparsity=90)
            >>> counter = cpath.PathwayCounter(classes=5)
            >>> counter.update(pathway[0], [2])
            >>> counter.typicality(pathway[0], [2]).tolist()
            [1.0]
        """
        return self._typicality(pathway, classes, [slice(0, self.layout.units)])[:, 0]

    def typicality_by_site(
        self, pathway: Pathway, classes: Tensor | Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Measure how typical inputs' pathways are of a class within each site.

        Args:
            pathway: As for `typicality`.
            classes: As for `typicality`.

        Returns:
            Typicality (B,) by site, a fraction in [0, 1]; NaN where the pathway has no unit in the site, or the
            class's pathways never have one.

        Raises:
            InputError: If nothing was counted, or ``classes`` are none.
            MaskError: If the pathways belong to another network.
        """
        found = self._typicality(pathway, classes, list(self.layout.slices.values()))
        return dict(zip(self.layout.slices, found.unbind(1), strict=True))

    def _typicality(
        self, pathway: Pathway, classes: Tensor | Sequence[int] | None, parts: Sequence[slice]
    ) -> Tensor:
        """Typicality (B, parts) within parts of the row of units."""
        self._check_same(check_pathway(pathway).layout, self._seen_as)
        asked = pathway.target if classes is None else classes
        if asked is None:
            raise InputError("the pathways were not explained for a class: pass classes.")
        labels = self._checked(asked, len(pathway))
        flat = self._in_order(pathway)
        found = torch.empty(len(pathway), len(parts), dtype=widest(flat.device), device=flat.device)
        for number in sorted(set(labels.tolist())):
            mine = (labels == number).nonzero().flatten().to(flat.device)
            kept, counts = flat[mine], self.counts[number].long()
            for place, part in enumerate(parts):
                best = _largest_sums(counts[part], count_true(kept[:, part]))
                found[mine, place] = _sums(kept[:, part], counts[part]).to(found) / best.to(found)
        return found

    def specific(self, label: int, frequency: float = 0.5, elsewhere: float = 0.1) -> dict[str, Tensor]:
        """Find the units that speak for one class alone.

        Args:
            label: The class.
            frequency: Share of the class's pathways that have to hold the unit, at least.
            elsewhere: Largest share in any other class that has inputs.

        Returns:
            Booleans (*units) by site.

        Raises:
            InputError: If there is no such class, or it has no inputs.
        """
        number = int(self._checked([label], 1))
        if not self._inputs[number]:
            raise InputError(f"the counter has no inputs of class {number}.")
        shares = self.frequency
        others = [other for other in range(self.classes) if other != number and self._inputs[other]]
        often = shares[number] >= frequency
        alone = (shares[others] <= elsewhere).all(0) if others else torch.ones_like(often)
        return {name: values[0] for name, values in self.layout.views((often & alone)[None]).items()}

    # Files

    def to(self, device: torch.device | str) -> PathwayCounter:
        """Copy the counter to a device.

        Args:
            device: The device.

        Returns:
            A counter on ``device``.
        """
        moved = PathwayCounter(self.classes)
        moved._inputs, moved._layout, moved._seen_as = self._inputs.clone(), self._layout, dict(self._seen_as)
        moved._counts = None if self._counts is None else self._counts.to(device, copy=True)
        return moved

    def save(self, path: str | Path) -> None:
        """Write the counter to a safetensors file, which appears whole or not at all.

        Args:
            path: The file to write.

        Raises:
            InputError: If nothing was counted.

        Example:
            >>> counter = cpath.PathwayCounter(classes=5)
            >>> counter.update(cpath.find_pathway(model, images, sparsity=90), torch.tensor([3, 3]))
            >>> counter.save(folder / "counter.safetensors")
            >>> cpath.PathwayCounter.load(folder / "counter.safetensors").inputs.tolist()
            [0, 0, 0, 2, 0]
        """
        tensors = {"counts": self.counts, "inputs": self._inputs}
        metadata = {
            "kind": "pathway counter",
            "format": _FORMAT,
            "layout": self.layout.shapes,
            "unit": self.layout.unit,
            **self._seen_as,
        }
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> PathwayCounter:
        """Read a counter from a file that `save` wrote.

        Args:
            path: The file to read.

        Returns:
            The counter, on the CPU.

        Raises:
            InputError: If the file is missing, damaged, or of another kind.
        """
        tensors, metadata = read_tensors(path, "pathway counter", _FORMAT)
        counts, inputs = tensors.get("counts"), tensors.get("inputs")
        layout = SiteLayout.named(metadata["layout"], metadata["unit"])
        if counts is None or inputs is None or tuple(counts.shape) != (len(inputs), layout.units):
            raise InputError(f"{path} is damaged: its counts do not fit its sites.")
        counter = cls(len(inputs))
        counter._counts, counter._inputs, counter._layout = counts, inputs, layout
        counter._seen_as = {name: metadata[name] for name in ("method", "requested_sparsity")}
        counter._seen_as["sites"] = tuple(metadata["sites"])
        return counter


def _sum_of_rows(flat: Tensor, rows: Tensor) -> Tensor:
    """Sum at most 255 rows of booleans (B, units), as bytes (units,)."""
    values = flat.view(torch.uint8)
    if flat.device.type != "cpu":
        return values[rows].sum(0, dtype=torch.uint8)
    # Row by row in one thread: faster than a copy of the rows, and not slowed down by busy cores, for whose
    # threads torch waits in every small sum.
    first, *others = rows.tolist()
    total = values[first].numpy().copy()
    for row in others:
        np.add(total, values[row].numpy(), out=total)
    return torch.from_numpy(total)


def _sums(kept: Tensor, counts: Tensor) -> Tensor:
    """Sums (B,) of the counts (units,) of the units that each row of booleans (B, units) keeps."""
    if kept.device.type != "cpu":
        return kept.to(widest(kept.device)) @ counts.to(widest(kept.device))
    values = counts.numpy()
    return torch.tensor([int(values[row].sum()) for row in kept.numpy()], device="cpu")


def _largest_sums(counts: Tensor, sizes: Tensor) -> Tensor:
    """Sums (B,) of as many of the largest counts (units,) as each size (B,) says."""
    # How many units have each count is all that matters, and is found faster than an order of the units.
    units = torch.bincount(counts).flip(0)  # from the largest count down
    values = torch.arange(len(units) - 1, -1, -1, device=counts.device)
    taken = torch.cat([units.new_zeros(1), units.cumsum(0)])
    sums = torch.cat([units.new_zeros(1), (units * values).cumsum(0)])
    sizes = sizes.to(counts.device)
    whole = torch.searchsorted(taken, sizes, right=True) - 1  # counts of which every unit is taken
    rest = torch.cat([values, values.new_zeros(1)])[whole]
    return sums[whole] + (sizes - taken[whole]) * rest


def _similarity(flat: Tensor, measure: str) -> Tensor:
    """Compare the rows of booleans (classes, units) with each other."""
    if measure not in ("jaccard", "containment"):
        raise InputError(f"measure must be 'jaccard' or 'containment', not {described(measure)}.")
    common = torch.stack([count_true(flat & row) for row in flat]).to(widest(flat.device))
    sizes = common.diagonal()
    whole = sizes[:, None] + sizes - common if measure == "jaccard" else sizes[:, None].expand_as(common)
    return common / whole
