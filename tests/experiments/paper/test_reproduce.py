"""The whole paper: what it needs, how its stages run, and what it leaves."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from cpath.errors import InputError
from experiments import CONF
from experiments.engine.job import run
from experiments.paper import stages
from experiments.path_analysis import PathAnalysis
from tests.experiments.conftest import SMALL
from tests.experiments.paper.conftest import paper


@pytest.mark.slow
def test_the_paper_runs_into_one_self_contained_page(tmp_path):
    small = ["dataset.size=16", "recipe.epochs=1", "model.width=4"]
    stages = {
        "train": ["experiment=train", *small],
        "path_analysis": ["experiment=path_analysis", *small, "experiment.images=6", "method=neuron_mct"],
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "experiments", "experiment=reproduce_paper", "paper=digits"),
            f"outputs={tmp_path}",
            *(f"paper.stages.{name}={json.dumps(overrides)}" for name, overrides in stages.items()),
        ],
        capture_output=True,
        text=True,
        cwd=CONF.parent,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "reproduce-paper" / "digits" / "report.html").read_text()
    assert page.count("<figure>") >= 3
    assert "test accuracy" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "the page needs nothing but itself"


def test_the_paper_needs_to_be_named(configure):
    with pytest.raises(InputError, match="paper=digits"):
        run(configure("experiment=reproduce_paper"))


@pytest.mark.slow
def test_stages_have_the_tracker_the_trainer_and_the_folder_of_the_whole(tmp_path):
    outputs = tmp_path / "it's here"
    command = [
        *(sys.executable, "-m", "experiments", "experiment=reproduce_paper", "paper=digits"),
        "~paper.stages",  # else these would be added to the paper's own
        "+paper.stages={train:['experiment=train','dataset.size=16','recipe.epochs=1','model.width=4']}",
        "outputs='" + str(outputs).replace("'", r"\'") + "'",
        *("seed=3", "tracker=wandb", "trainer.channels_last=true"),
    ]
    subprocess.run(command, cwd=CONF.parent, check=True, timeout=300)
    (config,) = outputs.glob("runs/train/*/config.yaml")
    cfg = OmegaConf.load(config)
    assert (cfg.seed, cfg.trainer.channels_last, cfg.outputs) == (3, True, str(outputs))
    assert len(list(outputs.glob("wandb/wandb/offline-run-*"))) == 1


def test_a_stage_that_fails_leaves_the_others_alone(trained, monkeypatch, figures, hydra):
    def fails(experiment, job):
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(PathAnalysis, "run", fails)
    cfg = paper(trained, overlap=["experiment=path_analysis", *SMALL], train=["experiment=train", *SMALL])
    with pytest.raises(InputError, match="stage overlap failed: out of <memory>"):
        run(cfg)
    page = (trained / "reproduce-paper" / "digits" / "report.html").read_text()
    assert "The stage overlap failed" in page
    assert "out of &lt;memory&gt;" in page
    assert "test accuracy" in page


def test_finished_stages_are_not_checked_or_run_again(trained, monkeypatch, figures, hydra):
    cfg = paper(trained, train=["experiment=train", *SMALL])
    first = run(cfg)
    assert len(first)
    monkeypatch.setattr(stages, "load_data", lambda config: pytest.fail("checked again"))
    assert len(run(cfg)) == len(first)


def test_the_whole_leaves_one_table_and_no_job_of_its_own(trained, figures, hydra):
    table = run(paper(trained, train=["experiment=train", *SMALL]))
    folder = trained / "reproduce-paper" / "digits"
    assert sorted(file.name for file in folder.iterdir()) == ["report.html", "results.csv"]
    assert [folder.name for folder in (trained / "runs").iterdir()] == ["train"]
    assert list(table.experiment.unique()) == ["train"]
