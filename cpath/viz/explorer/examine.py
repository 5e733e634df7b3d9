"""Answers to everything that a page shows, by the library's functions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpath.attribution import pathway_gradient, single_channel
from cpath.baselines import Baseline
from cpath.evaluation.faithfulness import Faithfulness, faithfulness
from cpath.methods.base import Method
from cpath.pathway import Pathway
from cpath.response import Response, Target, class_logits
from cpath.scores import Scores, score
from cpath.sites import evaluating
from cpath.viz.explorer.places import SiteGrid, cells_of, pooled
from cpath.viz.explorer.plan import Plan, UnitPlan
from cpath.viz.maps import magnitude

NETWORK = "network"
TOP = 5
"""Classes that are listed for a network."""
MAP_SIDE = 64
"""Most pixels in a row or column of a map."""

Answers = dict[str, np.ndarray]
"""Arrays by name, inputs first. Names have the form unit/method/what, unit/a+b/shared or network/what."""


def examine(
    model: nn.Module,
    images: Tensor,
    plan: Plan,
    target: Target = None,
    baseline: Mapping[str, Tensor] | Baseline | None = None,
) -> Answers:
    """Answer the questions of a plan for a batch of images.

    Args:
        model: The model.
        images: Images (B, C, H, W).
        plan: The questions.
        target: The response, as for `cpath.score`.
        baseline: What pruned units are set to, as for `cpath.score`.

    Returns:
        The answers.

    Example:
        >>> from cpath.viz.explorer import Plan, examine
        >>> plan = Plan.of(model, images, "neuron_mct", count=2, sparsity=[50, 90])
        >>> answers = examine(model, images, plan)
        >>> answers["neuron/neuron_mct/kept"].shape  # inputs, stops, sites
        (2, 2, 2)
    """
    network = _Network(model, images, target, baseline, plan)
    found: Answers = {f"{NETWORK}/{name}": values for name, values in network.answers().items()}
    for unit in plan.units:
        kept: dict[str, list[_Bits]] = {}
        for name in unit.methods:
            answers, kept[name] = _Run(network, unit, plan.methods[name]).answers()
            found |= {f"{unit.kind}/{name}/{what}": values for what, values in answers.items()}
        for first, second in itertools.combinations(unit.methods, 2):
            pairs = zip(kept[first], kept[second], strict=True)
            found[f"{unit.kind}/{first}+{second}/shared"] = np.stack([one.shared(two) for one, two in pairs], 1)
    return found


class _Network:
    """The unrestricted network in front of a batch."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        target: Target,
        baseline: Mapping[str, Tensor] | Baseline | None,
        plan: Plan,
    ) -> None:
        self.model, self.images, self.baseline, self.plan = model, images, baseline, plan
        asked = Response(target, len(images), images.device)
        with evaluating(model), torch.no_grad():
            answer = asked.read(model(images.clone()), len(images))
        self.function = asked.function
        self.classes = asked.classes  # (B,), None where the response is a function
        self.probability = (
            None if answer.class_logits is None else _probability(answer.class_logits)
        )  # (B, classes)

    @property
    def target(self) -> Target:
        """The response that every method is asked about: the same class, or the function."""
        return self.classes if self.function is None else self.function

    @property
    def listed(self) -> Tensor:
        """Classes (B, T) that are listed: the most probable ones, and the one that is explained."""
        assert self.probability is not None
        assert self.classes is not None
        top = self.probability.topk(min(TOP, self.probability.shape[1]), dim=1).indices
        target = self.classes.cpu()
        missing = (top != target[:, None]).all(1)
        top[missing, -1] = target[missing]
        return top

    def answers(self) -> Answers:
        """Listed classes with their probabilities, and the class that is explained."""
        if self.probability is None or self.classes is None:
            return {}
        return {
            "target": self.classes.cpu().int().numpy(),
            "predicted": self.probability.argmax(1).int().numpy(),
            "classes": self.listed.int().numpy(),
            "probability": self.probability.gather(1, self.listed).float().numpy(),
        }


def _probability(logits: Tensor) -> Tensor:
    return logits.double().softmax(1).cpu()


