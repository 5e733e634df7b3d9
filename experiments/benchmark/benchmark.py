"""Benchmark: speed and memory beside the passes that work must contain, beside Captum, and beside a naive loop."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, ClassVar

import pandas as pd
import torch
from pydantic import AfterValidator, Field
from torch import nn

from cpath.checks import warn
from cpath.errors import InputError, unknown_name
from cpath.models.torchvision import torchvision_model
from cpath.viz import Drawing
from experiments.benchmark.cases import CASES, NEEDS, Setup
from experiments.benchmark.sizes import Sizes
from experiments.benchmark.timing import measure
from experiments.engine import fields
from experiments.engine.cache import Cache, Key, write_json
from experiments.engine.devices import device_of
from experiments.engine.experiment import Experiment
from experiments.engine.fields import keyed
from experiments.engine.job import Job
from experiments.engine.metric_entry import Metric
from experiments.engine.progress import progress
from experiments.engine.provenance import device_name
from experiments.engine.table import Row
from experiments.figures.benchmark import benchmark_figures
from experiments.figures.findings import benchmark_findings
from experiments.metrics import pick

_ROWS = "rows.json"


def _known_case(name: str) -> str:
    if name not in CASES:
        raise unknown_name("case of the benchmark", name, CASES)
    return name


Cases = Annotated[
    list[Annotated[str, AfterValidator(_known_case)]], Field(min_length=1), AfterValidator(fields.distinct)
]


class Benchmark(Sizes, Experiment):
    """Times cases of work beside what each is compared with, and takes the peaks of their memory."""

    title: ClassVar[str] = "Speed and memory"
    metrics: ClassVar[tuple[Metric, ...]] = pick(
        *("seconds", "peak_megabytes"),
        *("ratio_to_floor", "processor_ratio_to_floor", "limit_to_floor"),
        *("ratio_to_captum", "processor_ratio_to_captum", "limit_to_captum"),
        *("ratio_to_naive", "processor_ratio_to_naive", "limit_to_naive"),
    )
    measures_machine: ClassVar[bool] = True

    cases: Cases
    repeats: fields.Count

    def check(self, job: Job) -> None:
        """Refuse networks that cannot take the images, or have no ReLU or attention.

        Raises:
            InputError: if a network is one of these.
        """
        for name in dict.fromkeys((*self.models, *self.slow_models)):
            _check_model(name, self.size)
        if "heads" in self.cases:
            _check_transformer(self.transformer, self.size)

    def run(self, job: Job) -> Iterable[Row]:
        """Measure one case after the other; a stopped benchmark continues after the last finished one."""
        setup = Setup(self, job.config.seed, device_of(job.config))
        rows: list[Row] = []
        for name in progress(_possible(self.cases), "measuring", "case"):
            with Cache(job.folder).entry(self._key(name, setup)) as part:
                if part.missing:
                    measured = [measure(case, self.repeats, setup.device) for case in CASES[name](setup)]
                    write_json(part.folder / _ROWS, [vars(row) for found in measured for row in found])
            rows += _read(part.folder / _ROWS)
        return rows

    def _key(self, case: str, setup: Setup) -> Key:
        machine = {"device": device_name(setup.device), "threads": torch.get_num_threads()}
        return Key("parts", case, {"case": case, "settings": keyed(self), "seed": setup.seed, **machine})

    def figures(self, table: pd.DataFrame) -> Iterable[Drawing]:
        """Draw the ratios with their limits, and the growth of the times."""
        return benchmark_figures(table)

    def findings(self, table: pd.DataFrame) -> Mapping[str, str]:
        """Say the result of each figure in a sentence."""
        return benchmark_findings(table)


def _check_model(name: str, size: int) -> None:
    with torch.device("meta"), torch.no_grad():  # shapes alone
        model = torchvision_model(name, 1000).eval()
        try:
            model(torch.zeros(1, 3, size, size))
        except Exception as error:  # of any layer
            raise InputError(
                f"experiment.size: {name} cannot take images of {size} × {size} pixels ({error}). Choose another "
                "size, or other models."
            ) from error
    if not any(isinstance(part, nn.ReLU) for part in model.modules()):
        raise InputError(f"experiment.models: {name} has no ReLU, which every case works on. Choose another model.")


def _check_transformer(name: str, size: int) -> None:
    with torch.device("meta"), torch.no_grad():  # shapes alone
        try:
            model = torchvision_model(name, 1000, image_size=size).eval()
            model(torch.zeros(1, 3, size, size))
        except Exception as error:  # of any layer
            raise InputError(
                f"experiment.transformer: {name} cannot be made for images of {size} × {size} pixels ({error}). "
                "Choose another size, or another vision transformer, as vit_b_32."
            ) from error


def _possible(cases: Sequence[str]) -> list[str]:
    """Leave out the cases whose packages are not installed, with a warning."""
    missing = {case: NEEDS[case] for case in cases if case in NEEDS and find_spec(NEEDS[case]) is None}
    for case, package in missing.items():
        warn(f"the case '{case}' is left out: it needs {package}, which is not installed (pip install {package}).")
    return [case for case in cases if case not in missing] or list(cases)  # alone, it raises an error


def _read(file: Path) -> list[Row]:
    return [Row(**values) for values in json.loads(file.read_text())]
