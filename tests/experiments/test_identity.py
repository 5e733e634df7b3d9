"""What identifies jobs and artifacts: nothing is found again that would come out differently now."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

import cpath
from cpath.attribution import PathwayGradient
from cpath.storage import read_tensors
from experiments import CONF
from experiments.framework import identity
from experiments.framework.identity import code_digest, content_digest, job_key, source_digest
from experiments.framework.job import Job, job_folder
from experiments.framework.parts import measure_in_parts
from experiments.framework.retraining import rank_artifact
from experiments.framework.scored import scorers
from experiments.framework.store import ArtifactStore, digest
from experiments.framework.subject import Images, Origin, build_model, fingerprint, load_data, load_images

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


def test_a_checkpoint_counts_by_its_content(configure, tmp_path):
    file, copy = tmp_path / "weights.safetensors", tmp_path / "copy.safetensors"
    cfg = configure(f"checkpoint={file}")
    absent = job_folder(cfg)
    file.write_bytes(b"of the first training")
    first = job_folder(cfg)
    copy.write_bytes(file.read_bytes())
    assert job_folder(configure(f"checkpoint={copy}")) == first
    file.write_bytes(b"of the second one")
    assert len({absent, first, job_folder(cfg), job_folder(configure())}) == 4


def test_a_checkpoint_is_read_once(tmp_path, monkeypatch):
    file, read = tmp_path / "weights", []
    file.write_bytes(b"weights")
    whole = identity.hashlib.file_digest
    monkeypatch.setattr(identity.hashlib, "file_digest", lambda *args: read.append(args) or whole(*args))
    assert content_digest(file) == content_digest(str(file)) == identity.hashlib.sha256(b"weights").hexdigest()
    assert len(read) == 1
    assert content_digest(tmp_path) == str(tmp_path)
    assert content_digest("~nobody/nothing") == "~nobody/nothing"


@pytest.mark.parametrize(
    "override",
    [
        "imports=[my_package.methods]",
        "model._target_=my_package.methods.Thing",
        "model._target_=my_package.Thing.build",  # its package has it from another module
        "dataset._target_=my_package.methods.data",
        "dataset.recipe.loss._target_=my_package.methods.loss",
        "experiment.transforms=[{_target_: my_package.methods.jitter}]",
    ],
)
def test_an_edit_of_a_users_code_makes_another_job_and_nothing_else_does(configure, users, override):
    cfg = configure("experiment=path_decoding", override)

    def edit(methods: str = "", helpers: str = "", other: str = "") -> Path:
        users.write("my_package.__init__", "from .methods import *\n")
        # None of it is run, or it would raise.
        users.write("my_package.methods", f"raise OSError\nimport torch\nfrom . import helpers as h\n{methods}")
        users.write("my_package.helpers", f"raise OSError\n{helpers}")
        users.write("my_package.other", f"import my_package.helpers\n{other}")
        return job_folder(cfg)

    first = edit()
    assert edit(other="x = 1") == first
    assert len({first, edit(methods="x = 1"), edit(helpers="x = 1"), edit(methods="x = 1", helpers="x = 1")}) == 4
    assert edit() == first


@pytest.mark.parametrize(
    "override", ["imports=[absent]", "model._target_=absent.Thing", "imports=['']", "imports=x"]
)
def test_what_is_absent_or_no_module_is_said_later(configure, override):
    assert job_folder(configure(override)) == job_folder(configure(override))


def test_mistakes_in_a_users_module_are_said_later(configure, users):
    users.write("my_module", "def f(:")
    cfg = configure("imports=[my_module]")
    first = job_folder(cfg)
    users.write("my_module", "def f():")
    assert job_folder(cfg) != first


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


def test_processes_agree_whatever_they_have_imported(configure, users, tmp_path):
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
        "from experiments.framework.identity import job_key\n"
        "from experiments.framework.store import digest\n"
        f"print(digest(job_key(OmegaConf.load({str(tmp_path / 'cfg.yaml')!r}))))\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=CONF.parent, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == digest(job_key(cfg))


@pytest.mark.parametrize(
    ("experiment", "override"),
    [
        ("path_analysis", "experiment.max_batch=3"),
        ("path_analysis", "experiment.keep_scores_gb=0"),
        ("path_decoding", "experiment.together=3"),
        ("roar_table", "experiment.side_by_side=3"),
        ("train", "trainer.workers=3"),
        ("train", "trainer.memory_gb=3"),
        ("train", "device=cpu"),
        ("train", "threads=1"),
        ("train", "tracker=wandb"),
    ],
)
def test_what_bounds_memory_and_time_makes_no_other_job(configure, experiment, override):
    assert job_folder(configure(f"experiment={experiment}", override)) == job_folder(
        configure(f"experiment={experiment}")
    )


@pytest.mark.parametrize("override", ["experiment.batch=3", "trainer.precision=bf16-mixed", "seed=1"])
def test_what_changes_results_makes_another_job(configure, override):
    assert job_folder(configure(override)) != job_folder(configure())


def test_a_benchmark_of_another_device_is_another_job(configure):
    settings = ([], ["device=cpu"], ["device=cuda"], ["threads=1"], ["device=cuda", "threads=1"])
    assert len({job_folder(configure("experiment=benchmark", *setting)) for setting in settings}) == 5


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


def test_a_models_fingerprint_follows_its_code_settings_and_weights(configure, users):
    cfg = configure("model=custom", "model._target_=my_models.net", *TINY, small=False)
    data = load_data(cfg)

    def of(reduced: str = "mean", shift: float = 0.0, **settings: object) -> str:
        users.write("my_models", MODEL.format(reduced=reduced))
        ours = cfg.copy()
        ours.model = {**cfg.model, **settings}
        model = build_model(ours, data)
        with torch.no_grad():
            model.conv.weight.add_(shift)
        return fingerprint(model, ours)

    first = of()
    assert of() == first
    assert of(name="mine") == first
    assert len({first, of("amax"), of(shift=1.0), of(slope=2)}) == 4


def test_scores_and_ranks_of_edited_code_are_made_anew(configure, my_method, tmp_path):
    cfg = configure("experiment=roar", "percent=30", *TINY)
    cfg.experiment = {**cfg.experiment, "keep_scores_gb": 1, "batch": 64}
    data = load_data(cfg)
    model = build_model(cfg, data)
    store = ArtifactStore(tmp_path / "artifacts")
    images = Images(data, torch.arange(4), torch.device("cpu"))
    ranks, scores = [], []
    for shaped in ("z.abs()", "z.abs()", "(z - 1).abs()"):
        method = my_method(shaped)
        ranks.append(rank_artifact(cfg, data, store, model, "my_method", PathwayGradient(method=method)))
        scored = scorers(Job(cfg, tmp_path, store, None), model, images, {"my_method": method})
        scores.append(scored["my_method"](0).flat)
    assert ranks[0] == ranks[1]
    assert ranks[2].folder != ranks[0].folder
    assert ranks[2].digest != ranks[0].digest
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


# --- what is kept of an unfinished job ---


@pytest.fixture
def parts(configure, tmp_path):
    """Measures six images in parts of two; gives the values and the numbers of the parts that were made."""
    cfg = configure("experiment.batch=2")
    data = load_data(cfg)
    job = Job(cfg, tmp_path / "job", ArtifactStore(tmp_path / "artifacts"), None)

    def measure(value: float, indices: list[int], **other: str) -> tuple[list[float], list[int]]:
        images = Images(data, torch.tensor(indices), torch.device("cpu"))
        origin = replace(Origin("model", "data", "code", tuple(images.ids)), **other)
        made = []

        def compute(where: slice, number: int) -> dict[tuple[str, str, str, str], Tensor]:
            made.append(number)
            return {("random", "", "", "kept"): torch.full((where.stop - where.start,), value)}

        return measure_in_parts(job, images, origin, compute, "measuring")["random", "", "", "kept"], made

    return measure


def test_parts_of_the_same_origin_are_read(parts):
    assert parts(1.0, [0, 1, 2, 3, 4, 5]) == ([1.0] * 6, [0, 1, 2])
    assert parts(2.0, [0, 1, 2, 3, 4, 5]) == ([1.0] * 6, [])


@pytest.mark.parametrize("other", ["model", "data", "code"])
def test_parts_of_another_origin_are_made_again(parts, other, caplog):
    parts(1.0, [0, 1, 2, 3, 4, 5])
    assert parts(2.0, [0, 1, 2, 3, 4, 5], **{other: "edited"}) == ([2.0] * 6, [0, 1, 2])
    assert f"was made of other {other}, and is made again" in caplog.text


def test_parts_of_other_images_are_made_again(parts):
    parts(1.0, [0, 1, 2, 3, 4, 5])
    assert parts(2.0, [0, 1, 3, 2, 4, 5]) == ([1.0, 1.0, 2.0, 2.0, 1.0, 1.0], [1])


SMALL_JOBS = {
    "path_analysis": ["experiment.images=4", "experiment.batch=2", "sparsity=80"],
    "linearity": ["experiment.images=2", "experiment.batch=2", "experiment.neurons=4", "sparsity=80"],
    "degradation": ["experiment.images=4", "experiment.batch=2", "experiment.road.images=0"],
    "sanity_checks": ["experiment.images=2", "experiment.draws=1", "experiment.measures=[spearman]"],
    "path_decoding": ["experiment.images=2", "experiment.steps=3", "experiment.tries=1", "sparsity=50"],
    "saliency": ["experiment.images=2", "experiment.sparsities=[0,80]", "experiment.sparsity_images=1"],
}


@pytest.mark.parametrize("name", list(SMALL_JOBS))
def test_an_unfinished_job_does_not_mix_what_two_networks_gave(configure, trained, monkeypatch, name):
    experiment = importlib.import_module(f"experiments.{name}")
    cfg = configure(f"experiment={name}", *SMALL_JOBS[name])
    cfg.method, cfg.attribution = {"neuron_mct": {}}, {"neuron_mct": {"sparsity": 80}}
    experiment.run(cfg)
    first = _kept(job_folder(cfg))
    (job_folder(cfg) / "results.csv").unlink()
    trained_model = experiment.trained_model

    def trained_otherwise(*args):
        model = trained_model(*args)
        with torch.no_grad():
            for number, parameter in enumerate(model.parameters()):
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
        return model

    monkeypatch.setattr(experiment, "trained_model", trained_otherwise)
    resumed, kept = experiment.run(cfg), _kept(job_folder(cfg))
    cfg.redo = True
    timeless = resumed.metric != "seconds"
    pd.testing.assert_frame_equal(resumed[timeless], experiment.run(cfg)[timeless])
    anew = _kept(job_folder(cfg))
    assert first.keys() == kept.keys() == anew.keys()
    assert kept
    for file, tensors in kept.items():
        assert all(tensors[key].equal(anew[file][key]) or tensors[key].isnan().any() for key in tensors), file
        assert any(not tensors[key].equal(first[file][key]) for key in tensors), file


def _kept(folder: Path) -> dict[str, dict[str, Tensor]]:
    """All tensors that a job keeps, by file, but for the time that something took."""
    kinds = {"parts": ("measures", 2), "maps": ("maps", 1), "images": ("decodings", 1)}
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        tensors, _ = read_tensors(file, *kinds[file.parent.name])
        found[file.name] = {key: value for key, value in tensors.items() if not key.startswith("run|")}
    return found


def test_an_edited_method_is_measured_again(configure, trained, my_method):
    from experiments import path_analysis

    cfg = configure("experiment=path_analysis", "experiment.images=4", "sparsity=20")
    cfg.method = {"my_method": {}}
    tables = []
    for shaped in ("z.abs()", "z.abs()", "(z - 1).abs()"):
        my_method(shaped)  # of a script: no module under imports tells of it
        tables.append(path_analysis.run(cfg))
        (job_folder(cfg) / "results.csv").unlink()
    dead = [table[table.metric == "dead_share"].value.tolist() for table in tables]
    assert dead[0] == dead[1] == [0.0]
    assert dead[2][0] > 0


def test_origin_says_what_the_images_are(configure):
    from experiments.framework.subject import origin_of

    cfg = configure("experiment.images=4", *TINY)
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = build_model(cfg, data)
    origin = origin_of(cfg, model, images, [cpath.methods.NeuronMCT()])
    assert origin.of(slice(1, 3))["images"] == images.ids[1:3]
    edited = Images(replace(data, settings={"pixels": "brighter"}), images.indices, images.device)
    assert origin_of(cfg, model, edited, [cpath.methods.NeuronMCT()]).data != origin.data
    assert origin_of(cfg, model, images, [cpath.methods.Active()]).code != origin.code