class _Run:
    """One method with one kind of units, on a batch."""

    def __init__(self, network: _Network, unit: UnitPlan, method: Method) -> None:
        self.network, self.unit, self.method, self.plan = network, unit, method, network.plan

    def answers(self) -> tuple[Answers, list[_Bits]]:
        """Arrays with (B, stops, …) or (B, sites, …), and the kept units at each stop."""
        by_stop: dict[int, Answers] = {}
        bits: dict[int, _Bits] = {}
        channels: _Channels | None = None
        for stops, scores in self._scorings():
            measured = self._faithfulness(scores, stops)
            channels = _Channels(self.unit, scores, self.plan) if channels is None else channels
            for place, stop in enumerate(stops):
                pathway = scores.pathway(self.plan.sparsity[stop] if self.method.graded else 0)
                size = place if self.method.graded else 0
                by_stop[stop] = self._at(pathway, measured, len(stops) - 1 - size if self.method.graded else 0)
                bits[stop] = _Bits(pathway)
                channels.add(stop, pathway)
        assert channels is not None
        order = range(len(self.plan.sparsity))
        stacked = {name: np.stack([by_stop[stop][name] for stop in order], 1) for name in by_stop[0]}
        return stacked | channels.answers(), [bits[stop] for stop in order]

    def _scorings(self) -> Iterator[tuple[list[int], Scores]]:
        """Scores with the stops that they serve: all, unless the method has to know the sparsity."""
        searches: list[tuple[Method, list[int]]] = []
        for stop, sparsity in enumerate(self.plan.sparsity):
            at = self.method.at(sparsity)
            known = next((stops for method, stops in searches if method == at), None)
            if known is None:
                searches.append((at, [stop]))
            else:
                known.append(stop)
        network = self.network
        for method, stops in searches:
            scores = score(
                network.model,
                network.images,
                method,
                network.target,
                sites=self.plan.sites,
                unit=self.unit.units,
                baseline=network.baseline,
                max_batch=self.plan.max_batch,
            )
            yield stops, scores

    def _faithfulness(self, scores: Scores, stops: list[int]) -> Faithfulness:
        """Faithfulness at the stops, from the last to the first: of the fewest units first."""
        keep = [100 - self.plan.sparsity[stop] for stop in reversed(stops)] if self.method.graded else [100]
        return faithfulness(
            self.network.model,
            self.network.images,
            scores,
            self.network.function,
            keep=keep,
            max_batch=self.plan.max_batch,
        )

    def _at(self, pathway: Pathway, measured: Faithfulness, size: int) -> Answers:
        """Answers for one pathway."""
        masks = {name: mask.cpu().numpy() for name, mask in pathway.masks.items()}
        arranged = [(grid, grid.arranged(masks[grid.name])) for grid in self.unit.grids]
        places = [grid.summed(values.sum((1, 3), dtype=np.int32)) for grid, values in arranged]
        return {
            "kept": np.stack([values.sum((1, 2, 3), dtype=np.int64) for _, values in arranged], 1).astype(np.int32),
            "places": np.concatenate([counts.reshape(len(counts), -1) for counts in places], 1),
            "sufficiency": measured.sufficiency[:, size].float().cpu().numpy(),
            "necessity": measured.necessity[:, size].float().cpu().numpy(),
            "map": self._map(pathway),
            **self._classes(pathway),
        }

    def _map(self, pathway: Pathway) -> np.ndarray:
        """Magnitude of the pathway gradient (B, h, w), 255 at its 99th percentile."""
        network = self.network
        gradient = pathway_gradient(
            network.model, network.images, pathway, network.function, max_batch=self.plan.max_batch
        )
        size = single_channel(gradient).squeeze(1).abs().float().cpu().numpy()
        cells = cells_of(size.shape[1], MAP_SIDE), cells_of(size.shape[2], MAP_SIDE)
        counts = pooled(np.ones_like(size[0]), cells, np.add)
        mean = pooled(size, cells, np.add) / counts
        scaled = [magnitude(torch.from_numpy(one)) for one in mean]
        shades: np.ndarray = np.rint(255 * np.stack(scaled)).astype(np.uint8)
        return shades

    def _classes(self, pathway: Pathway) -> Answers:
        """Probabilities of the restricted network: of the listed classes, and of its own most probable ones."""
        network = self.network
        if network.probability is None:
            return {}
        with pathway.restrict(network.model), torch.no_grad():
            output = network.model(network.images.clone())
        restricted = _probability(class_logits(output, len(network.images)))
        top = restricted.topk(network.listed.shape[1], dim=1)
        return {
            "listed": restricted.gather(1, network.listed).float().numpy(),
            "top": top.indices.int().numpy(),
            "top_restricted": top.values.float().numpy(),
            "top_whole": network.probability.gather(1, top.indices).float().numpy(),
        }


