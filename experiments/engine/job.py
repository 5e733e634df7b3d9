"""A job: one run of an experiment, from its configuration to its table and figures in a folder of its own."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import pandas as pd
import torch
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from torch import nn

import cpath
from cpath.attribution import Attribution, GradCAM, NeuronIntGradStar
from cpath.checks import within_memory
from cpath.data import ImageData
from cpath.errors import InputError
from cpath.viz import Drawing, save_drawings
from experiments.engine.cache import (
    Cache,
    Entry,
    Key,
    digest,
    is_complete,
    slug,
    write_json,
    write_text,
    writing_to,
)
from experiments.engine.config import Config, experiment_of, import_modules, parse
from experiments.engine.devices import check_trainer, device_of, dtype_of, keep_freed_memory, use_threads
from experiments.engine.digests import code_digest
from experiments.engine.empty_pathways import saying_empty_pathways_once
from experiments.engine.images import Batch, Data, Images, identity_of, load_data
from experiments.engine.instantiate import checked_type, instantiated, named
from experiments.engine.metric_entry import Metric, by_name
from experiments.engine.network import build_model, check_model, check_site, fingerprint, trained_model
from experiments.engine.pathway_metric import PathwayMetric, check_entry
from experiments.engine.progress import progress
from experiments.engine.provenance import command_line, device_name
from experiments.engine.question import Question, check_methods, check_question
from experiments.engine.settings import ExperimentSettings
from experiments.engine.table import Row, inside_ranges, read_table, tidy_table, write_table
from experiments.engine.tracking import Tracker

_LOG = logging.getLogger(__name__)
RESULTS = "results.csv"
CONFIG = "config.yaml"


def run(cfg: DictConfig) -> pd.DataFrame:
    """Run the experiment of a composed configuration, unless it is finished.

    Args:
        cfg: as Hydra composes it.

    Returns:
        The tidy table.

    Raises:
        CpathError: if the configuration is unusable, before any work; or if the experiment fails on purpose.
    """
    job = Job(parse(cfg))
    return job.experiment.launch(job) if job.experiment.runs_jobs else job.run()


def _make(job: Job, entry: Entry) -> None:
    """Do the work of a job in its folder."""
    config, folder = job.config, job.folder
    use_threads(config)
    device = device_of(config)
    if device.type == "cpu":
        keep_freed_memory()
    entry.changeable = ("figures", "parts")  # drawn again at will; of no use once the job is finished
    entry.provenance.notes = job.notes
    job.notes.update(
        seed=config.seed,
        command=command_line(),
        device=device_name(device),
        threads=torch.get_num_threads(),
    )
    write_text(folder / CONFIG, OmegaConf.to_yaml(config.composed, resolve=True))
    tracker = job.tracker
    failed = True
    try:
        tracker.start(config, folder)
        with saying_empty_pathways_once():  # a generator of rows works while it is read
            table = tidy_table(
                job.experiment.run(job),
                experiment=config.experiment.name,
                dataset=config.dataset_name,
                model=config.model_name,
                seed=config.seed,
            )
        write_table(inside_ranges(table, by_name(config.experiment.metrics)), folder / RESULTS)
        table = read_table(folder / RESULTS)
        save_drawings([*config.experiment.figures(table), *job.drawings], folder / "figures")
        tracker.results(table, folder)
        failed = False
    finally:
        tracker.finish(failed)
    _LOG.info("results: %s", folder)


class _Experiment(Protocol):
    """Methods that a job calls of its experiment; `experiments.engine.experiment.Experiment` is built on jobs."""

    runs_jobs: ClassVar[bool]

    def check(self, job: Job) -> None: ...

    def launch(self, job: Job) -> pd.DataFrame: ...

    def run(self, job: Job) -> Iterable[Row]: ...


@dataclass
class Job:
    """One run of an experiment. Data, model and methods are made when first asked for, once."""

    config: Config
    """Everything that the job is told."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Further facts for the manifest."""
    drawings: list[Drawing] = field(default_factory=list)
    """Figures of images and maps, which no table can hold: saved with those that are drawn from the table."""

    @property
    def experiment(self) -> _Experiment:
        """The experiment, with its settings."""
        return cast(_Experiment, self.config.experiment)

    @cached_property
    def key(self) -> Key:
        """Identity of the job: everything that determines its results and is known before any work."""
        label = f"{self.config.dataset_name}-{self.config.model_name}"
        return Key(slug(self.config.experiment.name), label, self.config.identity())

    @property
    def folder(self) -> Path:
        """Folder of the results, which may not be made yet."""
        return self._runs.folder(self.key)

    @property
    def is_finished(self) -> bool:
        """True if the job ran to its end, and its results are still what they were."""
        return is_complete(self.folder)

    @property
    def _runs(self) -> Cache:
        return Cache(Path(self.config.outputs) / "runs")

    @property
    def cache(self) -> Cache:
        """Results that jobs share: trained models, scores, ranks, retrained cells."""
        return Cache(Path(self.config.outputs) / "artifacts")

    def entry(self) -> AbstractContextManager[Entry]:
        """Hand out the job itself as a cache entry.

        Returns:
            A context manager that yields the entry, as `Cache.entry`.
        """
        return self._runs.entry(self.key, redo=self.config.redo)

    def run(self) -> pd.DataFrame:
        """Run the job, unless it is finished; of two processes with the same job one waits for the other.

        Returns:
            The tidy table.

        Raises:
            CpathError: if the configuration is unusable, before any work; or if the experiment fails on purpose.
        """
        self.check()
        outputs = Path(self.config.outputs)
        with writing_to(outputs), within_memory("lower experiment.max_batch, or ask for less"):
            with self.entry() as entry:
                if entry.missing:
                    _make(self, entry)
                else:
                    _LOG.info("already finished: %s (redo=true runs it again)", self.folder)
            return read_table(self.folder / RESULTS)

    def check(self) -> None:
        """Refuse what cannot run, before any work.

        Raises:
            CpathError: if a method, an attribution, the device or the settings are unusable.
        """
        check_trainer(self.config)
        check_question(self.config)
        if "method" in self.config.experiment.explains_with:
            check_methods(self.config, self.methods)
        if "attribution" in self.config.experiment.explains_with:
            _ = self.attributions
        if "metric" in self.config.experiment.explains_with:
            _ = self.metrics
        _ = self.tracker
        self.experiment.check(self)
        if "attribution" in self.config.experiment.explains_with:
            self._check_sites_of_attributions()

    def _check_sites_of_attributions(self) -> None:
        for attribution in self.attributions.values():
            if isinstance(attribution, GradCAM | NeuronIntGradStar) and attribution.site is not None:
                check_site(attribution.site, self.untrained, self.data, self.config)

    @cached_property
    def tracker(self) -> Tracker:
        """Further place for the results, such as wandb."""
        made: Tracker = instantiated(self.config.tracker, "tracker")
        return made

    @cached_property
    def dataset(self) -> Data:
        """The dataset of the configuration, of images or not."""
        return load_data(self.config)

    @property
    def data(self) -> ImageData:
        """The dataset of the configuration, of an experiment that is about images."""
        if not isinstance(self.dataset, ImageData):
            raise InputError(
                f"experiment={self.config.experiment.name} is about images, but dataset '{self.dataset.name}' has "
                "inputs of another kind: experiment=path_analysis takes any."
            )
        return self.dataset

    @cached_property
    def untrained(self) -> nn.Module:
        """A network as `model` is before any training, on the CPU: its modules and sites have the same names."""
        built = build_model(self.config, self.dataset)
        check_model(built, self.dataset, self.config)
        return built

    @cached_property
    def model(self) -> nn.Module:
        """The network that is explained, with weights, in eval mode, on the device; trained now if it has to be."""
        return trained_model(self.config, self.dataset, self.cache)

    @cached_property
    def model_hash(self) -> str:
        """Hash of the network's weights, settings and code."""
        return fingerprint(self.model, self.config)

    @cached_property
    def methods(self) -> dict[str, cpath.Method]:
        """Extraction methods of the configuration by name."""
        found: dict[str, cpath.Method] = {}
        for name, settings in self.config.method.items():
            own = "_target_" in (settings or {})
            made = named("method", name, settings) if own else cpath.methods.get(name, **settings or {})
            found[name] = checked_type(made, cpath.Method, f"method '{name}'")
        return found

    @cached_property
    def attributions(self) -> dict[str, Attribution]:
        """Attributions of the configuration by name."""
        found: dict[str, Attribution] = {}
        for name, settings in self.config.attribution.items():
            own = "_target_" in (settings or {})
            made = named("attribution", name, settings) if own else cpath.attribution.get(name, **settings or {})
            found[name] = checked_type(made, Attribution, f"attribution '{name}'")
        return found

    @cached_property
    def metrics(self) -> list[PathwayMetric]:
        """Metrics of pathways that the configuration adds."""
        taken = {metric.name for metric in self.config.experiment.metrics}
        made: list[PathwayMetric] = []
        for name, node in self.config.metric.items():
            metric = checked_type(named("metric", name, node), PathwayMetric, f"metric '{name}'")
            check_entry(type(metric))
            if metric.metric.name in taken:
                raise InputError(
                    f"metric '{name}': another number of this table is called '{metric.metric.name}'. Give its "
                    "entry another name."
                )
            taken.add(metric.metric.name)
            made.append(metric)
        return made

    @cached_property
    def question(self) -> Question:
        """Question to the network: its units, the baseline, the response."""
        return Question(self.config, self.dataset, self.model)

    def sample(self, count: int | None) -> Images:
        """Draw test images by the seed, and note them in the manifest.

        Args:
            count: how many; None for all.

        Returns:
            The images, the same for the same seed.
        """
        data = self.dataset if self.config.experiment.any_input else self.data
        images = Images(
            data,
            data.test.sample(count, self.config.seed),
            device_of(self.config),
            dtype_of(self.config),
        )
        self.notes["images"] = images.ids
        return images

    def batches(self, images: Images, size: int, doing: str) -> Iterator[Batch]:
        """Iterate over images a batch at a time, with a progress bar.

        Args:
            images: from `sample`.
            size: images in a batch.
            doing: description of the work.

        Returns:
            The batches in turn.
        """
        return progress(images.batches(size), doing, "batch", total=-(-len(images) // size))

    def origin(self, batch: Batch, *code: object) -> dict[str, Any]:
        """Identity of what a batch's results come from, for keys of the cache.

        Args:
            batch: the images.
            code: methods, attributions or functions that the results are made with.

        Returns:
            Plain containers.
        """
        return {
            "model": self.model_hash,
            "data": digest(identity_of(batch.source.data)),
            "images": batch.ids,
            "code": code_digest(*code),
        }

    def part(self, batch: Batch, kind: str, *code: object) -> AbstractContextManager[Entry]:
        """Hand out the part of this job that belongs to a batch, as a cache entry in the job's folder.

        A stopped job continues after the last part that is finished, unless model, data or code changed since.

        Args:
            batch: the images.
            kind: name of the part, such as ``measures``.
            code: methods, attributions or functions that the part is made with.

        Returns:
            A context manager that yields the entry, as `Cache.entry`.
        """
        key = Key("parts", f"{kind}-{batch.number:05d}", {"kind": kind, **self.origin(batch, *code)})
        return Cache(self.folder).entry(key)


def read_job(folder: Path) -> ExperimentSettings:
    """Read the experiment of a finished job, with its settings, from the configuration that the job left.

    Args:
        folder: of the job.

    Returns:
        The experiment.

    Raises:
        InputError: if its class or a setting of it does not exist any more.
    """
    cfg = OmegaConf.load(folder / CONFIG)
    assert isinstance(cfg, DictConfig)
    import_modules(cfg.get("imports") or ())
    return experiment_of(OmegaConf.to_container(cfg.experiment, resolve=True))


def metrics_of_job(folder: Path) -> dict[str, Metric]:
    """Read which numbers the table of a finished job can hold.

    Args:
        folder: of the job.

    Returns:
        Entries by name: those of its experiment, and of the metrics that its configuration adds.
    """
    found = {metric.name: metric for metric in read_job(folder).metrics}
    content: Any = OmegaConf.to_container(OmegaConf.load(folder / CONFIG))
    for node in (content.get("metric") or {}).values():
        cls: Any = get_class(node["_target_"])
        found[cls.metric.name] = cls.metric
    return found


def redraw(folder: Path) -> None:
    """Draw the figures of a finished job again, from its table; pictures of images and maps stay as they are.

    Args:
        folder: of the job.
    """
    captions = folder / "figures" / "captions.json"
    before: Mapping[str, str] = json.loads(captions.read_text()) if captions.exists() else {}
    save_drawings(read_job(folder).figures(read_table(folder / RESULTS)), folder / "figures")
    write_json(captions, {**before, **json.loads(captions.read_text())})
