"""Sanity checks (paper, section 4): maps of networks whose weights are drawn anew, against the original maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor, nn

import cpath
from cpath.analysis import crossed_mean
from cpath.attribution import single_channel
from cpath.evaluation import INITS, MEASURES, find_blocks, randomise, sanity_check
from cpath.storage import read_tensors, write_tensors
from cpath.viz import Drawing
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, Values, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.predictions import predictions
from experiments.engine.settings import Settings
from experiments.engine.table import Measure, Row
from experiments.figures.findings import sanity_check_findings
from experiments.figures.sanity_checks import sanity_check_figures, sanity_strip
from experiments.metrics import DRAW, pick
from experiments.paper.published import published, published_rows

_FILE, _KIND, _FORMAT = "strip.safetensors", "strip", 2
_X = "randomized_down_to"
_PIXELS = "pixels"
_PUBLISHED_STD, _PUBLISHED_SPARSITY = 0.1, 70

ValuesOfImages = Mapping[Measure, list[float]]
"""A number for each image, by measure."""
Blocks = Mapping[str, Sequence[str]]
"""Modules or parameters by block, from the logits to the input."""


def _as_pairs(value: Any) -> Any:
    """Blocks as pairs of a name and its members: their order counts, and is part of a job's identity."""
    if isinstance(value, Mapping):
        return tuple((name, _listed(members)) for name, members in value.items())
    if isinstance(value, list):
        return tuple((name, (name,)) for name in value)
    if value is None:
        return None
    raise ValueError("must be names of modules such as [fc, layer4], or lists of names by a block's name, or null")


def _listed(members: Any) -> Any:
    return tuple(members) if isinstance(members, list) else (members,)


Members = Annotated[tuple[fields.Text, ...], Field(min_length=1)]
NamedBlocks = Annotated[
    Annotated[tuple[tuple[fields.Text, Members], ...], Field(min_length=1), AfterValidator(fields.distinct)] | None,
    BeforeValidator(_as_pairs),
]
"""Names of modules or parameters from the logits to the input, or lists of them by a block's name; None: found."""


class Strip(Settings):
    """Pictures of the maps from block to block: ``experiment.strip.…``."""

    images: fields.Natural
    blocks: fields.Count


