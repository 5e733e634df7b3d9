from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cpath.errors import InputError
from experiments import benchmark, reproduce_paper, train
from experiments.framework.job import job_folder


def test_train_reports_the_accuracy_of_the_kept_weights(configure, figures):
    cfg = configure("experiment=train")
    table = train.run(cfg)
    row = table[table.metric == "test_accuracy"].iloc[0]
    assert row.n == 360
    assert 20 < row.value <= 100  # two epochs of a narrow network: better than chance
    assert (table.metric == "val_accuracy").sum() == 2
    assert (job_folder(cfg) / "figures" / "training.png").exists()


@pytest.mark.slow
def test_the_paper_runs_into_one_self_contained_page(tmp_path):
    small = ["dataset.size=16", "dataset.recipe.epochs=1", "model.width=4"]
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
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "reproduce-paper" / "digits" / "report.html").read_text()
    assert page.count("<figure>") >= 3
    assert "test accuracy" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "the page needs nothing but itself"


def test_the_paper_needs_to_be_named(configure):
    with pytest.raises(InputError, match="paper=digits"):
        reproduce_paper.run(configure("experiment=reproduce_paper"))


def test_the_benchmark_measures_ratios_seconds_and_memory(configure):
    cfg = configure(
        "experiment=benchmark",
        "experiment.models=[squeezenet1_0]",
        "experiment.batch=2",
        "experiment.size=32",
        "experiment.repeats=1",
        "experiment.nodes=2",
        "experiment.greedy_rounds=2",
        "experiment.dgr_iterations=2",
        "experiment.threshold=[2,100000]",
    )
    table = benchmark.run(cfg)
    ratios = table[table.metric == "ratio"].set_index("method").value
    seconds = table[table.metric == "seconds"].set_index("method").value
    assert set(ratios.index) == set(cfg.experiment.cases)
    assert ratios["neuron_mct"] == pytest.approx(seconds["neuron_mct"] / seconds["forward and input-only backward"])
    processor = table[table.metric == "processor_ratio"].set_index("method").value
    assert (processor.reindex(ratios.index) > 0).all()
    assert (table[table.metric == "limit"].value > 0).all()
    assert (table[table.metric == "peak_megabytes"].value >= 0).all()
