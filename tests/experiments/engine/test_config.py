from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.errors import CompactHydraException
from omegaconf import OmegaConf

import cpath
from cpath.attribution.pathways import PathwayGradient
from cpath.errors import InputError, UnknownNameError
from experiments import CONF
from experiments.framework.choices import check_choices, explained, register_choices
from experiments.framework.subject import attributions_of, build_model, load_data, methods_of, sparsities_of

GROUPS = sorted({path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*/*.yaml")})
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_config_file_composes_and_explains_itself(configure, group, name):
    # Hydra's own groups compose too, into the node hydra, which jobs do not see.
    cfg = configure(f"{group}={name}", *_mandatory(group, name), small=False)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    text = (CONF / group / f"{name}.yaml").read_text().replace("# @package paper\n", "")
    assert text.startswith("#"), "the first line says what the file is for"


def _mandatory(group: str, name: str) -> list[str]:
    if (group, name) in (("dataset", "imagefolder"), ("dataset", "cifar10_folder")):
        return ["dataset.root=somewhere"]
    return [f"{group}._target_=mine.{group}"] if name == "custom" else []


@pytest.mark.parametrize("name", [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))])
def test_every_experiment_has_a_run_function(configure, name):
    cfg = configure(f"experiment={name}")
    assert cfg.experiment.name == name
    assert callable(importlib.import_module(f"experiments.{name}").run)


@pytest.mark.parametrize("paper", [path.stem for path in sorted((CONF / "paper").glob("*.yaml"))])
def test_every_stage_of_a_paper_composes(configure, paper):
    cfg = configure("experiment=reproduce_paper", f"paper={paper}", small=False)
    for overrides in cfg.paper.stages.values():
        stage = configure(*overrides, small=False)
        assert (CONF / "experiment" / f"{stage.experiment.name}.yaml").exists()


def test_method_all_names_every_registered_method(configure):
    assert set(configure().method) == set(cpath.methods.names())


def test_method_settings_reach_the_method(configure):
    found = methods_of(configure("method=neuron_intgrad", "method.neuron_intgrad.nodes=3"))
    assert found["neuron_intgrad"] == cpath.methods.NeuronIntGrad(nodes=3)


def test_a_module_under_imports_registers_methods(configure, monkeypatch, tmp_path):
    (tmp_path / "my_methods.py").write_text(
        "import cpath\n"
        "from dataclasses import dataclass\n"
        "@cpath.register('activation')\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Activation(cpath.Method):\n"
        "    power: float = 1.0\n"
        "    def contributions(self, probe):\n"
        "        return probe.record(gradients=False).activations\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    cfg = configure("imports=[my_methods]", "method=random", "+method.activation={power: 2.0}")
    try:
        assert methods_of(cfg)["activation"].power == 2.0
        check_choices(["imports=[my_methods]", "method=activation"])
        register_choices()
        cfg = configure("imports=[my_methods]", "method=activation", "attribution=activation")
        assert cfg.method == {"activation": {"power": 1.0}}
        assert cfg.attribution == {"activation": {"power": 1.0, "sparsity": 90}}
    finally:
        cpath.methods.base.REGISTRY.pop("activation", None)


def test_a_module_that_cannot_be_imported_is_an_error():
    with pytest.raises(InputError, match="imports: cannot import 'my_methds'"):
        check_choices(["imports=[my_methds]", "method=activation"])


def test_any_extraction_method_is_an_attribution_by_name(configure):
    cfg = configure("attribution=dgr_random_init", "attribution.dgr_random_init.sparsity=80", "seed=3")
    (found,) = attributions_of(cfg).values()
    assert found == PathwayGradient(method=cpath.methods.DGRRandomInit(seed=3), sparsity=80)


def test_a_setting_that_only_other_experiments_have_is_said_with_where_it_is(configure):
    with pytest.raises(CompactHydraException) as caught:
        configure("experiment=degradation", "sparsity=80")
    assert explained(caught.value) == (
        "unknown setting 'sparsity' of this experiment. There is attribution.neuron_intgrad.sparsity, "
        "attribution.neuron_mct.sparsity."
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=vgg16", "unknown setting 'modle'. Did you mean model"),
        ("experiment.image=3", "unknown setting 'experiment.image'. Did you mean experiment.images"),
        ("seed=1,2", "Ambiguous value"),
    ],
)
def test_unknown_setting_is_said_with_the_close_match(configure, override, message):
    with pytest.raises(CompactHydraException) as caught:
        configure(override)
    assert explained(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["dataset=imagefolder"], r"dataset 'imagefolder' needs dataset.root=…"),
        (["dataset=custom"], r"dataset 'custom' needs dataset._target_=…"),
        (["dataset._target_=cpath.data.base.Normalisation"], r"called as cpath.data.base.Normalisation\(size=32"),
    ],
)
def test_dataset_that_cannot_be_made_says_why(configure, overrides, part):
    with pytest.raises(InputError, match=part):
        load_data(configure(*overrides, small=False))


def my_data(brightness: float = 0.5) -> cpath.data.ImageData:
    scale = cpath.data.Normalisation((0.5,), (0.25,))
    test = cpath.data.TensorSplit(torch.full((2, 1, 8, 8), brightness), torch.arange(2), ["a", "b"], scale)
    return cpath.data.ImageData("mine", ("a", "b"), (1, 8, 8), scale, test)


def test_data_that_does_not_say_what_determines_it_is_known_by_its_configuration(configure):
    own = ["dataset=custom", f"dataset._target_={__name__}.my_data", "dataset.name=mine"]
    dark, light = (
        load_data(configure(*own, f"+dataset.brightness={brightness}", small=False)) for brightness in (0.1, 0.9)
    )
    assert dark.settings != light.settings
    assert dark.settings["brightness"] == 0.1
    assert "code" in dark.settings


def test_sparsity_may_be_one_or_several(configure):
    assert sparsities_of(configure("sparsity=90")) == [90.0]
    assert sparsities_of(configure("sparsity=[80,99.5]")) == [80.0, 99.5]


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("sparsity=100", "0 ≤ sparsity < 100"),
        ("sparsity=-1", "0 ≤ sparsity < 100"),
        ("sparsity=often", "must be a number"),
        ("sparsity=[]", "sparsity is empty"),
    ],
)
def test_unusable_sparsity_is_an_error(configure, override, part):
    with pytest.raises(InputError, match=part):
        sparsities_of(configure(override))


def test_unknown_choice_is_an_error_with_the_close_match():
    with pytest.raises(UnknownNameError, match="Did you mean neuron_mct"):
        check_choices(["method=neuron_mtc"])
    with pytest.raises(UnknownNameError, match=r"Did you mean .*vgg16"):
        check_choices(["experiment=train", "model=vgg61"])
    check_choices(["-m", "model=vgg16,resnet8", "sparsity=80,90", "method=all", "experiment.images=3"])


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["dataset=imagenet", "dataset.root=nowhere"], "dataset.root=FOLDER"),
        (["dataset=imagefolder", "dataset.root=nowhere"], "no such folder"),
        (["dataset.size=4"], "size ≥ 8"),
    ],
)
def test_data_that_is_not_there_says_how_to_get_it(configure, overrides, part):
    with pytest.raises(InputError, match=part):
        load_data(configure(*overrides, small=False))


def test_model_that_does_not_fit_the_data_is_an_error(configure):
    cfg = configure("model=vgg11", small=False)
    with pytest.raises(InputError, match="3 channels"):
        build_model(cfg, load_data(cfg))


def test_weights_of_other_classes_are_an_error(configure):
    cfg = configure("model=squeezenet1_0", "model.weights=DEFAULT", "dataset.channels=3", small=False)
    with pytest.raises(InputError, match="are for 1000 classes"):
        build_model(cfg, load_data(cfg))


@pytest.mark.slow
def test_command_line_says_an_error_in_one_line_and_exits_1(tmp_path):
    command = [sys.executable, "-m", "experiments", f"outputs={tmp_path}"]
    cases = (
        (["sparsity=120"], "0 ≤ sparsity < 100"),
        (["model=vgg61"], "Did you mean"),
        (["modle=vgg16"], "error: unknown setting 'modle'"),
    )
    for arguments, part in cases:
        done = subprocess.run(
            [*command, *arguments], capture_output=True, text=True, cwd=Path(CONF).parent, check=False
        )
        assert done.returncode == 1
        assert part in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("python -m experiments experiment=path", ["path_analysis", "path_decoding"]),
        ("python -m experiments -m seed=0,1 hydra/launcher=slurm", ["slurm", "slurm_local"]),
        ("python -m experiments experiment=roar keep", ["keep="]),
        ("python -m experiments model=vgg16_", ["vgg16_bn"]),
        ("python setup.py experiment=path", []),
    ],
)
def test_the_tab_key_offers_names_in_bash(typed, offered):
    completes = (
        "source experiments/completion.bash; COMP_LINE=$1; COMP_POINT=${#COMP_LINE}; COMP_WORDS=($1); "
        '$(complete -p python | sed "s/.*-F \\([^ ]*\\).*/\\1/"); printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-c", completes, "bash", typed],
        cwd=CONF.parent,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == offered


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failed_job_and_exits_1(tmp_path):
    command = [sys.executable, "-m", "experiments", "-m", f"outputs={tmp_path}", "sparsity=100,80"]
    small = ["dataset.size=16", "dataset.recipe.epochs=1", "model.width=4", "experiment.images=4", "method=random"]
    done = subprocess.run([*command, *small], capture_output=True, text=True, cwd=Path(CONF).parent, check=False)
    assert done.returncode == 1
    assert "0 ≤ sparsity < 100" in done.stdout + done.stderr
    assert len(list(tmp_path.glob("runs/path_analysis/*/results.csv"))) == 1