class _Channels:
    """The channels of each site that have the highest sum of scores, and the units of them that are kept."""

    def __init__(self, unit: UnitPlan, scores: Scores, plan: Plan) -> None:
        self._grids, self._shown = unit.grids, plan.channels
        self._stops, self._inputs = len(plan.sparsity), len(scores)
        self._numbers: list[np.ndarray] = []  # (B, K) for each site
        self._strength: list[np.ndarray] = []
        for grid in unit.grids:
            values = grid.arranged(scores.values[grid.name].detach().double().cpu().numpy()).sum((2, 3))
            numbers = np.argsort(-values, axis=1, kind="stable")[:, : plan.channels]
            whole = values.sum(1, keepdims=True)
            share = 100 * np.take_along_axis(values, numbers, 1) / np.where(whole > 0, whole, 1)
            self._numbers.append(numbers)
            self._strength.append(share)
        self._kept = [np.zeros((self._inputs, self._stops, one.shape[1]), np.int32) for one in self._numbers]
        self._bits = [
            np.zeros((self._inputs, one.shape[1], *grid.cells), np.int32)
            for grid, one in zip(self._grids, self._numbers, strict=True)
        ]

    def add(self, stop: int, pathway: Pathway) -> None:
        """Note the units that a pathway keeps.

        Args:
            stop: Number of its sparsity.
            pathway: The pathway.
        """
        for site, grid in enumerate(self._grids):
            arranged = grid.arranged(pathway.masks[grid.name].cpu().numpy())
            of_shown = np.take_along_axis(arranged, self._numbers[site][:, :, None, None], 1)
            self._kept[site][:, stop] = of_shown.sum((2, 3))
            self._bits[site] |= grid.united(np.asarray(of_shown.any(3)).astype(np.int32) * (1 << stop))

    def answers(self) -> Answers:
        """Numbers of the channels, −1 where a site has fewer; the kept units; bits of stops at their places."""
        filled = [self._padded(one, axis=1) for one in self._bits]
        return {
            "channels": np.stack([self._padded(one, 1, -1) for one in self._numbers], 1).astype(np.int32),
            "strength": np.stack([self._padded(one, 1) for one in self._strength], 1).astype(np.float32),
            "channel_kept": np.stack([self._padded(one, 2) for one in self._kept], 2),
            "channel_places": np.concatenate([one.reshape(self._inputs, -1) for one in filled], 1),
        }

    def _padded(self, values: np.ndarray, axis: int, value: int = 0) -> np.ndarray:
        widths = [(0, 0)] * values.ndim
        widths[axis] = (0, self._shown - values.shape[axis])
        return np.pad(values, widths, constant_values=value)


class _Bits:
    """The kept units of a pathway, eight to a byte, site by site."""

    def __init__(self, pathway: Pathway) -> None:
        self._sites = [np.packbits(mask.flatten(1).cpu().numpy(), axis=1) for mask in pathway.masks.values()]

    def shared(self, other: _Bits) -> np.ndarray:
        """Count the units that both keep, (B, sites)."""
        pairs = zip(self._sites, other._sites, strict=True)
        counts: list[Any] = [np.bitwise_count(one & two).sum(1, dtype=np.int64) for one, two in pairs]
        return np.stack(counts, 1).astype(np.int32)


def grid_facts(grid: SiteGrid) -> dict[str, Any]:
    """Describe a site to the page.

    Args:
        grid: The site.

    Returns:
        Facts that JSON can hold.
    """
    return {
        "name": grid.name,
        "units": grid.channels * grid.per_channel,
        "channels": grid.channels,
        "perChannel": grid.per_channel,
        "perPlace": grid.per_place,
        "rows": grid.rows,
        "columns": grid.columns,
        "cells": list(grid.cells),
        "skipped": grid.skipped,
        "word": grid.word,
        "overInput": grid.over_input,
        "shape": list(grid.shape),
    }
