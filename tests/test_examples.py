"""The examples of the documentation run: those of all docstrings, and the Python of the README."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

import cpath
import experiments
from cpath.attribution.base import REGISTRY as ATTRIBUTIONS
from cpath.methods.base import REGISTRY as METHODS
from experiments.engine.experiment import REGISTERED as EXPERIMENTS
from experiments.engine.pathway_metric import REGISTERED as METRICS

README = Path(__file__).resolve().parents[1] / "README.md"
MODULES = sorted(
    module.name
    for package in (cpath, experiments)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
)


def namespace_of_examples() -> dict[str, Any]:
    """The names that the first example of the package's docstring defines, for all the others to use."""
    first = doctest.DocTestParser().get_examples(cpath.__doc__ or "")
    setup = "".join(example.source for example in first)
    names: dict[str, Any] = {}
    exec(setup, names)
    return {name: names[name] for name in ("cpath", "torch", "nn", "OrderedDict", "model", "images")}


def examples_of(module: ModuleType, names: dict[str, Any]) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(module, module.__name__, globs=names)
    return [test for test in found if test.examples]


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Examples register classes of their own: afterwards these are unknown again."""
    registries: tuple[dict[str, Any], ...] = (METHODS, ATTRIBUTIONS, EXPERIMENTS, METRICS)
    before = [(registry, dict(registry)) for registry in registries]
    yield
    for registry, known in before:
        registry.clear()
        registry.update(known)


@pytest.mark.parametrize("name", ["cpath", "experiments", *MODULES])
def test_examples_of_docstrings(name: str, tmp_path: Path) -> None:
    tests = examples_of(importlib.import_module(name), {**namespace_of_examples(), "folder": tmp_path})
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
    told: list[str] = []
    for test in tests:
        runner.run(test, out=told.append)
    assert not told, "".join(told)


def test_an_example_that_is_wrong_is_found(tmp_path: Path) -> None:
    module = ModuleType("wrong")
    module.__doc__ = "Wrong.\n\n>>> images.shape\ntorch.Size([1])\n"
    (test,) = examples_of(module, namespace_of_examples())
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda _: None).failed == 1


class SmallClassifier(nn.Sequential):
    """Stands in for a pretrained network, whose weights would have to be downloaded."""

    def __init__(self, weights: object = None) -> None:
        super().__init__(nn.Conv2d(3, 8, 9, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.append(nn.Linear(128, 1000))


def _write_what_the_readme_reads(folder: Path, blocks: str) -> None:
    for picture in re.findall(r'"([\w.-]+\.jpe?g)"', blocks):
        torchvision.io.write_jpeg(torch.randint(256, (3, 64, 64), dtype=torch.uint8), str(folder / picture))
    _finished_job(folder)


def _finished_job(folder: Path) -> None:
    """A job of the path analysis among the outputs, as `experiments.load` finds it."""
    job = folder / "outputs" / "runs" / "path_analysis" / "digits-resnet8_narrow-0"
    job.mkdir(parents=True)
    (job / "config.yaml").write_text("experiment: {name: path_analysis}\n")
    columns = "experiment,dataset,model,method,x_name,x,metric,value,ci_low,ci_high,n,seed"
    row = "path_analysis,digits,resnet8_narrow,greedy,sparsity,90.0,dead_share,44.0,43.0,45.0,200,0"
    (job / "results.csv").write_text(f"{columns}\n{row}\n")
    (job / "manifest.json").write_text('{"status": "finished", "files": {}}')


def test_the_python_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks
    _write_what_the_readme_reads(tmp_path, "".join(blocks))
    monkeypatch.chdir(tmp_path)
    for architecture in torchvision.models.list_models(module=torchvision.models):
        monkeypatch.setattr(torchvision.models, architecture, SmallClassifier)
    page = ModuleType("readme")
    monkeypatch.setitem(sys.modules, "readme", page)  # dataclasses look their module up
    names = vars(page)
    names |= {"pixels": torch.zeros(2, 1, 28, 28), "labels": torch.tensor([0, 1]), "ids": ["first", "second"]}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
        if "def my_data" in block:
            assert names["my_data"]().test.batch(torch.tensor([1])).shape == (1, 1, 28, 28)
