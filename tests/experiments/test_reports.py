from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from cpath.errors import InputError
from experiments import CONF, reproduce_paper, roar_table, saliency, train
from experiments.framework.job import job_folder
from experiments.framework.report import Stage, write_report
from experiments.framework.results import Row, table
from tests.experiments.conftest import SMALL


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


@pytest.fixture
def hydra():
    """The paper's stages are composed while Hydra is up, as under the command line."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def _paper(outputs: Path, **stages: list[str]):
    cfg = compose("config", ["experiment=reproduce_paper", "paper=digits", f"outputs={outputs}"])
    cfg.paper.stages = stages
    cfg.paper.seconds = dict.fromkeys(stages, 5)
    return cfg


def test_everything_that_is_missing_is_said_at_once_before_anything_starts(tmp_path, monkeypatch, hydra):
    monkeypatch.setattr(reproduce_paper, "_run_stages", lambda *_: pytest.fail("work was started"))
    cfg = _paper(
        tmp_path,
        fine=["experiment=train", *SMALL],
        images=["experiment=path_analysis", "dataset=imagenet", "dataset.root=nowhere", "model=vgg16"],
        same=["experiment=saliency", "dataset=imagenet", "dataset.root=nowhere", "model=vgg16"],
        channels=["experiment=path_analysis", "model=vgg11"],
        sparsity=["experiment=path_analysis", *SMALL, "sparsity=120"],
    )
    with pytest.raises(InputError) as raised:
        reproduce_paper.run(cfg)
    text = str(raised.value)
    assert text.count("\n  - ") == 3, text
    assert "dataset.root=FOLDER" in text
    assert "(needed by: images, same)" in text
    assert "3 channels" in text
    assert "0 ≤ sparsity < 100" in text
    assert "fine" not in text


@pytest.mark.slow
def test_stages_have_the_tracker_the_trainer_and_the_folder_of_the_whole(tmp_path):
    outputs = tmp_path / "it's here"
    command = [
        *(sys.executable, "-m", "experiments", "experiment=reproduce_paper", "paper=digits"),
        "~paper.stages",  # else these would be added to the paper's own
        "+paper.stages={train:['experiment=train','dataset.size=16','dataset.recipe.epochs=1','model.width=4']}",
        "outputs='" + str(outputs).replace("'", r"\'") + "'",
        *("seed=3", "tracker=wandb", "trainer.channels_last=true"),
    ]
    subprocess.run(command, cwd=CONF.parent, check=True, timeout=300)
    (config,) = outputs.glob("runs/train/*/config.yaml")
    cfg = OmegaConf.load(config)
    assert (cfg.seed, cfg.trainer.channels_last, cfg.outputs) == (3, True, str(outputs))
    assert len(list(outputs.glob("wandb/wandb/offline-run-*"))) == 1


def test_a_stage_that_fails_leaves_the_others_alone(trained, monkeypatch, figures, hydra):
    def fails(cfg):
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(saliency, "run", fails)
    cfg = _paper(trained, saliency=["experiment=saliency", *SMALL], train=["experiment=train", *SMALL])
    with pytest.raises(InputError, match="stage saliency failed: out of <memory>"):
        reproduce_paper.run(cfg)
    page = (trained / "reproduce-paper" / "digits" / "report.html").read_text()
    assert "The stage saliency failed" in page
    assert "out of &lt;memory&gt;" in page
    assert "test accuracy" in page


def test_finished_stages_are_not_checked_or_run_again(trained, monkeypatch, figures, hydra):
    cfg = _paper(trained, train=["experiment=train", *SMALL])
    first = reproduce_paper.run(cfg)
    monkeypatch.setattr(reproduce_paper, "load_data", lambda cfg: pytest.fail("checked again"))
    assert len(reproduce_paper.run(cfg)) == len(first)


def _stage(folder: Path, cfg, rows: list[Row]) -> Stage:
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "captions.json").write_text("{}")
    made = {"status": "finished", "seconds": 90, "device": "CPU", "threads": 1, "seed": 0, "git": "abc"}
    (folder / "manifest.json").write_text(
        json.dumps({**made, "finished": "2030-01-01", "versions": {"torch": "9"}})
    )
    return Stage("degradation", folder, table(rows, cfg))


def test_ours_stand_beside_the_published_numbers_at_the_same_places(configure, tmp_path):
    rows = [
        Row("gradcam", "lerf_change", 0.001 * x, "percent_removed", float(x), 0.0, 1.0, 9) for x in range(1, 11)
    ]
    rows += [
        Row("gradcam", "lerf_change/published", 0.1 + 0.001 * x, "percent_removed", float(x)) for x in (1, 5, 10)
    ]
    stage = _stage(tmp_path / "job", configure(), rows)
    (found,) = stage.published
    cells = {
        column: (cell["value"], cell["published"])
        for column, cell in zip(found["columns"], found["rows"][0]["cells"], strict=True)
    }
    assert cells == {"1": ("0.001", "0.101"), "5": ("0.005", "0.105"), "10": ("0.01", "0.11")}
    page = write_report(tmp_path, "a title", [stage]).read_text()
    assert "Beside the published numbers" in page
    assert "<b>0.105</b>" in page
    assert "90 s" in page or "2 min" in page


def test_without_published_numbers_no_table_claims_any(configure, tmp_path):
    stage = _stage(tmp_path / "job", configure(), [Row("gradcam", "lerf_change", 0.1, "percent_removed", 1.0)])
    assert stage.published == []
    assert "Beside the published numbers" not in write_report(tmp_path, "a title", [stage]).read_text()


@pytest.mark.parametrize(
    ("metrics", "title"),
    [
        (["roar_accuracy"], "ROAR: retraining without the relevant pixels"),
        (["kar_accuracy"], "KAR: retraining on the relevant pixels alone"),
        (
            ["kar_accuracy", "roar_accuracy"],
            "ROAR and KAR: retraining without the relevant pixels, and on them alone",
        ),
        (["lerf_change"], "Input degradation: are the removed pixels the relevant ones?"),
    ],
)
def test_the_heading_says_which_retrainings_there_are(configure, tmp_path, metrics, title):
    rows = [Row("gbp", metric, 50.0, "percent", 90.0) for metric in metrics]
    assert _stage(tmp_path / "job", configure(), rows).title == title


def test_the_criteria_that_agree_are_those_of_the_table(configure, tmp_path):
    areas = {"lerf_area": (0.1, 0.2), "lerf_area_road": (0.2, 0.1), "kar_area": (60.0, 50.0)}
    rows = [
        Row(method, metric, value, "up_to_percent", 90.0)
        for metric, values in areas.items()
        for method, value in zip(("gbp", "gradcam"), values, strict=True)
    ]
    rows.append(Row("all", "rank_agreement/lerf/lerf_road", -1.0, "up_to_percent", 90.0, -1.0, -0.5, 9))
    page = write_report(tmp_path, "a title", [_stage(tmp_path / "job", configure(), rows)]).read_text()
    assert "LeRF, LeRF (ROAD), KAR: each puts the attributions into an order" in page
    section = page[page.index('<section id="agreement">') :]
    cells = re.findall(r"<td>([^<]*)<small>([^<]*)</small></td>", section[: section.index("</table>")])
    none = ("–", "")
    assert cells == [
        none,
        ("-1", "-1 to -0.5"),
        ("1", ""),
        ("-1", "-1 to -0.5"),
        none,
        ("-1", ""),
        ("1", ""),
        ("-1", ""),
        none,
    ]


@pytest.mark.parametrize(("seed", "base_seed"), [(0, 0), (5, 5)])
def test_all_stages_explain_networks_of_the_papers_seed(tmp_path, hydra, seed, base_seed):
    cfg = compose("config", ["experiment=reproduce_paper", "paper=digits", f"outputs={tmp_path}", f"seed={seed}"])
    stages = {name: reproduce_paper._stage(cfg, overrides) for name, overrides in cfg.paper.stages.items()}
    assert {stage.seed for stage in stages.values()} == {seed}
    assert stages["roar_table"].experiment.base_seed == base_seed
    roar_table.check(stages["roar_table"])


def test_released_variants_stand_beside_the_definitions(configure, tmp_path):
    methods = ("greedy", "greedy_published", "random")
    rows = [Row(method, "dead_share", 0.5, "sparsity", 90.0) for method in methods]
    (found,) = _stage(tmp_path / "job", configure(), rows).variants
    assert [row["method"] for row in found["rows"]] == ["Greedy", "Greedy (released code)"]
    assert _stage(tmp_path / "other", configure(), rows[::2]).variants == []
