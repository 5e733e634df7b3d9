"""A user's own experiment, method, attribution, metric, dataset and model: one file each, none of the project's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

import cpath
import experiments
from experiments import CONF
from experiments.engine import experiment, pathway_metric
from experiments.engine.choices import register_choices
from experiments.engine.config import parse
from experiments.engine.job import Job

MODULES = {
    "my_method": """
        import cpath
        from dataclasses import dataclass

        @cpath.register("my_activation")
        @dataclass(frozen=True, kw_only=True)
        class Activation(cpath.Method):
            power: float = 1.0
            def contributions(self, probe):
                found = probe.record(gradients=False).activations
                return {site: output**self.power for site, output in found.items()}
    """,
    "my_attribution": """
        import cpath
        from dataclasses import dataclass

        @cpath.attribution.register("my_brightness")
        @dataclass(frozen=True, kw_only=True)
        class Brightness(cpath.attribution.Attribution):
            def maps(self, probe):
                return probe.images.abs()
    """,
    "my_metric": """
        from experiments.engine.metric_entry import Metric
        from experiments.engine.pathway_metric import PathwayMetric, register

        @register("my_kept")
        class Kept(PathwayMetric):
            metric = Metric(name="my_kept", label="neurons kept", unit="", range=(0, float("inf")), better=None,
                            meaning="Number of neurons in the pathway.")
            def measure(self, measured):
                return sum(mask.flatten(1).sum(1) for mask in measured.pathway.masks.values())
    """,
    "my_dataset": """
        import torch
        from cpath.data import ImageData, Normalisation, TensorSplit

        def stripes(size=8):
            pixels = torch.zeros(12, 1, size, size)
            pixels[0::2, :, ::2] = 1.0
            pixels[1::2, :, :, ::2] = 1.0
            scale = Normalisation((0.5,), (0.5,))
            def split(name, rows):
                ids = [f"{name}{k}" for k in range(12)][rows]
                return TensorSplit(pixels[rows], torch.arange(12)[rows] % 2, ids, scale)
            return ImageData("stripes", ("across", "down"), (1, size, size), scale, train=split("a", slice(6)),
                             val=split("b", slice(6, 8)), test=split("c", slice(8, 12)))
    """,
    "my_model": """
        from torch import nn

        def tiny(classes, shape, width=3):
            return nn.Sequential(nn.Conv2d(shape[0], width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                 nn.Linear(width, classes))
    """,
    "my_experiment": """
        from typing import ClassVar
        from experiments.engine.experiment import Experiment, register
        from experiments.engine.metric_entry import Metric
        from experiments.engine.table import Row

        @register("my_experiment")
        class Largest(Experiment):
            title: ClassVar = "Largest logits"
            metrics: ClassVar = (Metric(name="largest", label="largest logit", unit="", range=(-1e9, 1e9),
                                        better=None, meaning="Largest logit of all images."),)
            explains_with: ClassVar = ()
            images: int = 3
            factor: float = 1.0

            def run(self, job):
                batch = next(job.sample(self.images).batches(self.images))
                return [Row("network", "largest", self.factor * float(job.model(batch.images).detach().max()))]
    """,
}
OWN = [
    *("dataset=custom", "dataset.name=stripes", "dataset._target_=my_dataset.stripes"),
    *("model=custom", "model.name=tiny", "model._target_=my_model.tiny", "recipe.epochs=1"),
]


@pytest.fixture
def modules(users):
    """The user's modules, written and imported; what they registered is gone after the test."""
    for name, source in MODULES.items():
        users.write(name, source)
    yield users
    cpath.methods.base.REGISTRY.pop("my_activation", None)
    cpath.attribution.base.REGISTRY.pop("my_brightness", None)
    pathway_metric.REGISTERED.pop("my_kept", None)
    experiment.REGISTERED.pop("my_experiment", None)


def _imports(*names: str) -> str:
    from experiments.engine.choices import import_named_modules

    argument = f"imports=[{','.join(names)}]"
    import_named_modules([argument])
    register_choices()
    return argument


def test_a_method_and_a_metric_in_the_path_analysis(modules, job):
    imported = _imports("my_method", "my_metric")
    settings = ["method=my_activation", "method.my_activation.power=2.0", "metric=my_kept", "sparsity=[50,90]"]
    made = job(*OWN, imported, *settings, "experiment.images=3", "experiment.batch=2", small=False)
    table = made.run()
    kept = table[table.metric == "my_kept"]
    assert kept.method.tolist() == ["my_activation"] * 2
    with torch.no_grad():
        batch = next(made.sample(3).batches(3)).images
    method = cpath.methods.get("my_activation", power=2.0)
    for row in kept.itertuples():
        pathway = cpath.find_pathway(made.model, batch, method, float(row.x))
        counts = [float(mask.sum()) for mask in pathway.masks.values()]
        assert row.value == pytest.approx(sum(counts) / 3)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("dead_share", "measured.images.flatten(1).sum(1)", "another number of this table is called 'dead_share'"),
        ("my_other", "[1.0, 2.0]", "must give a tensor .*; got list"),
        ("dead_share/mine", "measured.images.flatten(1).sum(1)", "Wrong.metric: a name consists of letters, .*"),
        ("my_other", "measured.images.flatten(1)", r"must give a tensor \(2,\), .*; got \(2, 64\)"),
    ],
)
def test_a_metric_that_cannot_be_is_refused(users, job, name, given, message):
    users.write(
        "my_wrong",
        f"""
        from experiments.engine.metric_entry import Metric
        from experiments.engine.pathway_metric import PathwayMetric

        class Wrong(PathwayMetric):
            metric = Metric(name="{name}", label="x", unit="", range=(0, 1), better=None, meaning="Wrong.")
            def measure(self, measured):
                return {given}
        """,
    )
    added = [
        "imports=[my_wrong]",
        "+metric.mine={_target_: my_wrong.Wrong}",
        "method=random",
        "experiment.images=2",
    ]
    users.write("my_dataset", MODULES["my_dataset"])
    users.write("my_model", MODULES["my_model"])
    made = job(*OWN, *added, "experiment.images=2", small=False)
    with pytest.raises(cpath.InputError, match=message):
        made.run()
    assert not list(made.folder.glob("parts/*/measures.safetensors"))


