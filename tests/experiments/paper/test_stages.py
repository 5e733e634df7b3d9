"""Stages of a paper: how they are composed, and what is refused before any of them starts."""

from __future__ import annotations

import shlex

import pytest
from hydra import compose

from cpath.errors import InputError
from experiments import CONF
from experiments.engine.config import parse
from experiments.engine.job import Job, run
from experiments.paper import reproduce
from experiments.paper.stages import checked_stages, command_of, composed_stage, paper_of
from tests.experiments.conftest import SMALL
from tests.experiments.paper.conftest import paper

PAPERS = [path.stem for path in sorted((CONF / "paper").glob("*.yaml"))]


def test_everything_that_is_missing_is_said_at_once_before_anything_starts(tmp_path, monkeypatch, hydra):
    monkeypatch.setattr(reproduce, "run_stages", lambda *_: pytest.fail("work was started"))
    cfg = paper(
        tmp_path,
        fine=["experiment=train", *SMALL],
        images=["experiment=path_analysis", "dataset=imagenet", "dataset.root=nowhere", "model=vgg16"],
        same=["experiment=train", "dataset=imagenet", "dataset.root=nowhere", "model=vgg16"],
        channels=["experiment=path_analysis", "model=vgg11"],
        sparsity=["experiment=path_analysis", *SMALL, "sparsity=120"],
    )
    with pytest.raises(InputError) as raised:
        run(cfg)
    text = str(raised.value)
    assert text.count("\n  - ") == 3, text
    assert "dataset.root=FOLDER" in text
    assert "(needed by: images, same)" in text
    assert "3 channels" in text
    assert "0 ≤ sparsity < 100" in text
    assert "fine" not in text


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["experiment=train", "dataset.recipe.epochs=2"], "'dataset.recipe' is called 'recipe' now"),
        (["experiment=train", "sede=1"], "sede"),
        (["experiment=nothing"], "nothing"),
        (["experiment=path_analysis", "method=neuron_mtc"], "neuron_mtc"),
        (["experiment=path_analysis", "+method.mine={_target_: nowhere.Mine}"], "nowhere"),
        (["experiment=reproduce_paper"], "many jobs already: it cannot be a stage"),
        (["experiment=train", "device=cuda:99"], "device"),
    ],
)
def test_a_stage_that_cannot_run_is_named(tmp_path, monkeypatch, hydra, overrides, complaint):
    monkeypatch.setattr(reproduce, "run_stages", lambda *_: pytest.fail("work was started"))
    common = [each for each in overrides if each.startswith("device=")]
    cfg = paper(tmp_path, *common, wrong=[*SMALL, *overrides])
    with pytest.raises(InputError, match="nothing was started") as raised:
        run(cfg)
    assert complaint in str(raised.value)
    assert "(needed by: wrong)" in str(raised.value)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("paper.stages.train", r"paper\.stages"),
        ("paper.seconds.train", r"paper\.seconds"),
        ("paper.name", "paper.name"),
    ],
)
def test_a_paper_that_is_none_is_refused(tmp_path, hydra, setting, complaint):
    cfg = paper(tmp_path, "+" * (setting == "") + f"{setting}=''")
    with pytest.raises(InputError, match=complaint):
        run(cfg)


@pytest.mark.parametrize("name", PAPERS)
def test_the_stages_of_every_paper_have_usable_settings(tmp_path, hydra, name):
    config = parse(paper(tmp_path, f"paper={name}"))
    stages = paper_of(config).stages
    found = {stage: parse(composed_stage(config, overrides)) for stage, overrides in stages.items()}
    # A stage is called as its experiment; a second one of the same experiment has the network behind that.
    experiments = {stage: stage.removesuffix(f"_{each.model_name}") for stage, each in found.items()}
    assert {stage: each.experiment.name for stage, each in found.items()} == experiments


def test_the_preflight_of_the_digits_finds_nothing_missing(tmp_path, hydra):
    config = parse(paper(tmp_path))
    assert list(checked_stages(config, paper_of(config))) == list(config.paper["stages"])
    assert list(tmp_path.iterdir()) == [], "nothing is made"


def test_what_all_stages_have_in_common_comes_from_the_whole(tmp_path, hydra):
    outputs = tmp_path / "it's here, [really]"
    cfg = paper(tmp_path, "seed=3", "device=cpu", "threads=2", "redo=true", train=["experiment=train", "seed=1"])
    cfg.outputs = str(outputs)
    config = parse(cfg)
    stage = parse(composed_stage(config, paper_of(config).stages["train"]))
    assert (stage.outputs, stage.seed, stage.device, stage.threads, stage.redo) == (str(outputs), 3, "cpu", 2, True)


@pytest.mark.parametrize("seed", [0, 5])
def test_all_stages_explain_networks_of_the_papers_seed(tmp_path, hydra, seed):
    config = parse(paper(tmp_path, f"seed={seed}"))
    stages = {name: composed_stage(config, each) for name, each in paper_of(config).stages.items()}
    assert {stage.seed for stage in stages.values()} == {seed}
    assert stages["roar_table"].experiment.base_seed == seed
    parse(stages["roar_table"])


def test_a_stage_has_a_command_that_makes_the_same_job_alone(tmp_path, hydra):
    config = parse(paper(tmp_path))
    stages = paper_of(config).stages
    for name in ("path_analysis", "roar_table"):
        overrides = stages[name]
        words = shlex.split(command_of(overrides))
        assert words[:3] == ["python", "-m", "experiments"]
        alone = parse(compose("config", [*words[3:], f"outputs={tmp_path}"]))
        assert Job(alone).folder == Job(parse(composed_stage(config, overrides))).folder, name
