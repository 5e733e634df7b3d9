"""Ranks of the pixels of all images, as entries of the cache: one for each attribution and batch of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor

import cpath
from cpath.attribution import Attribution
from cpath.evaluation import StoredRanks, chunks_of, parts_of, rank_pixels
from experiments.engine.cache import Key, digest
from experiments.engine.devices import device_of
from experiments.engine.digests import code_digest
from experiments.engine.images import identity_of
from experiments.engine.job import Job
from experiments.engine.progress import progress

_FORMAT = 2
_FILE = "ranks.safetensors"


@dataclass(frozen=True)
class Ranks:
    """Ranks of the pixels of every training, validation and test image by one attribution."""

    made_of: Mapping[str, Any]
    """Everything that determines them; the number of images in a file does not."""
    splits: Mapping[str, StoredRanks]
    """Ranks of each split, on disk."""

    @property
    def digest(self) -> str:
        """Identity of the ranks."""
        return digest(dict(self.made_of))


@dataclass(frozen=True)
class Ranking:
    """Ranks pixels by the attributions of a job, for the classes that its network predicts."""

    job: Job
    """Of the network that is explained; its seed also orders pixels of equal relevance."""
    batch: int
    """Images at a time, and in a file."""
    max_batch: int
    """Images in one forward pass, at most."""
    rank_by: str
    """Relevance of a pixel: ``absolute`` or ``signed`` value of the map."""

    def ranks(self) -> dict[str, Ranks]:
        """Rank the pixels of all images by every attribution, as far as that was not done before.

        A batch of images is decoded once for all attributions.

        Returns:
            Ranks by attribution.
        """
        job = self.job
        splits = parts_of(job.data)
        found = {name: self._planned(name, attribution) for name, attribution in job.attributions.items()}
        batches = [
            (split, number)
            for split, images in splits.items()
            for number in range(len(chunks_of(len(images), self.batch)))
        ]
        for split, number in progress(batches, "ranking pixels", "batch"):
            keys = {name: self._key(ranks.made_of, split, number) for name, ranks in found.items()}
            missing = [name for name, key in keys.items() if not job.cache.holds(key)]
            if not missing:
                continue
            where = chunks_of(len(splits[split]), self.batch)[number]
            images = splits[split].batch(torch.arange(where.start, where.stop)).to(device_of(job.config))
            for name in missing:
                with job.cache.entry(keys[name]) as entry:
                    if entry.missing:
                        found[name].splits[split].write(number, self._rank(images, job.attributions[name]))
        return found

    def _rank(self, images: Tensor, attribution: Attribution) -> Tensor:
        config = self.job.config
        maps = cpath.attribute(self.job.model, images, attribution, sites=config.sites, max_batch=self.max_batch)
        return rank_pixels(maps, images, rank_by=self.rank_by, seed=config.seed)

    def _planned(self, name: str, attribution: Attribution) -> Ranks:
        """The ranks of an attribution, with the files where they are or will be."""
        made_of = {
            "format": _FORMAT,
            "cpath": cpath.__version__,
            "model": self.job.model_hash,
            "data": identity_of(self.job.data),
            "sites": self.job.config.sites,
            "attribution": name,
            "settings": asdict(attribution) if is_dataclass(attribution) else vars(attribution),
            "code": code_digest(attribution),
            "rank_by": self.rank_by,
            "seed": self.job.config.seed,
        }
        splits = {}
        for split, images in parts_of(self.job.data).items():
            keys = [self._key(made_of, split, number) for number in range(len(chunks_of(len(images), self.batch)))]
            files = [self.job.cache.folder(key) / _FILE for key in keys]
            splits[split] = StoredRanks(files, len(images), self.batch)
        return Ranks(made_of, splits)

    def _key(self, made_of: Mapping[str, Any], split: str, number: int) -> Key:
        """Key of the ranks of a batch."""
        label = f"{made_of['attribution']}-{self.job.config.model_name}-{self.job.data.name}-{split}-{number:05d}"
        return Key("ranks", label, {**made_of, "split": split, "batch": self.batch, "number": number})
