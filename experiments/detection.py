"""Detection: misclassified, adversarial and foreign inputs by their distance from the predicted class's pathway."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from torch import Tensor

import cpath
from cpath.analysis import detection
from cpath.errors import InputError
from cpath.inputs import Inputs
from cpath.response import class_logits
from cpath.viz import Drawing
from experiments.attacks import ATTACKS, Attacker, toolbox
from experiments.class_counts import Counted, Counting, Division, check_names, check_target, count_classes
from experiments.engine import fields
from experiments.engine.experiment import Experiment
from experiments.engine.images import Batch, Images
from experiments.engine.job import Job
from experiments.engine.measuring import PerImage, read_measures, write_measures
from experiments.engine.metric_entry import Metric
from experiments.engine.scoring import Scoring, Search, plan_searches
from experiments.engine.settings import Settings
from experiments.engine.table import Measure, PseudoMethod, Row
from experiments.figures.class_findings import detection_findings
from experiments.figures.detection import detection_figures
from experiments.foreign import FOREIGN, foreign_data
from experiments.metrics import pick

_LOG = logging.getLogger(__name__)
_CLEAN, _WRONG = "clean", "misclassified"
_SITE = "suspicion_at/"
_PREDICTED, _TRUE = Measure(PseudoMethod.NETWORK, "predicted"), Measure(PseudoMethod.NETWORK, "label")

Share = Annotated[fields.Number, Field(ge=0, lt=1)]
AttackName = Annotated[str, fields.one_of(ATTACKS)]
ForeignName = Annotated[str, fields.one_of(FOREIGN)]


class Attacks(Settings):
    """Settings of the adversarial images: ``experiment.attacks.…``."""

    names: Annotated[list[AttackName], AfterValidator(fields.distinct)]
    epsilon: Annotated[fields.Positive, Field(le=1)]
    """Largest change of a pixel in [0, 1]."""
    steps: fields.Count
    images: fields.Count
    """Number of held-out images that are attacked, the first ones."""


class Foreign(Settings):
    """Settings of the foreign inputs: ``experiment.foreign.…``."""

    names: Annotated[list[ForeignName], AfterValidator(fields.distinct)]
    images: fields.Count
    folder: fields.Text | None


@dataclass
class _Inputs:
    """Numbers of all inputs of one kind."""

    ids: list[str] = field(default_factory=list)
    values: dict[Measure, list[float]] = field(default_factory=dict)

    def add(self, ids: Sequence[str], values: Mapping[Measure, list[float]]) -> None:
        """Append the numbers of a batch."""
        self.ids += ids
        for measure, column in values.items():
            self.values.setdefault(measure, []).extend(column)

    def column(self, measure: Measure) -> NDArray[np.float64]:
        """Numbers (N,) of one measure."""
        return np.array(self.values[measure])

    def scores(self, measures: Sequence[Measure], which: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
        """Scores (N, K) of the inputs, or of some of them."""
        table = np.stack([self.column(measure) for measure in measures], 1)
        return table if which is None else table[which]


class Detection(Experiment):
    """Measures how well the distance from the predicted class's pathway finds inputs that should not be trusted."""

    title: ClassVar[str] = "Detection by pathways of classes"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        "auroc", "fpr95", "site_auroc", "attack_success", "test_accuracy", "suspicion"
    )

    explains_with = ("method",)
    asks = ("unit",)

    sparsity: fields.Sparsities
    frequency: Share
    held_out: fields.Images
    by_site: bool
    batch: fields.Batch
    max_batch: fields.MaxBatch
    keep_scores_gb: fields.Gigabytes
    counting: Counting
    attacks: Attacks
    foreign: Foreign

    def check(self, job: Job) -> None:
        """Refuse foreign inputs that are none, a class without images, and attacks without their package.

        Raises:
            InputError: if it is so.
            MissingPackageError: if attacks are asked for, and the toolbox is not installed.
        """
        check_target(job)
        check_names(job)
        self._division(job).check()
        if self.attacks.names:
            toolbox()
        for kind in self.foreign.names:
            self._foreign(job, kind)

    def _division(self, job: Job) -> Division:
        _ = job.data  # refuses inputs that are no images
        return Division.of(job, self.counting.images, self.held_out)

    def _foreign(self, job: Job, kind: str) -> Images:
        folder = None if self.foreign.folder is None else Path(self.foreign.folder)
        data = foreign_data(kind, job.data, self.foreign.images, job.config.seed, folder)
        some = Division.of(job, self.counting.images, self.held_out).held_out
        return Images(data, torch.arange(self.foreign.images), some.device, some.dtype)

    def run(self, job: Job) -> Iterable[Row]:
        """Count the pathways of the classes, score all inputs, and measure how well each kind is found."""
        division = self._division(job)
        division.note(job)
        searches = plan_searches(job.methods, self.sparsity)
        images = division.held_out
        scoring = Scoring.planned(job, images, searches, max_batch=self.max_batch, keep_gb=self.keep_scores_gb)
        counts = count_classes(job, division.counted, searches, scoring, self.counting, self.batch)
        classes = {
            (search.name, sparsity): _OfClass(counts.total((search.name, sparsity)), self.frequency)
            for search in searches
            for sparsity in search.sparsities
        }
        judge = _Judge(job, searches, scoring, classes, self.by_site, self.max_batch)
        found = {_CLEAN: self._collect(job, images, _CLEAN, judge)}
        for kind in self.foreign.names:
            found[kind] = self._collect(job, self._foreign(job, kind), kind, judge)
        adversarial = self._adversarial(job, images, judge)
        _write(found | adversarial, job.folder)
        return self._rows(found, adversarial)

    def _collect(self, job: Job, images: Images, kind: str, judge: _Judge) -> _Inputs:
        found = _Inputs()
        for batch in job.batches(images, self.batch, f"scoring {kind} inputs"):
            with job.part(batch, f"inputs-{kind}", *job.methods.values()) as part:
                if part.missing:
                    write_measures(part.folder, judge.suspicions(batch, batch.inputs, scored=kind == _CLEAN))
            found.add(batch.ids, read_measures(part.folder))
        return found

    def _adversarial(self, job: Job, images: Images, judge: _Judge) -> dict[str, _Inputs]:
        """Attack the first held-out images, and score what comes of it."""
        if not self.attacks.names:
            return {}
        first = Images(images.data, images.indices[: self.attacks.images], images.device, images.dtype)
        data, config = job.data, self.attacks
        attacker = Attacker(
            job.model,
            data.normalisation,
            data.shape,
            len(data.classes),
            epsilon=config.epsilon,
            steps=config.steps,
            seed=job.config.seed,
        )
        found: dict[str, _Inputs] = {}
        for name in config.names:
            found[name] = _Inputs()
            for batch in job.batches(first, self.batch, f"attacking by {name}"):
                with job.part(batch, f"inputs-{name}", *job.methods.values()) as part:
                    if part.missing:
                        changed = Inputs.of(attacker.attack(name, batch.images, judge.predicted(batch.inputs)))
                        write_measures(part.folder, judge.suspicions(batch, changed, scored=False))
                found[name].add(batch.ids, read_measures(part.folder))
        return found

    def _rows(self, found: Mapping[str, _Inputs], adversarial: Mapping[str, _Inputs]) -> list[Row]:
        clean = found[_CLEAN]
        correct = clean.column(_PREDICTED) == clean.column(_TRUE)
        rows = [Row(PseudoMethod.NETWORK, "test_accuracy", 100 * float(correct.mean()), n=len(correct))]
        measures = [measure for measure in clean.values if measure not in (_PREDICTED, _TRUE)]
        right = clean.scores(measures, correct)
        rows += _detected(_WRONG, measures, clean.scores(measures, ~correct), right)
        for name, inputs in adversarial.items():
            # Those that the network got wrong before are not for an attack to change.
            attacked = correct[: len(inputs.ids)]
            changed = attacked & (inputs.column(_PREDICTED) != clean.column(_PREDICTED)[: len(inputs.ids)])
            share = 100 * float(changed.sum() / attacked.sum()) if attacked.any() else float("nan")
            rows.append(Row(PseudoMethod.NETWORK, f"attack_success/{name}", share, n=int(attacked.sum())))
            rows += _detected(name, measures, inputs.scores(measures, changed), right)
        for kind in self.foreign.names:
            rows += _detected(kind, measures, found[kind].scores(measures), clean.scores(measures))
        return rows

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw AUROC and FPR of each kind, over sparsity and over depth."""
        return detection_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return detection_findings(table)


class _OfClass:
    """Pathways of the classes by one method at one sparsity."""

    def __init__(self, counter: cpath.PathwayCounter, frequency: float) -> None:
        if not int(counter.inputs.sum()):
            raise InputError(
                "the network classifies none of the counted images correctly: train it longer, or say "
                "experiment.counting.only_correct=false."
            )
        self.counter = counter
        self.pathways = counter.pathway(frequency)


@dataclass(frozen=True)
class _Judge:
    """Scores how strange inputs are."""

    job: Job
    searches: Sequence[Search]
    scoring: Scoring
    classes: Mapping[Counted, _OfClass]
    by_site: bool
    max_batch: int

    def predicted(self, inputs: Inputs) -> Tensor:
        """Predicted class (B,) of inputs."""
        return self._logits(inputs).argmax(1)

    def _logits(self, inputs: Inputs) -> Tensor:
        with torch.no_grad():
            return class_logits(inputs.clone().call(self.job.model), len(inputs)).double()

    def suspicions(self, batch: Batch, inputs: Inputs, *, scored: bool) -> dict[Measure, Tensor]:
        """Score inputs that were made of a batch.

        Args:
            batch: the batch.
            inputs: its own inputs, or changed ones.
            scored: True if they are its own, whose scores may be kept.

        Returns:
            (B,) numbers, higher for a stranger input, with predicted class and label.
        """
        logits = self._logits(inputs)
        logs = logits.log_softmax(1)
        network = {
            "probability": -logs.max(1).values,
            "energy": -logits.logsumexp(1),
            "entropy": -(logs.exp() * logs).sum(1),
        }
        found = {Measure(PseudoMethod.NETWORK, f"suspicion/{name}"): values for name, values in network.items()}
        found |= {_PREDICTED: logits.argmax(1), _TRUE: batch.labels}
        for search in self.searches:
            scores = self.scoring.scores(batch, search) if scored else self._score(batch, inputs, search)
            assert scores.target is not None  # of classes
            for sparsity, pathway in search.pathways(scores):
                of_class = self.classes[search.name, sparsity]
                values = {
                    "suspicion/typicality": 1 - of_class.counter.typicality(pathway, scores.target),
                    "suspicion/jaccard": 1 - pathway.jaccard(of_class.pathways[scores.target]),
                }
                if self.by_site:
                    at_sites = of_class.counter.typicality_by_site(pathway, scores.target)
                    values |= {f"{_SITE}{site}": 1 - typical for site, typical in at_sites.items()}
                found |= {Measure(search.name, name, "sparsity", sparsity): v for name, v in values.items()}
        return found

    def _score(self, batch: Batch, inputs: Inputs, search: Search) -> cpath.Scores:
        arguments = self.job.question.arguments(batch)
        return cpath.score(self.job.model, inputs, search.method, **arguments, max_batch=self.max_batch)


def _detected(
    kind: str, measures: Sequence[Measure], positives: NDArray[np.float64], negatives: NDArray[np.float64]
) -> list[Row]:
    """Rows on how well inputs of a kind are found by each score."""
    if not len(positives) or not len(negatives):
        _LOG.warning("nothing is found of '%s': there are %d, and %d others", kind, len(positives), len(negatives))
        return []
    found = detection(positives, negatives)
    rows = []
    for place, measure in enumerate(measures):
        name = measure.metric.partition("/")[2]
        at_site = measure.metric.startswith(_SITE)
        for metric, interval, factor in (("auroc", found.auroc, 1), ("fpr95", found.fpr95, 100)):
            if at_site and metric == "fpr95":
                continue
            row = Row(
                measure.method,
                f"{'site_' if at_site else ''}{metric}/{kind}/{name}",
                factor * float(interval.mean[place]),
                measure.x_name,
                measure.x,
                factor * float(interval.low[place]),
                factor * float(interval.high[place]),
                int(interval.n[place]),
            )
            rows.append(row)
    return rows


def _write(found: Mapping[str, _Inputs], folder: Path) -> None:
    """Write the scores of all inputs, without those of single sites; an input's name begins with its kind."""
    everything = PerImage()
    for kind, inputs in found.items():
        everything.ids += [f"{kind}: {name}" for name in inputs.ids]
        for measure, column in inputs.values.items():
            if measure.metric.startswith("suspicion/"):
                everything.values.setdefault(measure, []).extend(column)
    everything.write(folder)
