"""Settings that one retraining and a table of retrainings share, and the network that both explain."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

from cpath.errors import InputError
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.job import Job
from experiments.roar.cells import Retrainings
from experiments.roar.ranks import Ranking, Ranks


class RoarExperiment(Experiment):
    """Retrains the network on images that lost the pixels which attributions find relevant."""

    batch: fields.Batch
    max_batch: fields.MaxBatch
    rank_by: Literal["absolute", "signed"]
    fill: fields.Number | Literal["noisy_linear"]

    def check(self, job: Job) -> None:
        """Refuse a job without an attribution, without images to train on, or in float64.

        Raises:
            InputError: if no attribution is named, the dataset has no images to train on, ``dtype`` is float64, or
                images are to be filled in that lose all of their pixels.
        """
        if job.config.dtype != "float32":
            raise InputError(
                f"dtype={job.config.dtype} is for the explained network alone, and here networks are trained: "
                "leave it out, and set trainer.precision if you want another arithmetic of the training."
            )
        if self.fill == "noisy_linear" and self.loses_every_pixel:
            raise InputError(
                "experiment.fill=noisy_linear fills pixels in from those that are left; at percent=100 none is: "
                "leave out that share, or say experiment.fill=0."
            )
        if not job.attributions:
            raise InputError(
                "no attribution is named: say attribution=all, or name one, such as attribution=gradcam."
            )
        try:
            job.data.training_splits()
        except InputError as error:
            raise InputError(f"ROAR retrains the network, and there is nothing to train on: {error}") from error

    @property
    @abstractmethod
    def loses_every_pixel(self) -> bool:
        """True if some images keep no pixel."""

    def explained(self, job: Job, seed: int) -> Job:
        """Job with a network that is explained: trained with a seed of its own, which also seeds its maps.

        The network does not vary with the seed of a retraining.

        Args:
            job: the job that retrains.
            seed: of the network that is explained.

        Returns:
            The same job, or one with another seed and the same data.
        """
        if job.config.seed == seed:
            return job
        explained = Job(job.config.changed(seed=seed))
        explained.dataset = job.dataset
        return explained

    def rank(self, explained: Job) -> dict[str, Ranks]:
        """Rank the pixels of all images by every attribution, unless that was done before.

        Args:
            explained: job with the network that is explained; the network is moved to the CPU.

        Returns:
            Ranks by attribution.
        """
        ranks = Ranking(explained, self.batch, self.max_batch, self.rank_by).ranks()
        explained.model.cpu()  # the retrainings need the memory
        return ranks

    def retrainings(self, job: Job, ranks: dict[str, Ranks]) -> Retrainings:
        """Prepare the retrainings of a job; none is trained yet.

        Args:
            job: configuration, data and cache.
            ranks: of the pixels, by attribution.

        Returns:
            The retrainings.
        """
        return Retrainings(job.config, job.data, job.cache, ranks, self.fill)