@pytest.mark.parametrize("group", ["experiment", "metric"])
def test_a_name_of_the_projects_own_is_refused_and_not_silently_another_one(modules, monkeypatch, group):
    _imports("my_metric", "my_experiment")
    name, registered, mine = {
        "experiment": ("train", experiment.REGISTERED, experiment.REGISTERED["my_experiment"]),
        "metric": ("none", pathway_metric.REGISTERED, pathway_metric.REGISTERED["my_kept"]),
    }[group]
    monkeypatch.setitem(registered, name, mine)
    with pytest.raises(cpath.InputError, match=f"{group}={name} is a choice of cpath's own"):
        register_choices(torchvision=False)


def test_figures_of_a_sweep_know_a_users_metric(modules, job):
    from experiments.engine.job import metrics_of_job

    imported = _imports("my_metric")
    made = job(*OWN, imported, "method=random", "metric=my_kept", "sparsity=50", "experiment.images=2", small=False)
    made.run()
    assert metrics_of_job(made.folder)["my_kept"].label == "neurons kept"
    assert "jaccard" in metrics_of_job(made.folder)


def test_an_attribution_is_a_choice_by_name(modules, job):
    imported = _imports("my_attribution")
    made = job(*OWN, imported, "attribution=my_brightness", small=False)
    assert list(made.attributions) == ["my_brightness"]