class SanityChecks(Experiment):
    """Compares the maps of the trained network with those of networks that are randomised down to a block."""

    title: ClassVar[str] = "Sanity checks: do the maps depend on what the network learned?"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("spearman", "spearman_abs", "ssim", "hog"),
        *("spearman_random_map", "spearman_abs_random_map", "ssim_random_map", "hog_random_map"),
        "maps_left_out",
    )
    explains_with = ("attribution",)

    images: fields.Images
    batch: fields.Batch
    max_batch: fields.MaxBatch
    blocks: NamedBlocks
    draws: fields.Count
    init: Annotated[str, fields.one_of(INITS)]
    std: fields.Positive
    repredict: bool
    measures: Annotated[
        list[Annotated[str, fields.one_of(MEASURES)]], Field(min_length=1), AfterValidator(fields.distinct)
    ]
    strip: Strip

    def check(self, job: Job) -> None:
        """Refuse blocks that the network does not have, and such as cannot be initialised as asked.

        Raises:
            InputError: if a block has no parameter, or ``init=own`` and a layer cannot draw its weights.
        """
        if self.blocks is not None or self.init == "own":
            blocks = self._blocks(job.untrained, torch.zeros(1, *job.data.shape))
            for _ in randomise(job.untrained, blocks, self.init, self.std):
                pass

    def run(self, job: Job) -> Iterable[Row]:
        """Randomise the network and compare every attribution's maps, for each draw of the weights.

        The numbers of single images are means over the draws, and beside them those of every draw.
        """
        images = job.sample(self.images)
        # No image is decoded for it.
        blocks = self._blocks(job.model, torch.zeros(1, *job.data.shape, device=images.device, dtype=images.dtype))
        job.notes["blocks"] = {name: list(members) for name, members in blocks.items()}
        by_draw = [PerImage() for _ in range(self.draws)]
        found = PerImage()
        for batch in job.batches(images, self.batch, "randomising"):
            with job.part(batch, "measures", *job.attributions.values()) as part:
                if part.missing:
                    for draw, values in enumerate(self._measure(job, batch, blocks)):
                        write_measures(_of_draw(part.folder, draw), values)
            of_draws = [read_measures(_of_draw(part.folder, draw)) for draw in range(self.draws)]
            for per_image, numbers in zip(by_draw, of_draws, strict=True):
                per_image.add(batch, numbers)
            found.add(batch, _mean_over_draws(of_draws) | _each_draw(of_draws))
            job.drawings += self._strips(job, batch, blocks)
        found.write(job.folder)
        values_of_draws = [per_image.values for per_image in by_draw]
        return [
            *_means(values_of_draws),
            *_spread_of_draws(values_of_draws),
            *_left_out(values_of_draws),
            *self._published(job, list(blocks)),
        ]

    def _blocks(self, model: nn.Module, image: Tensor) -> Blocks:
        """Modules or parameters by block, as configured or found."""
        if self.blocks is not None:
            return dict(self.blocks)
        return find_blocks(model, image)

    def _measure(self, job: Job, batch: Batch, blocks: Blocks) -> Iterable[Values]:
        """Similarity of the maps of a batch, for each draw."""
        found = sanity_check(
            job.model,
            batch.images,
            job.attributions,
            blocks=blocks,
            draws=self.draws,
            init=self.init,
            std=self.std,
            repredict=self.repredict,
            measures=self.measures,
            sites=job.config.sites,
            max_batch=self.max_batch,
            seed=job.config.seed,
        )
        for draw in range(self.draws):
            values: dict[Measure, Tensor] = {}
            for method, similarity in found.similarity.items():
                for measure, by_draw in similarity.items():
                    random = found.baseline[method][measure][draw]
                    values[Measure(method, f"{measure}_random_map")] = torch.from_numpy(random)
                    for block, of_block in zip(found.blocks, by_draw[draw], strict=True):
                        values[Measure(method, measure, _X, block)] = torch.from_numpy(of_block)
            yield values

    def _strips(self, job: Job, batch: Batch, blocks: Blocks) -> list[Drawing]:
        """Pictures of the maps from block to block, of those images of a batch that are to be shown."""
        first = batch.where.start
        count = max(0, min(len(batch), self.strip.images - first))
        if count == 0:
            return []
        with job.part(batch, "strip", *job.attributions.values()) as part:
            if part.missing:
                self._write_strip(job, batch, blocks, count, part.folder / _FILE)
        tensors, metadata = read_tensors(part.folder / _FILE, _KIND, _FORMAT)
        pixels = tensors[_PIXELS].numpy()
        return [
            sanity_strip(
                f"strip_{first + number + 1}",
                pixels[number],
                metadata["titles"][number],
                {method: tensors[str(place)][:, number] for place, method in enumerate(metadata["methods"])},
                metadata["columns"],
            )
            for number in range(count)
        ]

    def _write_strip(self, job: Job, batch: Batch, blocks: Blocks, count: int, file: Path) -> None:
        """Write the first images of a batch with their maps (1 + blocks shown, B, H, W), of the first draw."""
        shown = _evenly_spread(list(blocks), self.strip.blocks)
        seen = predictions(job.model, batch)
        images, target = batch.images[:count], seen.target[:count]
        steps = [self._maps(job, job.model, images, target)]
        for block, network in randomise(job.model, blocks, self.init, self.std, seed=job.config.seed):
            if block in shown:
                steps.append(self._maps(job, network, images, None if self.repredict else target))
        tensors = {str(place): torch.stack(maps) for place, maps in enumerate(zip(*steps, strict=True))}
        metadata = {
            "kind": _KIND,
            "format": _FORMAT,
            "images": batch.ids[:count],
            "titles": seen.titles[:count],
            "methods": list(job.attributions),
            "columns": ["original", *shown],
        }
        write_tensors(file, {_PIXELS: torch.from_numpy(batch.pixels[:count]), **tensors}, metadata)

    def _maps(self, job: Job, network: nn.Module, images: Tensor, target: Tensor | None) -> list[Tensor]:
        """(B, H, W) single-channel maps of each attribution."""
        settings: dict[str, Any] = {"sites": job.config.sites, "max_batch": self.max_batch}
        return [
            single_channel(cpath.attribute(network, images, attribution, target, **settings)).squeeze(1)
            for attribution in job.attributions.values()
        ]

    def _published(self, job: Job, blocks: Sequence[str]) -> list[Row]:
        """The paper's curves at our blocks, which are in the same order; none where the experiment is another."""
        # The paper names no blocks: only those that are found are known to be its own.
        as_published = self.blocks is None and self.init == "normal" and self.std == _PUBLISHED_STD
        if not as_published or not self.repredict:
            return []
        metrics = {measure: measure for measure in self.measures}
        # Gradients of pathways are the paper's at its sparsity only; other attributions have none.
        methods = [
            name
            for name, attribution in job.attributions.items()
            if getattr(attribution, "sparsity", _PUBLISHED_SPARSITY) == _PUBLISHED_SPARSITY
        ]
        rows = published_rows(published("sanity_checks", job.config), metrics, methods)
        theirs = [x for x in dict.fromkeys(row.x for row in rows) if x != "original"]
        if len(theirs) != len(blocks):
            return []
        ours: dict[float | str, str] = {"original": "original", **dict(zip(theirs, blocks, strict=True))}
        return [Row(row.method, row.metric, row.value, row.x_name, ours[row.x], n=0) for row in rows]

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the similarity by block, with the published curves beside ours."""
        return sanity_check_figures(table, self.draws)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return sanity_check_findings(table)


def _of_draw(folder: Path, draw: int) -> Path:
    """Folder of a draw in a part."""
    return folder / f"draw-{draw}"


def _mean_over_draws(draws: Sequence[ValuesOfImages]) -> dict[Measure, list[float]]:
    """Mean of each image over the draws; of those that have a value: one that leaves a map constant has none."""
    return {measure: _stacked(draws, measure).mean(0).filled(np.nan).tolist() for measure in draws[0]}


def _stacked(draws: Sequence[ValuesOfImages], measure: Measure) -> np.ma.MaskedArray[Any, Any]:
    """(draws, images) values, without those that are NaN."""
    return np.ma.masked_invalid(np.array([values[measure] for values in draws]))


def _each_draw(draws: Sequence[ValuesOfImages]) -> dict[Measure, list[float]]:
    """Numbers of every draw of the weights, under a name of its own, as they are compared draw by draw."""
    return {
        Measure(measure.method, f"{measure.metric}{DRAW}{number + 1}", measure.x_name, measure.x): column
        for number, values in enumerate(draws)
        for measure, column in values.items()
        if measure.x_name
    }


def _means(draws: Sequence[ValuesOfImages]) -> list[Row]:
    """Mean of each measure over images and draws, with its interval over both."""
    measures = list(draws[0])
    interval = crossed_mean(
        np.array([[values[measure] for measure in measures] for values in draws]).swapaxes(1, 2)
    )
    return [
        Row(measure.method, measure.metric, float(mean), measure.x_name, measure.x, float(low), float(high), int(n))
        for measure, mean, low, high, n in zip(
            measures, interval.mean, interval.low, interval.high, interval.n, strict=True
        )
    ]


def _spread_of_draws(draws: Sequence[ValuesOfImages]) -> list[Row]:
    """Standard deviation of the draws' means over images; no rows for a single draw."""
    if len(draws) < 2:
        return []
    return [
        Row(
            measure.method,
            f"{measure.metric}/sd_of_draws",
            float(np.ma.filled(_stacked(draws, measure).mean(1).std(ddof=1), np.nan)),
            measure.x_name,
            measure.x,
        )
        for measure in draws[0]
        if measure.x_name
    ]


def _left_out(draws: Sequence[ValuesOfImages]) -> list[Row]:
    """Per cent of the maps that have no value; no rows where all have one."""
    rows = []
    for measure in draws[0]:
        missing = np.ma.getmaskarray(_stacked(draws, measure))
        if missing.any():
            share = 100 * float(missing.mean())
            name = f"maps_left_out/{measure.metric}"
            rows.append(Row(measure.method, name, share, measure.x_name, measure.x, n=missing.shape[1]))
    return rows


def _evenly_spread(names: list[str], most: int) -> list[str]:
    """At most ``most`` of ``names``, evenly spread, the first and the last among them."""
    if len(names) <= most:
        return names
    places = np.linspace(0, len(names) - 1, most).round().astype(int)
    return [names[place] for place in places]
