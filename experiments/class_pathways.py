"""Pathways of classes: the units that the pathways of a class's images share, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import torch
from pydantic import Field
from torch import Tensor

import cpath
from cpath.analysis import bootstrap_mean, t_mean
from cpath.checks import warn
from cpath.data import ImageData
from cpath.decoding import Channel
from cpath.errors import InputError
from cpath.randomness import seeded
from cpath.response import class_logits
from cpath.viz import Drawing
from experiments.class_counts import (
    Counting,
    Counts,
    Division,
    check_names,
    check_target,
    count_classes,
)
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.scoring import Scoring, Search, plan_searches
from experiments.engine.settings import Settings
from experiments.engine.table import Measure, PseudoMethod, Row
from experiments.figures.class_findings import class_pathway_findings
from experiments.figures.class_pathways import class_pathway_figures, decoded_channels
from experiments.metrics import pick

_MOST_PAIRS = 100  # classes whose pairs all have a row
_RANDOM = "random"

Share = Annotated[fields.Number, Field(ge=0, lt=1)]


class Decoding(Settings):
    """Settings of the pictures: ``experiment.decoding.…``."""

    classes: fields.Natural
    """Classes that have a picture; 0 for none."""
    steps: fields.Count
    learning_rate: fields.Positive


class ClassPathways(Experiment):
    """Counts the pathways of each class's images, and measures what they share and what they carry."""

    title: ClassVar[str] = "Pathways of classes"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("class_jaccard", "class_jaccard_chance", "site_class_jaccard", "site_class_jaccard_chance"),
        *("class_units", "shared_units", "specific_units", "site_specific_units", "class_stability"),
        *("typicality", "typical_class", "class_accuracy", "other_accuracy", "says_class"),
    )

    explains_with = ("method",)
    asks = ("unit", "target")
    any_input = True

    sparsity: fields.Sparsity
    frequency: Share
    elsewhere: Share
    held_out: fields.Images
    batch: fields.Batch
    max_batch: fields.MaxBatch
    keep_scores_gb: fields.Gigabytes
    counting: Counting
    draws: fields.Count
    restricted: fields.Natural
    decoding: Decoding

    def check(self, job: Job) -> None:
        """Refuse a target that is no class of the image, and a division that leaves a class without images.

        Raises:
            InputError: if it is so, or pictures are asked for where inputs are no images.
        """
        check_target(job)
        check_names(job)
        self._division(job).check()
        if self.decoding.classes and not isinstance(job.dataset, ImageData):
            raise InputError("experiment.decoding.classes: pictures can only be made where the inputs are images.")

    def _division(self, job: Job) -> Division:
        return Division.of(job, self.counting.images, self.held_out)

    def run(self, job: Job) -> Iterable[Row]:
        """Count, compare the classes, and measure the restricted networks on images that were held out."""
        division = self._division(job)
        division.note(job)
        searches = plan_searches(job.methods, [self.sparsity])
        scoring = Scoring.planned(
            job, division.counted, searches, max_batch=self.max_batch, keep_gb=self.keep_scores_gb
        )
        counts = count_classes(job, division.counted, searches, scoring, self.counting, self.batch)
        rows: list[Row] = []
        counters = {search.name: counts.total((search.name, self.sparsity)) for search in searches}
        for name, counter in counters.items():
            if not int(counter.inputs.sum()):
                raise InputError(
                    "the network classifies none of the counted images correctly: train it longer, or say "
                    "experiment.counting.only_correct=false."
                )
            rows += self._compare(name, counter, division.counted.data.classes)
            rows += self._stability(name, counts, job.config.seed)
        found = PerImage()
        for batch in job.batches(division.held_out, self.batch, "measuring restricted networks"):
            with job.part(batch, "measures", *job.methods.values()) as part:
                if part.missing:
                    write_measures(part.folder, self._measure(job, batch, searches, scoring, counters))
            found.add(batch, read_measures(part.folder))
        found.write(job.folder)
        if self.decoding.classes:
            job.drawings += self._decode(job, counters)
        return [*rows, *found.means()]

    # What the counts say

    def _compare(self, method: str, counter: cpath.PathwayCounter, classes: Sequence[str]) -> list[Row]:
        """Rows on the pathways of the classes of one method."""
        pathways = counter.pathway(self.frequency)
        counted = [number for number in range(counter.classes) if counter.inputs[number]]
        units, rows = counter.layout.units, list[Row]()
        for number in counted:
            name, n = classes[number], int(counter.inputs[number])
            held = float(pathways.flat[number].sum())
            rows.append(Row(method, "class_units", 100 * held / units, "class", name, n=n))
            speaking = counter.specific(number, self.frequency, self.elsewhere)
            share = sum(float(mask.sum()) for mask in speaking.values()) / units
            rows.append(Row(method, "specific_units", 100 * share, "class", name, n=n))
        rows += self._shared(method, pathways.flat[counted])
        rows += _pairs(method, "class_jaccard", counter.similarity(self.frequency), pathways.flat, counted)
        rows += _named_pairs(method, counter.similarity(self.frequency), counted, classes)
        by_site = counter.similarity_by_site(self.frequency)
        alone = [counter.specific(number, self.frequency, self.elsewhere) for number in counted]
        for site, where in counter.layout.slices.items():
            rows += _pairs(method, f"site_class_jaccard/{site}", by_site[site], pathways.flat[:, where], counted)
            of_any = torch.stack([masks[site] for masks in alone]).any(0).double().mean()
            rows.append(Row(method, f"site_specific_units/{site}", 100 * float(of_any), n=len(counted)))
        return rows

    def _shared(self, method: str, flat: Tensor) -> list[Row]:
        """Rows on the units that so many classes share."""
        held = torch.bincount(flat.sum(0), minlength=len(flat) + 1)[1:].double()
        if not float(held.sum()):
            return []
        shares = 100 * held / held.sum()
        return [
            Row(method, "shared_units", float(share), "classes", number + 1, n=len(flat))
            for number, share in enumerate(shares)
        ]

    def _stability(self, method: str, counts: Counts, seed: int) -> list[Row]:
        """Rows on the agreement of pathways that were counted on images without one in common."""
        parts, generator = len(counts.folders), np.random.default_rng(seed)
        sizes = sorted({max(1, parts // 2**power) for power in range(1, 8)}) if parts > 1 else []
        agreed: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(self.draws):
            order = generator.permutation(parts)
            for size in sizes:
                one, other = (
                    counts.total((method, self.sparsity), order[first : first + size]) for first in (0, size)
                )
                agreed[size].append(_agreement(one, other, self.frequency))
        rows = []
        for size, values in agreed.items():
            found = t_mean(np.array(values)[:, None])
            images = size * counts.sizes[0]
            interval = (float(found.low[0]), float(found.high[0]))
            rows.append(
                Row(method, "class_stability", float(found.mean[0]), "images", images, *interval, int(found.n[0]))
            )
        return rows

    # What the pathways carry

    def _measure(
        self,
        job: Job,
        batch: Batch,
        searches: Sequence[Search],
        scoring: Scoring,
        counters: Mapping[str, cpath.PathwayCounter],
    ) -> dict[Measure, Tensor]:
        """Numbers of the held-out images of one batch."""
        with torch.no_grad():
            predicted = class_logits(batch.inputs.clone().call(job.model), len(batch)).argmax(1)
        correct = predicted == batch.labels
        measures = {Measure(PseudoMethod.NETWORK, "class_accuracy"): 100 * correct.double()}
        for search in searches:
            scores = scoring.scores(batch, search)
            assert scores.target is not None  # of classes
            ((_, pathway),) = search.pathways(scores)
            measures |= _typical(search.name, pathway, scores.target, correct, counters[search.name])
            measures |= self._restrict(job, batch, search.name, counters[search.name], correct)
        return measures

    def _restrict(
        self, job: Job, batch: Batch, method: str, counter: cpath.PathwayCounter, correct: Tensor
    ) -> dict[Measure, Tensor]:
        """Answers, to a batch, of networks that are restricted to the classes' pathways, or to random ones."""
        names, labels = batch.source.data.classes, batch.labels
        pathways = counter.pathway(self.frequency)
        measures: dict[Measure, Tensor] = {}
        for control in ("", f"/{_RANDOM}"):
            all_others: dict[str, list[Tensor]] = {"other_accuracy": [], "says_class": []}
            on_own = torch.full((len(batch),), torch.nan, dtype=torch.float64, device=labels.device)
            for number in range(min(self.restricted, counter.classes)):
                kept = pathways[number]
                if control:
                    kept = _shuffled(kept, job.config.seed * counter.classes + number)
                with torch.no_grad(), kept.restrict(job.model):
                    said = class_logits(batch.inputs.clone().call(job.model), len(batch)).argmax(1)
                mine, values = labels == number, {}
                values["class_accuracy"] = _where(mine, said == number)
                values["other_accuracy"] = _where(~mine, said == labels)
                values["says_class"] = _where(~mine, said == number)
                on_own = torch.where(mine, values["class_accuracy"], on_own)
                for name, column in values.items():
                    measures[Measure(method, name + control, "class", names[number])] = column
                    if name in all_others:
                        all_others[name].append(column)
            if self.restricted:
                measures[Measure(method, f"class_accuracy{control}")] = on_own
                for name, columns in all_others.items():
                    measures[Measure(method, name + control)] = torch.stack(columns).nanmean(0)
        return measures

    def _decode(self, job: Job, counters: Mapping[str, cpath.PathwayCounter]) -> list[Drawing]:
        """Pictures of the channel with the unit that speaks most for each class."""
        data, drawings = job.data, []
        for method, counter in counters.items():
            if not _maps(counter):
                warn("no picture is made: no site of the network gives maps with channels.")
                break
            classes = [number for number in range(counter.classes) if counter.inputs[number]]
            found = [(number, *_speaks_most(counter, number)) for number in classes[: self.decoding.classes]]
            pictures = cpath.decode(
                job.model,
                [None] * len(found),
                [Channel(site, channel) for _, site, channel, _, _ in found],
                shape=data.shape,
                normalisation=data.normalisation,
                steps=self.decoding.steps,
                learning_rate=self.decoding.learning_rate,
                seed=job.config.seed,
                sites=job.config.sites,
            )
            titles = [
                f"{data.classes[number]}\n{site}, channel {channel}\n{100 * share:.0f} % of its images, "
                f"{100 * other:.0f} % elsewhere"
                for number, site, channel, share, other in found
            ]
            drawings.append(decoded_channels(method, pictures.images, titles))
        return drawings

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw similarity with a dendrogram, depth, stability and accuracies."""
        return class_pathway_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return class_pathway_findings(table)


def _where(mask: Tensor, right: Tensor) -> Tensor:
    """Per cent (B,) of single images: 0 or 100, NaN outside the mask."""
    return torch.where(mask, 100 * right.double(), torch.nan)


def _pairs(method: str, metric: str, matrix: Tensor, flat: Tensor, counted: Sequence[int]) -> list[Row]:
    """Mean over pairs of classes of a similarity, and of that of random sets of the same sizes."""
    ones, others = torch.triu_indices(len(counted), len(counted), 1)
    which = torch.tensor(counted)
    values = matrix.cpu()[which[ones], which[others]]
    sizes = flat.sum(1).cpu().double()[which]
    common = sizes[ones] * sizes[others] / flat.shape[1]
    chance = common / (sizes[ones] + sizes[others] - common)
    name, slash, site = metric.partition("/")
    found = bootstrap_mean(torch.stack([values.double(), chance], 1).numpy()) if len(values) else None
    if found is None:
        return []
    return [
        Row(method, f"{name}{what}{slash}{site}", float(found.mean[place]), n=int(found.n[place]))
        for place, what in enumerate(("", "_chance"))
    ]


def _named_pairs(method: str, matrix: Tensor, counted: Sequence[int], classes: Sequence[str]) -> list[Row]:
    """A row for each pair of classes, unless there are too many."""
    if len(counted) > _MOST_PAIRS:
        return []
    return [
        Row(method, f"class_jaccard/{classes[other]}", float(matrix[one, other]), "class", classes[one], n=1)
        for one in counted
        for other in counted
        if one < other
    ]


def _agreement(one: cpath.PathwayCounter, other: cpath.PathwayCounter, frequency: float) -> float:
    """Mean over classes of the Jaccard index of two counters' pathways; NaN where a side has none."""
    if not int(one.inputs.sum()) or not int(other.inputs.sum()):
        return float("nan")
    both = (one.inputs > 0) & (other.inputs > 0)
    overlap = one.pathway(frequency).jaccard(other.pathway(frequency))[both.to(one.counts.device)]
    return float(overlap.nanmean())


def _typical(
    method: str, pathway: cpath.Pathway, target: Tensor, correct: Tensor, counter: cpath.PathwayCounter
) -> dict[Measure, Tensor]:
    """Typicality (B,) of a batch's pathways for their class, and whether it is the most typical one."""
    of_class = torch.stack(
        [counter.typicality(pathway, torch.full_like(target, number)) for number in range(counter.classes)], 1
    )
    own = of_class.gather(1, target[:, None])[:, 0]
    best = of_class.nan_to_num(-1).argmax(1)
    judged = ~own.isnan()
    return {
        Measure(method, "typicality"): own,
        Measure(method, "typicality/correct"): torch.where(correct, own, torch.nan),
        Measure(method, "typicality/wrong"): torch.where(correct, torch.nan, own),
        Measure(method, "typical_class"): _where(judged, best == target),
    }


def _shuffled(pathway: cpath.Pathway, seed: int) -> cpath.Pathway:
    """Keep as many random units at each site as a pathway of one input keeps."""
    generator, flat = seeded(seed), pathway.flat.cpu().clone()
    for where in pathway.layout.slices.values():
        part = flat[0, where]
        flat[0, where] = part[torch.randperm(len(part), generator=generator, device="cpu")]
    return replace(pathway, flat=flat.to(pathway.flat.device), method=_RANDOM)


def _maps(counter: cpath.PathwayCounter) -> dict[str, slice]:
    """Places of the sites whose units are neurons or channels of maps, by site."""
    if counter.layout.unit not in ("neuron", "channel"):
        return {}
    return {site: where for site, where in counter.layout.slices.items() if len(counter.layout.shapes[site]) == 3}


def _speaks_most(counter: cpath.PathwayCounter, number: int) -> tuple[str, int, float, float]:
    """Site and channel of the unit that is frequent in a class and rare in all others, and both frequencies."""
    shares = counter.frequency.nan_to_num(0)
    elsewhere = torch.cat([shares[:number], shares[number + 1 :]]).max(0).values
    gap = shares[number] - elsewhere
    maps = _maps(counter)
    site = max(maps, key=lambda name: float(gap[maps[name]].max()))
    place = maps[site].start + int(gap[maps[site]].argmax())
    _, height, width = counter.layout.shapes[site]
    channel = (place - maps[site].start) // (height * width)
    return site, channel, float(shares[number, place]), float(elsewhere[place])