def test_an_experiment_is_a_choice_by_name_with_its_defaults(modules, job):
    imported = _imports("my_experiment")
    made = job(*OWN, imported, "experiment=my_experiment", "experiment.factor=2.5", small=False)
    assert (made.config.experiment.images, made.config.experiment.factor) == (3, 2.5)
    table = made.run()
    with torch.no_grad():
        largest = made.model(next(made.sample(3).batches(3)).images).max()
    assert table.value.tolist() == [pytest.approx(2.5 * float(largest))]
    assert table.experiment.tolist() == ["my_experiment"]
    with pytest.raises(cpath.InputError, match=r"experiment.images must be a valid integer; got 'many'"):
        job(*OWN, imported, "experiment=my_experiment", "experiment.images=many", small=False)


def test_files_of_a_config_dir_name_classes_under_target(modules, tmp_path):
    files = {
        "experiment/mine.yaml": "name: mine\n_target_: my_experiment.Largest\nimages: 2\nfactor: 3.0\n",
        "dataset/mine.yaml": "defaults: [/recipe@_global_.recipe: default, _self_]\nname: mine\n"
        "_target_: my_dataset.stripes\nsize: 6\n",
        "model/mine.yaml": "name: mine\n_target_: my_model.tiny\nwidth: 2\n",
        "method/mine.yaml": "mine: {_target_: my_method.Activation, power: 3.0}\n",
        "attribution/mine.yaml": "mine: {_target_: my_attribution.Brightness}\n",
        "metric/mine.yaml": "mine: {_target_: my_metric.Kept}\n",
    }
    for name, content in files.items():
        file = tmp_path / "conf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        searched = f"hydra.searchpath=[file://{tmp_path / 'conf'}]"
        groups = [
            f"{group}=mine" for group in ("experiment", "dataset", "model", "method", "attribution", "metric")
        ]
        cfg = compose("config", [searched, *groups, f"outputs={tmp_path}", "recipe.epochs=1"])
    made = Job(parse(cfg))
    assert made.methods["mine"].power == 3.0
    assert [type(metric).__name__ for metric in made.metrics] == ["Kept"]
    assert type(made.attributions["mine"]).__name__ == "Brightness"
    assert made.data.shape == (1, 6, 6)
    table = made.run()
    assert table.metric.tolist() == ["largest"]
    assert (table.dataset[0], table.model[0]) == ("mine", "mine")


def test_the_experiment_of_contributing_runs(job, users):
    text = (CONF.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    users.write("my_confidence", block)
    imported = _imports("my_confidence")
    try:
        own = ["experiment=confidence", "experiment.images=5", "experiment.batch=2"]
        made = job("dataset.size=16", "recipe.epochs=1", "model.width=4", imported, *own, small=False)
        table = made.run()
        images = next(made.sample(5).batches(5)).images
        expected = made.model(images).detach().softmax(1).amax(1).double().mean()
        assert table.value.tolist() == [pytest.approx(float(expected), rel=1e-5)]
        assert (table.metric[0], table.n[0]) == ("confidence", 5)
    finally:
        experiment.REGISTERED.pop("confidence", None)


@pytest.mark.slow
def test_a_sweep_over_a_users_own_parts(tmp_path):
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(dedent(source))
    imports = "imports=[my_method,my_metric,my_attribution,my_experiment]"
    command = [sys.executable, "-m", "experiments", "-m", f"outputs={tmp_path}/out", imports, *OWN]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(CONF).parent}"}
    sweeps = (
        ["experiment=path_analysis", "method=my_activation,random", "metric=my_kept", "experiment.images=3"],
        ["experiment=my_experiment", "seed=0,1"],
        ["experiment=degradation", "attribution=my_brightness,random", "experiment.images=3", "percent=[10,50]"],
    )
    for arguments in sweeps:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    table = experiments.load(tmp_path / "out")
    assert set(table.experiment) == {"path_analysis", "my_experiment", "degradation"}
    assert set(table[table.metric == "my_kept"].method) == {"my_activation", "random"}
    assert sorted(table[table.metric == "largest"].seed) == [0, 1]
