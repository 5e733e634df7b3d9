"""Identity of jobs and cache entries: nothing is found again that would come out differently now."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import safe_open
from torch import Tensor

import cpath
from cpath.attribution import PathwayGradient
from experiments import CONF
from experiments.engine import digests
from experiments.engine import job as job_module
from experiments.engine.cache import digest
from experiments.engine.choices import register_choices
from experiments.engine.config import parse
from experiments.engine.digests import code_digest, content_digest, source_digest
from experiments.engine.images import Images
from experiments.engine.job import Job
from experiments.engine.network import build_model, fingerprint
from experiments.engine.scoring import Scoring, plan_searches

TINY = ["dataset._target_=tests.experiments.tiny.digits", "dataset.size=8"]

METHOD = """
    import cpath
    from dataclasses import dataclass
    from my_helpers import shaped

    @cpath.register("my_method")
    @dataclass(frozen=True, kw_only=True)
    class MyMethod(cpath.Method):
        def contributions(self, probe):
            return {name: shaped(z) for name, z in probe.record(gradients=False).activations.items()}
"""
MODEL = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, classes, channels):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(channels, 4, 3), nn.Linear(4, classes)

        def forward(self, x):
            return self.fc(torch.relu(self.conv(x)).{reduced}(dim=(2, 3)))

    def net(classes, shape, **settings):
        return Net(classes, shape[0])
"""


@pytest.fixture
def my_method(users):
    """Gives the user's method, whose helper module does what is said."""

    def make(shaped: str) -> cpath.Method:
        users.write("my_helpers", f"def shaped(z):\n    return {shaped}\n")
        users.write("my_methods", METHOD)
        importlib.import_module("my_methods")
        return cpath.methods.get("my_method")

    yield make
    cpath.methods.base.REGISTRY.pop("my_method", None)


# --- jobs ---


def test_a_checkpoint_counts_by_its_content(job, tmp_path):
    file, copy = tmp_path / "weights.safetensors", tmp_path / "copy.safetensors"
    absent = job(f"checkpoint={file}").folder
    file.write_bytes(b"of the first training")
    first = job(f"checkpoint={file}").folder
    copy.write_bytes(file.read_bytes())
    assert job(f"checkpoint={copy}").folder == first
    file.write_bytes(b"of the second one")
    assert len({absent, first, job(f"checkpoint={file}").folder, job().folder}) == 4


def test_a_checkpoint_is_read_once(tmp_path, monkeypatch):
    file, read = tmp_path / "weights", []
    file.write_bytes(b"weights")
    whole = digests.hashlib.file_digest
    monkeypatch.setattr(digests.hashlib, "file_digest", lambda *args: read.append(args) or whole(*args))
    assert content_digest(file) == content_digest(str(file)) == digests.hashlib.sha256(b"weights").hexdigest()
    assert len(read) == 1
    assert content_digest(tmp_path) == str(tmp_path)
    assert content_digest("~nobody/nothing") == "~nobody/nothing"


@pytest.mark.parametrize(
    "override",
    [
        "model._target_=my_package.methods.Thing",
        "model._target_=my_package.Thing.build",  # its package has it from another module
        "dataset._target_=my_package.methods.data",
        "recipe.loss._target_=my_package.methods.loss",
        "experiment.transforms=[{_target_: my_package.methods.jitter}]",
    ],
)
def test_an_edit_of_a_users_code_makes_another_job_and_nothing_else_does(job, users, override):

    def edit(methods: str = "", helpers: str = "", other: str = "") -> Path:
        users.write("my_package.__init__", "from .methods import *\n")
        # None of it is run, or it would raise.
        users.write("my_package.methods", f"raise OSError\nimport torch\nfrom . import helpers as h\n{methods}")
        users.write("my_package.helpers", f"raise OSError\n{helpers}")
        users.write("my_package.other", f"import my_package.helpers\n{other}")
        return job("experiment=path_decoding", override).folder

    first = edit()
    assert edit(other="x = 1") == first
    assert len({first, edit(methods="x = 1"), edit(helpers="x = 1"), edit(methods="x = 1", helpers="x = 1")}) == 4
    assert edit() == first


def test_an_edit_of_an_imported_module_makes_another_job(job, users):
    folders = []
    for value in (1, 1, 2):
        users.write("my_module", f"x = {value}")
        folders.append(job("imports=[my_module]").folder)
    assert folders[0] == folders[1] != folders[2]


def test_a_class_that_is_absent_is_said_later(job):
    assert job("model._target_=absent.Thing").folder == job("model._target_=absent.Thing").folder


