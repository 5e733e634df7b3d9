"""Counting the pathways of classes in parts, each kept on disk, for the experiments that ask about classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

import cpath
from cpath.data import ImageData
from cpath.errors import InputError
from cpath.response import class_logits
from experiments.engine import fields
from experiments.engine.cache import digest, slug
from experiments.engine.devices import device_of, dtype_of
from experiments.engine.images import Batch, Data, Images
from experiments.engine.job import Job
from experiments.engine.progress import progress
from experiments.engine.question import LABEL, PREDICTED
from experiments.engine.scoring import Scoring, Search
from experiments.engine.settings import Settings

Counted = tuple[str, float]
"""Name of the method and sparsity (per cent) that a counter is of."""


class Counting(Settings):
    """Settings of the counting: ``experiment.counting.…``."""

    images: fields.Images
    """Images that are counted: training images where there are any, else test images that are not held out."""
    parts: fields.Count
    """Parts that they are counted in; a stopped job continues after the last finished one."""
    only_correct: bool
    """True if only images that the network classifies correctly are counted."""


@dataclass(frozen=True)
class Division:
    """Images that are counted, and others that were held out."""

    counted: Images
    """Images to count."""
    held_out: Images
    """Images to measure on."""

    @classmethod
    def of(cls, job: Job, counted: int | None, held_out: int | None) -> Division:
        """Divide the images of a job's dataset: those to count are training images where there are any.

        Args:
            job: the job.
            counted: how many to count; None for all.
            held_out: how many to hold out; None for all.

        Returns:
            Both, without an image in common.

        Raises:
            InputError: if there are not as many, or nothing is left to count.
        """
        data, seed = job.dataset, job.config.seed
        if isinstance(data, ImageData) and data.train is not None:
            counting = replace(data, test=data.train)
            return cls(
                _images(job, counting, data.train.sample(counted, seed)),
                _images(job, data, data.test.sample(held_out, seed)),
            )
        size = len(data.test)
        if held_out is None or held_out >= size:
            raise InputError(
                f"dataset '{data.name}' has no training images to count, and all {size} test images are held out: "
                "say experiment.held_out=N, and the others are counted."
            )
        if counted is not None and counted > size - held_out:
            raise InputError(
                f"{counted} images to count and {held_out} held out are more than the {size} of dataset "
                f"'{data.name}'."
            )
        order = data.test.sample(size, seed)
        rest = order[held_out:] if counted is None else order[held_out : held_out + counted]
        return cls(_images(job, data, rest), _images(job, data, order[:held_out]))

    def check(self) -> None:
        """Refuse a division in which a class has no image to count, or labels are no classes.

        Raises:
            InputError: if there is such a class or label.
        """
        names = self.counted.data.classes
        for images in (self.counted, self.held_out):
            labels = images.data.test.labels[images.indices]
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
                raise InputError(
                    f"dataset '{images.data.name}' has labels from {int(labels.min())} to {int(labels.max())}, and "
                    f"{len(names)} classes."
                )
        counts = torch.bincount(self.counted.data.test.labels[self.counted.indices], minlength=len(names))
        empty = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
        if empty:
            several = f" ({len(empty)} such classes)" if len(empty) > 1 else ""
            raise InputError(
                f"class '{empty[0]}' has none of the {len(self.counted)} images that are counted{several}: raise "
                "experiment.counting.images, or hold out fewer."
            )

    def note(self, job: Job) -> None:
        """Note the images in the manifest: those held out by name, those counted by their number.

        Args:
            job: the job.
        """
        job.notes["images"] = self.held_out.ids
        job.notes["counted"] = {"images": len(self.counted), "digest": digest(self.counted.ids)}


def _images(job: Job, data: Data, indices: Tensor) -> Images:
    return Images(data, indices, device_of(job.config), dtype_of(job.config))


def check_target(job: Job) -> None:
    """Refuse a target that is not the class of the image.

    Args:
        job: the job.

    Raises:
        InputError: if the target is a function, or one class for all images.
    """
    if job.config.target not in (PREDICTED, LABEL):
        raise InputError(
            f"experiment={job.config.experiment.name} is about each image's own class: target must be "
            f"{PREDICTED} or {LABEL}, not {job.config.target}."
        )


def check_names(job: Job) -> None:
    """Refuse methods whose counters would be files of one name.

    Args:
        job: the job.

    Raises:
        InputError: if there are such methods.
    """
    names = list(job.methods)
    if len({slug(name) for name in names}) < len(names):
        raise InputError(f"the methods {', '.join(names)} have names that are too similar for files.")


@dataclass(frozen=True)
class Counts:
    """Counters of the parts of the images, on disk."""

    folders: Sequence[Path]
    """Folder of each part."""
    sizes: Sequence[int]
    """Number of images of each part."""
    classes: int
    """Number of classes."""
    device: torch.device
    """Device that counters are put on."""

    def total(self, counted: Counted, parts: Iterable[int] | None = None) -> cpath.PathwayCounter:
        """Add the counters of several parts.

        Args:
            counted: method and sparsity.
            parts: numbers of the parts; None for all.

        Returns:
            The sum, on the device.
        """
        found = cpath.PathwayCounter(self.classes)
        for number in range(len(self.folders)) if parts is None else parts:
            file = self.folders[number] / _file(counted)
            if file.exists():  # a part without any image that counts has none
                found.merge(cpath.PathwayCounter.load(file))
        return found.to(self.device)


def _file(counted: Counted) -> str:
    name, sparsity = counted
    return f"{slug(name)}-{sparsity:.15g}.safetensors"


def count_classes(
    job: Job, images: Images, searches: Sequence[Search], scoring: Scoring, settings: Counting, batch: int
) -> Counts:
    """Count the pathways of all images by class, part by part.

    Args:
        job: job that counts; the parts are kept in its folder.
        images: images to count.
        searches: scorings, with their sparsities.
        scoring: makes the scores.
        settings: of the counting.
        batch: images at a time.

    Returns:
        The counters.
    """
    size = -(-len(images) // settings.parts)
    folders, sizes = [], []
    made_with = (*(search.method for search in searches),)
    for part in job.batches(images, size, "counting pathways"):
        with job.part(part, "counts", *made_with) as entry:
            if entry.missing:
                for counted, counter in _count(job, part, searches, scoring, settings, batch).items():
                    if int(counter.inputs.sum()):
                        counter.save(entry.folder / _file(counted))
        folders.append(entry.folder)
        sizes.append(len(part))
    return Counts(folders, sizes, len(images.data.classes), images.device)


def _count(
    job: Job, part: Batch, searches: Sequence[Search], scoring: Scoring, settings: Counting, batch: int
) -> dict[Counted, cpath.PathwayCounter]:
    classes = len(part.source.data.classes)
    found: dict[Counted, cpath.PathwayCounter] = {}
    for some in progress(list(sub_batches(part, batch)), "images of the part", "batch", leave=False):
        said = _predicted(job, some) if settings.only_correct and job.config.target != PREDICTED else None
        for search in searches:
            scores = scoring.scores(some, search)
            assert scores.target is not None  # of classes
            counts = (scores.target if said is None else said) == some.labels
            which = (counts | (not settings.only_correct)).nonzero().flatten()
            for sparsity, pathway in search.pathways(scores):
                counter = found.setdefault((search.name, sparsity), cpath.PathwayCounter(classes))
                if len(which):
                    counter.update(pathway[which], scores.target[which])
    return found


def _predicted(job: Job, some: Batch) -> Tensor:
    """Predicted class (B,) of the images."""
    with torch.no_grad():
        output = some.inputs.clone().call(job.model)
    return class_logits(output, len(some)).argmax(1)


def sub_batches(part: Batch, size: int) -> Iterator[Batch]:
    """Divide a part of an experiment's images into batches.

    Args:
        part: the part.
        size: images in a batch; the last one may be smaller.

    Returns:
        The batches in turn.
    """
    for number, start in enumerate(range(part.where.start, part.where.stop, size)):
        yield Batch(part.source, number, slice(start, min(start + size, part.where.stop)))
