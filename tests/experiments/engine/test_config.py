"""Configuration: what composes, what a user sees, and what is said of what is wrong."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra.errors import CompactHydraException
from hydra.utils import get_class
from omegaconf import OmegaConf
from pydantic_core import PydanticUndefined

import cpath
from cpath.attribution.pathways import PathwayGradient
from cpath.errors import InputError, UnknownNameError
from experiments import CONF
from experiments.engine.choices import explained, import_named_modules
from experiments.engine.config import RENAMED, Recipe, Trainer, parse, validated
from experiments.engine.images import load_data
from experiments.engine.metric_entry import Metric
from experiments.engine.network import build_model
from experiments.engine.settings import Settings
from experiments.engine.table import PseudoMethod
from experiments.metrics import METRICS

GROUPS = sorted({path.parent.relative_to(CONF).as_posix() for path in CONF.rglob("*/*.yaml")})
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPERIMENTS = [path.stem for path in sorted((CONF / "experiment").glob("*.yaml"))]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_config_file_composes_and_explains_itself(configure, group, name):
    # Hydra's own groups compose too, into the node hydra, which jobs do not see.
    choice = f"recipe={name}" if group == "recipe" else f"{group}={name}"
    cfg = configure(choice, *_mandatory(group, name), small=False)
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    text = (CONF / group / f"{name}.yaml").read_text()
    first = next(line for line in text.splitlines() if not line.startswith("# @package"))
    assert first.startswith("#"), "the first line says what the file is for"


def _mandatory(group: str, name: str) -> list[str]:
    if (group, name) in (("dataset", "imagefolder"), ("dataset", "cifar10_folder")):
        return ["dataset.root=somewhere"]
    return [f"{group}._target_=mine.{group}"] if name == "custom" else []


# --- what a user sees is what the code does ---


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_file_of_an_experiment_holds_every_setting_of_its_class_and_no_other(configure, name):
    cfg = configure(f"experiment={name}")
    cls = get_class(cfg.experiment._target_)
    fields = cls.__pydantic_fields__
    assert set(cfg.experiment) - {"_target_"} == set(fields)
    assert cfg.experiment.name == name
    defaults = {field for field, info in fields.items() if info.default is not PydanticUndefined}
    assert not defaults, "a default in the class beside the one in the file"
    assert cls.title
    assert all(isinstance(metric, Metric) for metric in cls.metrics)
    made = parse(cfg).experiment
    for field in fields:
        seen = OmegaConf.to_container(cfg, resolve=True)["experiment"][field]
        held = getattr(made, field)
        held = held.model_dump() if hasattr(held, "model_dump") else held
        assert _lists(held) in (seen, [seen]), field


def _lists(value: object) -> object:
    """As a file has it, which knows no tuples."""
    return [_lists(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize(
    ("group", "cls"), [("trainer", Trainer), *(("recipe", Recipe) for _ in ("one",))], ids=["trainer", "recipe"]
)
def test_trainer_and_recipe_hold_every_setting_of_their_class(configure, group, cls):
    assert set(configure()[group]) == set(cls.__pydantic_fields__)


@pytest.mark.parametrize("name", cpath.methods.names())
def test_the_settings_of_a_method_are_the_defaults_of_its_class(job, name):
    made = job(f"method={name}")
    seen = made.config.method[name]
    fields = {field.name: field.default for field in dataclasses.fields(cpath.methods.get(name))}
    assert seen == fields
    assert made.methods[name] == cpath.methods.get(name)


@pytest.mark.parametrize("name", cpath.attribution.names())
def test_the_settings_of_an_attribution_are_the_defaults_of_its_class(job, name):
    (made,) = job(f"attribution={name}").attributions.values()
    assert made == cpath.attribution.get(name, **({"seed": 0} if hasattr(made, "seed") else {}))


@pytest.mark.parametrize("paper", [path.stem for path in sorted((CONF / "paper").glob("*.yaml"))])
def test_every_stage_of_a_paper_passes(configure, paper):
    cfg = configure("experiment=reproduce_paper", f"paper={paper}", small=False)
    for overrides in cfg.paper.stages.values():
        parse(configure(*overrides, small=False))


def test_method_all_names_every_registered_method(configure):
    assert set(configure().method) == set(cpath.methods.names())


def test_every_metric_has_a_complete_entry():
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.label
        assert metric.meaning.endswith(".")
        assert metric.range[0] < metric.range[1]
        assert (metric.unit == "%") <= (metric.range[0] in (0.0, -100.0)), name


# --- settings reach what they are for ---


def test_method_settings_reach_the_method(job):
    assert job("method=neuron_intgrad", "method.neuron_intgrad.nodes=3").methods == {
        "neuron_intgrad": cpath.methods.NeuronIntGrad(nodes=3)
    }


def test_any_extraction_method_is_an_attribution_by_name(job):
    made = job("attribution=dgr_random_init", "attribution.dgr_random_init.sparsity=80", "seed=3")
    (found,) = made.attributions.values()
    assert found == PathwayGradient(method=cpath.methods.DGRRandomInit(seed=3), sparsity=80)


def test_sparsity_may_be_one_or_several(job):
    assert job("sparsity=90").config.experiment.sparsity == [90.0]
    assert job("sparsity=[80,99.5]").config.experiment.sparsity == [80.0, 99.5]


def test_a_changed_seed_reaches_all_that_refers_to_it(job):
    config = job("method=random", "seed=1").config.changed(seed=7)
    assert (config.seed, config.method["random"]) == (7, {"seed": 7})


def my_data(brightness: float = 0.5) -> cpath.data.ImageData:
    scale = cpath.data.Normalisation((0.5,), (0.25,))
    test = cpath.data.TensorSplit(torch.full((2, 1, 8, 8), brightness), torch.arange(2), ["a", "b"], scale)
    return cpath.data.ImageData("mine", ("a", "b"), (1, 8, 8), scale, test)


def test_data_that_does_not_say_what_determines_it_is_known_by_its_configuration(job):
    own = ["dataset=custom", f"dataset._target_={__name__}.my_data", "dataset.name=mine"]
    dark, light = (job(*own, f"+dataset.brightness={value}", small=False).data for value in (0.1, 0.9))
    assert dark.settings != light.settings
    assert dark.settings["brightness"] == 0.1
    assert "code" in dark.settings


# --- what is wrong ---


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sparsity=100", r"experiment.sparsity\[0\].*0 ≤ sparsity < 100"),
        ("sparsity=-1", "0 ≤ sparsity < 100"),
        ("sparsity=often", r"experiment.sparsity\[0\] must be a valid number; got 'often'"),
        ("sparsity=[]", "experiment.sparsity must have at least 1 item"),
        ("sparsity=[80,80]", "must be different values"),
        ("experiment.images=0", "experiment.images must be greater than or equal to 1; got 0"),
        ("experiment.images=many", "experiment.images must be a valid integer; got 'many'"),
        ("experiment.by_site=1", "experiment.by_site must be a valid boolean; got 1"),
        ("experiment.keep_scores_gb=inf", "experiment.keep_scores_gb .*finite"),
        ("seed=-1", "seed must be greater than or equal to 0; got -1"),
        ("trainer.precision=8", "trainer.precision must be '32-true'"),
        ("recipe.epochs=0", "recipe.epochs must be greater than or equal to 1"),
        ("threads=0", "threads must be greater than or equal to 1 or must be 'auto'; got 0"),
        ("checkpoint=''", "checkpoint .*at least 1 character"),
        ("model.name=''", "model.name must be text"),
    ],
)
def test_an_unusable_value_is_named_with_what_it_must_be(job, override, message):
    with pytest.raises(InputError, match=message):
        job(override)


def test_every_unusable_value_is_named_at_once(job):
    with pytest.raises(InputError, match=r"(?s)experiment.images.*experiment.batch"):
        job("experiment.images=0", "experiment.batch=x")


@pytest.mark.parametrize(
    ("added", "meant"),
    [
        ("+experiment.image=3", "experiment.images"),
        ("+trainer.tf_32=true", "trainer.tf32"),
        ("+recipe.epoch=3", "recipe.epochs"),
    ],
)
def test_a_setting_that_nothing_reads_is_refused_with_the_one_that_was_meant(job, added, meant):
    with pytest.raises(UnknownNameError, match=rf"unknown setting.*Did you mean {meant}"):
        job(added)


@pytest.mark.parametrize("name", list(PseudoMethod))
def test_names_of_rows_that_are_no_methods_are_refused(job, name):
    with pytest.raises(InputError, match=f"tables use the name '{name}' for something else"):
        job(f"+method.{name}={{_target_: cpath.methods.NeuronMCT}}")


def test_a_setting_that_only_other_experiments_have_is_said_with_where_it_is(configure):
    with pytest.raises(CompactHydraException) as caught:
        configure("experiment=train", "sparsity=80")
    assert explained(caught.value) == (
        "this experiment has no setting 'sparsity'; there is method.greedy_released.sparsity, "
        "attribution.neuron_intgrad.sparsity, attribution.neuron_mct.sparsity."
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle=vgg16", "unknown setting 'modle'. Did you mean model"),
        ("experiment.image=3", "unknown setting 'experiment.image'. Did you mean experiment.images"),
        ("seed=1,2", "Ambiguous value"),
        ("method=neuron_mtc", "unknown method 'neuron_mtc'. Did you mean neuron_mct? Known: active, all, dgr,"),
        ("model=vgg61", "unknown model 'vgg61'. Did you mean vgg19 or vgg16 or vgg13? Known: alexnet,"),
        ("experiment=pathanalysis", "unknown experiment 'pathanalysis'. Did you mean path_analysis? Known: "),
        ("hydra/launcher=slrum", "unknown hydra/launcher 'slrum'. Did you mean slurm"),
        ("method=../all", "In 'config': Could not find 'method/../all'"),
    ],
)
def test_an_unknown_setting_or_choice_is_said_with_what_there_is(configure, override, message):
    with pytest.raises(CompactHydraException) as caught:
        configure(override)
    assert explained(caught.value).startswith(message)


@pytest.mark.parametrize(
    "setting", ["method.active.nonsense", "method.neuron_mct.nonsense", "attribution.gbp.nonsense"]
)
def test_an_unknown_setting_of_what_has_none_is_said_so(configure, setting):
    group, name, _ = setting.split(".")
    with pytest.raises(CompactHydraException) as caught:
        configure(f"{group}={name}", f"{setting}=1")
    assert explained(caught.value) == f"unknown setting '{setting}': '{group}.{name}' has no settings."


class _Nothing(Settings):
    """A node without settings."""


def test_a_class_without_settings_is_said_to_have_none():
    with pytest.raises(UnknownNameError) as caught:
        validated(_Nothing, {"size": 3}, "tracker")
    assert str(caught.value) == "unknown setting 'tracker.size': 'tracker' has no settings."


@pytest.mark.parametrize("old", list(RENAMED))
def test_a_setting_of_an_earlier_version_is_answered_with_its_name_of_today(configure, old):
    where = {"experiment.road.percents": "experiment=degradation"}.get(old, "experiment=path_analysis")
    with pytest.raises(CompactHydraException) as caught:
        configure(where, f"{old}=1")
    assert explained(caught.value) == f"the setting '{old}' is called '{RENAMED[old]}' now."


GONE = (
    "there is no setting 'experiment.batch' any more: images are decoded one at a time; experiment.together and "
    "experiment.max_batch bound the memory."
)


def test_a_setting_that_an_experiment_no_longer_has_is_answered_with_what_there_is_instead(configure, job):
    with pytest.raises(CompactHydraException) as caught:
        configure("experiment=path_decoding", "experiment.batch=4")
    assert explained(caught.value) == GONE
    with pytest.raises(InputError) as refused:
        job("experiment=path_decoding", "+experiment.batch=4")
    assert str(refused.value) == GONE


def test_only_the_experiment_that_lost_a_setting_says_so(configure):
    with pytest.raises(CompactHydraException) as caught:
        configure("experiment=train", "experiment.batch=4")
    assert "any more" not in explained(caught.value)


@pytest.mark.parametrize("group", ["method", "attribution"])
@pytest.mark.parametrize("name", ["greedy", "neuron_intgrad"])
def test_a_renamed_method_is_answered_with_its_name_of_today(configure, group, name):
    with pytest.raises(CompactHydraException) as caught:
        configure(f"{group}={name}_published")
    assert explained(caught.value) == f"the {group} '{name}_published' is called '{name}_released' now."


def test_an_unknown_choice_in_a_list_is_answered_with_what_there_is(configure):
    with pytest.raises(CompactHydraException) as caught:
        configure("method=[random,neuron_mtc]")
    said = explained(caught.value)
    assert said.startswith("unknown method 'neuron_mtc'. Did you mean neuron_mct? Known: active, all, dgr,")
    assert "greedy_released" in said
    with pytest.raises(CompactHydraException) as caught:
        configure("method=[random,greedy_published]")
    assert explained(caught.value) == "the method 'greedy_published' is called 'greedy_released' now."


@pytest.mark.parametrize("setting", ["checkpoint", "nothing"])
def test_taking_away_what_is_null_is_answered_with_how_to_change_it(configure, setting):
    with pytest.raises(CompactHydraException) as caught:
        configure(f"~{setting}")
    assert explained(caught.value).endswith(f"or it is null as it is. To change one, write {setting}=VALUE.")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("~trainer.tf32", "trainer.tf32 is missing: give it a value."),
        ("~seed", "method.dgr_random_init.seed cannot be read: Interpolation key 'seed' not found."),
        ("model.width=${nothing}", "model.width cannot be read: Interpolation key 'nothing' not found."),
    ],
)
def test_a_value_that_is_not_there_is_said_in_a_sentence(job, override, message):
    with pytest.raises(InputError) as caught:
        job(override)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+method.mine._target_=nowhere.Bar", "method 'mine' cannot be made"),
        ("+method.mine._target_=collections.OrderedDict", "method 'mine' must be of a subclass of Method"),
        ("tracker._target_=nowhere.Bar", "tracker .*cannot be made"),
    ],
)
def test_a_class_that_cannot_be_used_is_an_error_before_any_work(job, override, message):
    made = job(override)
    with pytest.raises(InputError, match=message):
        made.run()
    assert not made.folder.exists()


def test_a_recipe_that_cannot_be_used_is_an_error(job):
    with pytest.raises(InputError, match=r"recipe .*cannot be made"):
        _ = job("recipe.optimizer._target_=torch.Nope").model


def test_an_experiment_without_run_is_an_error(users, job):
    users.write(
        "my_abstract",
        """
        from experiments.engine.experiment import Experiment

        class Nothing(Experiment):
            pass
        """,
    )
    with pytest.raises(InputError, match=r"my_abstract\.Nothing must define run"):
        job("experiment._target_=my_abstract.Nothing")


def test_outputs_that_are_a_file_are_an_error(job, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(cpath.StorageError, match="outputs=FOLDER"):
        job(f"outputs={tmp_path}/file").run()


def test_a_renamed_setting_is_said_where_it_is_added_too(job):
    with pytest.raises(InputError, match=r"'dataset.recipe.epochs' is called 'recipe.epochs' now"):
        job("+dataset.recipe.epochs=3")


@pytest.mark.parametrize("argument", ["checkpoint=epoch=3-step=8.ckpt", "model.name=(", "outputs=~x{"])
def test_what_does_not_parse_is_answered_with_a_word_on_quoting(configure, argument):
    with pytest.raises(CompactHydraException) as caught:
        configure(argument)
    said = explained(caught.value)
    assert said.startswith(f"cannot read '{argument}': ")
    assert "needs quotes of its own" in said


def test_a_module_that_cannot_be_imported_is_an_error(users):
    with pytest.raises(InputError, match="imports: cannot import 'my_methds'"):
        import_named_modules(["imports=[my_methds]", "method=activation"])
    users.write("my_broken", "def f(:")
    with pytest.raises(InputError, match="imports: cannot import 'my_broken': SyntaxError"):
        import_named_modules(["imports=[my_broken]"])


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["dataset=imagefolder"], r"dataset 'imagefolder' needs dataset.root=…"),
        (["dataset=custom"], r"dataset 'custom' needs dataset._target_=…"),
        (["dataset._target_=cpath.data.base.Normalisation"], r"called as cpath.data.base.Normalisation\(size=32"),
        (["dataset=imagenet", "dataset.root=nowhere"], "dataset.root=FOLDER"),
        (["dataset=imagefolder", "dataset.root=nowhere"], "no such folder"),
        (["dataset.size=4"], "size"),
    ],
)
def test_data_that_cannot_be_loaded_says_why(job, overrides, part):
    with pytest.raises(InputError, match=part):
        load_data(job(*overrides, small=False).config)


def test_a_model_that_does_not_fit_the_data_is_an_error(job):
    made = job("model=vgg11", small=False)
    with pytest.raises(InputError, match="3 channels"):
        build_model(made.config, made.data)


def test_weights_of_other_classes_are_an_error(job):
    made = job("model=squeezenet1_0", "model.weights=DEFAULT", "dataset.channels=3", small=False)
    with pytest.raises(InputError, match="are for 1000 classes, the dataset has 10"):
        build_model(made.config, made.data)


@pytest.mark.parametrize("target", ["nowhere.X", "experiments.train.nothing", "os.path", "os.getcwd"])
def test_only_experiments_are_run(job, target):
    with pytest.raises(InputError, match=r"experiment: .*(cannot find|must be a subclass)"):
        job(f"experiment._target_={target}")


@pytest.mark.parametrize("name", ["../../x", "/x", "..", "a/../../b", "~/x", "x\\0", "C:\\x"])
def test_no_name_leads_out_of_the_outputs(configure, tmp_path, name):
    from experiments.engine.job import Job
    from experiments.engine.training import training_key

    cfg = configure()
    for key in ("dataset.name", "model.name", "experiment.name"):
        OmegaConf.update(cfg, key, name)
    made = Job(parse(cfg))
    assert made.folder.resolve().parents[1] == (tmp_path / "runs").resolve()
    kept = made.cache.folder(training_key(made.config, made.data)).resolve()
    assert kept.parent == (tmp_path / "artifacts" / "models").resolve()


# --- the command line ---


@pytest.mark.slow
def test_command_line_says_an_error_in_one_line_and_exits_1(tmp_path):
    command = [sys.executable, "-m", "experiments", f"outputs={tmp_path}"]
    cases = (
        (["sparsity=120"], "0 ≤ sparsity < 100"),
        (["model=vgg61"], "Could not find 'model/vgg61'"),
        (["modle=vgg16"], "error: unknown setting 'modle'"),
        (["checkpoint=epoch=3-step=8.ckpt"], "needs quotes of its own"),
        (["dataset.recipe.epochs=3"], "'dataset.recipe' is called 'recipe' now"),
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
def test_a_sweep_continues_after_a_failed_job_and_exits_1(tmp_path):
    command = [sys.executable, "-m", "experiments", "-m", f"outputs={tmp_path}", "experiment.images=4,1000"]
    small = ["dataset.size=16", "recipe.epochs=1", "model.width=4", "method=random"]
    done = subprocess.run([*command, *small], capture_output=True, text=True, cwd=Path(CONF).parent, check=False)
    assert done.returncode == 1
    assert "the split has 360" in done.stdout + done.stderr
    assert len(list(tmp_path.glob("runs/path_analysis/*/results.csv"))) == 1