def test_the_code_of_a_running_process_is_what_it_was(users):
    users.write("my_module", "x = 1")
    first = source_digest("my_module")
    (users.folder / "my_module.py").write_text("x = 2 * 1")
    assert source_digest("my_module") == first
    users.forget()
    assert source_digest("my_module") != first


def test_libraries_are_known_by_their_versions():
    for name in ("torch.optim.Adam", "cpath.models.resnet8", "torchvision.models.vgg16", "functools.partial"):
        assert source_digest(name) is None
    assert source_digest("tests.experiments.tiny.digits") is not None


def test_processes_agree_whatever_they_have_imported(configure, job, users, tmp_path):
    from omegaconf import OmegaConf

    users.write("my_package.__init__", "")
    users.write("my_package.methods", "from my_package import helpers\nimport numpy")
    users.write("my_package.helpers", "x = 1")
    cfg = configure("imports=[my_package.methods]", f"checkpoint={tmp_path}/cfg.yaml")
    OmegaConf.save(cfg, tmp_path / "cfg.yaml")
    script = (
        f"import sys; sys.path.insert(0, {str(users.folder)!r})\n"
        "import my_package.methods\n"
        "from omegaconf import OmegaConf\n"
        "from experiments.engine.config import parse\n"
        "from experiments.engine.job import Job\n"
        f"print(Job(parse(OmegaConf.load({str(tmp_path / 'cfg.yaml')!r}))).key.name)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == Job(parse(cfg)).key.name


@pytest.mark.parametrize(
    ("experiment", "override"),
    [
        ("path_analysis", "experiment.max_batch=3"),
        ("path_analysis", "experiment.keep_scores_gb=0"),
        ("path_decoding", "experiment.together=3"),
        ("roar_table", "experiment.side_by_side=3"),
        ("roar_table", "experiment.stacked=4"),
        ("train", "trainer.workers=3"),
        ("train", "trainer.memory_gb=3"),
        ("train", "device=cpu"),
        ("train", "threads=1"),
        ("train", "tracker=wandb"),
    ],
)
def test_what_bounds_memory_and_time_makes_no_other_job(job, experiment, override):
    assert job(f"experiment={experiment}", override).folder == job(f"experiment={experiment}").folder


@pytest.mark.parametrize("override", ["experiment.batch=3", "trainer.precision=bf16-mixed", "seed=1"])
def test_what_changes_results_makes_another_job(job, override):
    assert job(override).folder != job().folder


def test_a_benchmark_of_another_device_is_another_job(job):
    settings = ([], ["device=cpu"], ["device=cuda"], ["threads=1"], ["device=cuda", "threads=1"])
    assert len({job("experiment=benchmark", *setting).folder for setting in settings}) == 5


# --- artifacts ---


def test_code_of_objects_is_theirs_and_that_of_what_they_hold(my_method):
    first = my_method("z.abs()")
    plain, pathway = code_digest(first), code_digest(PathwayGradient(method=first))
    again = my_method("z.abs()")
    assert (code_digest(again), code_digest(PathwayGradient(method=again))) == (plain, pathway)
    other = my_method("1 + z.abs()")  # the file of the class is the same
    assert code_digest(other) != plain
    assert code_digest(PathwayGradient(method=other)) != pathway
    assert code_digest(cpath.methods.NeuronMCT()) != code_digest(cpath.methods.Active())


def test_base_classes_of_a_user_count(users):
    users.write("my_class", "from my_base import Base\nclass Thing(Base): pass\n")
    found = []
    for power in (1, 1, 2):
        users.write("my_base", f"class Base:\n    power = {power}\n")
        found.append(code_digest(importlib.import_module("my_class").Thing))
    assert found[0] == found[1] != found[2]


def test_a_models_fingerprint_follows_its_code_settings_and_weights(job, users):
    def of(reduced: str = "mean", shift: float = 0.0, *settings: str) -> str:
        users.write("my_models", MODEL.format(reduced=reduced))
        made = job("model=custom", "model._target_=my_models.net", *TINY, *settings, small=False)
        model = build_model(made.config, made.data)
        with torch.no_grad():
            model.conv.weight.add_(shift)
        return fingerprint(model, made.config)

    first = of()
    assert of() == first
    assert of("mean", 0.0, "model.name=mine") == first
    assert len({first, of("amax"), of("mean", 1.0), of("mean", 0.0, "+model.slope=2")}) == 4


def test_scores_of_edited_code_are_made_anew(job, my_method):
    made = job(*TINY)
    made.__dict__["model"] = build_model(made.config, made.data)
    batch = next(Images(made.data, torch.arange(4), torch.device("cpu")).batches(4))
    scores = []
    for shaped in ("z.abs()", "z.abs()", "(z - 1).abs()"):
        (search,) = plan_searches({"my_method": my_method(shaped)}, [80.0])
        scores.append(Scoring(made, max_batch=64, keep=True).scores(batch, search).flat)
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


def test_values_that_differ_in_type_or_in_the_last_digit_have_other_digests():
    values = [1, 1.0, "1", True, None, [1], 90.00001, 90.00002, 1e-17, {"a": 1}, {"a": 1.0}]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": 1, "b": (2,)}) == digest({"b": [2], "a": 1})
    with pytest.raises(TypeError):
        digest({"a": torch.zeros(1)})


# --- results of an unfinished job ---


def test_a_part_is_of_its_model_data_code_and_images(job):
    made = job("experiment.images=4", *TINY)
    made.__dict__["model"] = build_model(made.config, made.data)
    images = made.sample(4)
    first, second = images.batches(2)
    method = cpath.methods.NeuronMCT()
    origin = made.origin(second, method)
    assert origin["images"] == images.ids[2:]
    edited = Images(replace(made.data, settings={"pixels": "brighter"}), images.indices, images.device)
    others = [
        made.origin(first, method),
        made.origin(second, cpath.methods.Active()),
        made.origin(list(edited.batches(2))[1], method),
    ]
    with torch.no_grad():
        next(made.model.parameters()).add_(1.0)
    del made.__dict__["model_hash"]
    others.append(made.origin(second, method))
    assert len({digest(one) for one in [origin, *others]}) == 5


SMALL_JOBS = {
    "path_analysis": ["experiment.images=4", "experiment.batch=2", "sparsity=80"],
    "linearity": ["experiment.images=2", "experiment.batch=2", "experiment.neurons=4", "sparsity=80"],
    "degradation": ["experiment.images=4", "experiment.batch=2", "experiment.road.images=0"],
    "sanity_checks": ["experiment.images=2", "experiment.draws=1", "experiment.measures=[spearman]"],
    "path_decoding": ["experiment.images=2", "experiment.steps=3", "experiment.tries=1", "sparsity=50"],
    "saliency": ["experiment.images=2", "sparsity=[0,80]", "experiment.sparsity_images=1"],
}


@pytest.mark.parametrize("name", list(SMALL_JOBS))
def test_an_unfinished_job_does_not_mix_what_two_networks_gave(job, trained, monkeypatch, name):
    explained = ["method=neuron_mct", "attribution=neuron_mct", "attribution.neuron_mct.sparsity=80"]
    settings = [f"experiment={name}", *SMALL_JOBS[name], *explained]
    folder = job(*settings).folder
    job(*settings).run()
    first = _kept(folder)
    assert first
    (folder / "results.csv").unlink()
    trained_model = job_module.trained_model

    def trained_otherwise(*args):
        model = trained_model(*args)
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        return model

    monkeypatch.setattr(job_module, "trained_model", trained_otherwise)
    resumed, kept = job(*settings).run(), _kept(folder)
    timeless = resumed.metric != "seconds"
    pd.testing.assert_frame_equal(resumed[timeless], job(*settings, "redo=true").run()[timeless])
    anew = _kept(folder)
    assert len(kept) == 2 * len(first), "parts of both networks"
    assert kept.keys() - first.keys() == anew.keys(), "those of the other network were made, and made again"
    for file in anew:
        for key, values in anew[file].items():
            assert values.equal(kept[file][key]) or values.isnan().any(), file


def _kept(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Tensors of all parts of a job, by file."""
    found = {}
    for file in sorted(folder.glob("parts/**/*.safetensors")):
        with safe_open(str(file), framework="pt") as tensors:
            found[str(file.relative_to(folder))] = {key: tensors.get_tensor(key) for key in tensors.keys()}  # noqa: SIM118
    return found


def test_an_edited_method_is_measured_again(job, trained, my_method):
    tables = []
    for shaped in ("z.abs()", "z.abs()", "(z - 1).abs()"):
        my_method(shaped)  # of a script: no module under imports tells of it
        register_choices()
        made = job("experiment=path_analysis", "experiment.images=4", "sparsity=20", "method=my_method")
        tables.append(made.run())
        (made.folder / "results.csv").unlink()
    dead = [table[table.metric == "dead_share"].value.tolist() for table in tables]
    assert dead[0] == dead[1] == [0.0]
    assert dead[2][0] > 0
