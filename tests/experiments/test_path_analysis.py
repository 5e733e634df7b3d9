from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import cpath
from cpath.analysis import response_preservation
from experiments import path_analysis, redraw
from experiments.framework import tracker
from experiments.framework.job import job_folder
from experiments.framework.store import ArtifactStore
from experiments.framework.subject import load_data, load_images, trained_model
from tests import zoo
from tests.rows import row_of

SETTINGS = [
    "experiment=path_analysis",
    "experiment.images=10",
    "experiment.batch=4",
    "sparsity=[80,95]",
]


@pytest.fixture
def cfg(configure):
    cfg = configure(*SETTINGS)
    cfg.method = {"neuron_mct": {}, "neuron_intgrad": {"nodes": 3}, "random": {"seed": 0}, "active": {}}
    return cfg


def test_results_are_the_means_of_what_the_library_says_image_by_image(cfg):
    table = path_analysis.run(cfg)
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, ArtifactStore(Path(cfg.outputs) / "artifacts"))
    dead, overlap, change = [], [], []
    for index in range(10):
        image = images.batch(slice(index, index + 1))
        with torch.no_grad(), cpath.observe(model) as seen:
            probability = model(image).softmax(1)
        mct = cpath.find_pathway(model, image, "neuron_mct", sparsity=95)
        random = cpath.find_pathway(model, image, "random", sparsity=95)
        overlap.append(mct.jaccard(random).item())
        dead.append(random.dead_share(seen.activations).item())
        with torch.no_grad(), mct.restrict(model):
            restricted = model(image).softmax(1)
        target = probability.argmax(1)
        change.append((restricted[0, target] / probability[0, target] - 1).item())
    for method, metric, values in (
        ("neuron_mct", "jaccard/random", overlap),
        ("random", "jaccard/neuron_mct", overlap),
        ("random", "dead_share", dead),
        ("neuron_mct", "response_change", change),
    ):
        row = row_of(table, method, metric, 95)
        assert row.value == pytest.approx(sum(values) / 10, rel=1e-4)
        assert row.n == 10
        assert row.ci_low <= row.value <= row.ci_high
    assert row_of(table, "neuron_mct", "dead_share", 80).value == 0
    assert row_of(table, "active", "class_kept", 95).value == 1
    base = table[table.metric == "base_sparsity"].value.iloc[0]
    assert row_of(table, "active", "realised_sparsity", 95).value == pytest.approx(base)


def test_a_job_leaves_table_configuration_manifest_and_figures(cfg, figures):
    path_analysis.run(cfg)
    folder = job_folder(cfg)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert len(manifest["images"]) == 10
    assert manifest["seed"] == 0
    assert {"torch", "cpath", "python"} <= set(manifest["versions"])
    assert (folder / "config.yaml").exists()
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"overlap.png", "overlap.svg", "dead_share.png", "responses.svg", "captions.json"} <= names
    assert len(pd.read_csv(folder / "per_image.csv.gz")) == 10


def test_a_finished_job_is_not_done_again_and_others_share_its_scores(cfg, monkeypatch):
    first = path_analysis.run(cfg)
    scored = []
    score = cpath.score
    monkeypatch.setattr(cpath, "score", lambda *args, **rest: scored.append(args[2].name) or score(*args, **rest))
    pd.testing.assert_frame_equal(first, path_analysis.run(cfg))
    assert scored == []
    cfg.sparsity = 90
    path_analysis.run(cfg)
    assert set(scored) == {"random", "active"}  # cheaper to draw again than to keep


def test_scores_that_do_not_fit_the_budget_are_not_kept_and_change_nothing(cfg, configure, tmp_path):
    kept = path_analysis.run(cfg)
    cfg.experiment.keep_scores_gb = 0
    before = sorted((tmp_path / "artifacts" / "scores").iterdir())
    again = path_analysis.run(cfg)
    assert sorted((tmp_path / "artifacts" / "scores").iterdir()) == before
    pd.testing.assert_frame_equal(kept, again)


def test_figures_can_be_made_again_from_the_table(cfg, figures):
    path_analysis.run(cfg)
    drawn = job_folder(cfg) / "figures"
    before = (drawn / "dead_share.png").read_bytes()
    for file in drawn.iterdir():
        file.unlink()
    assert redraw.main([str(cfg.outputs)]) == 0
    assert (drawn / "dead_share.png").read_bytes() == before


def test_bad_input_is_refused_before_any_training(cfg):
    cfg.experiment.images = 1000
    with pytest.raises(cpath.InputError, match="the split has 360"):
        path_analysis.run(cfg)
    assert not (Path(cfg.outputs) / "artifacts").exists()


def test_a_model_without_sites_is_refused_before_any_training(configure):
    cfg = configure(*SETTINGS, "model=mobilenet_v2", "dataset.channels=3", "dataset.size=32", small=False)
    with pytest.raises(cpath.SiteError, match=r"mobilenet_v2.*no site found"):
        path_analysis.run(cfg)
    assert not (Path(cfg.outputs) / "artifacts").exists()


@pytest.mark.slow
def test_wandb_keeps_an_offline_run_a_job_with_all_that_it_found(configure, tmp_path, figures, monkeypatch):
    monkeypatch.setattr(tracker, "_sweep", lambda: "path_analysis-1234abcd")
    cfg = configure(*SETTINGS, "tracker=wandb", "method=random")
    path_analysis.run(cfg)
    (record,) = (tmp_path / "wandb" / "wandb").glob("offline-run-*/*.wandb")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", str(record)],
        capture_output=True,
        text=True,
        check=True,
    )
    text = done.stdout
    assert "dead_share/random@80.0" in text
    assert '"path_analysis"' in text
    assert '"path_analysis-1234abcd"' in text
    assert f"results-{job_folder(cfg).name}" in text
    assert list(record.parent.glob("files/media/images/figures/*.png"))


@pytest.mark.parametrize("truncate", [False, True])
def test_a_damaged_file_is_found_and_made_again(cfg, caplog, truncate):
    expected = path_analysis.run(cfg)
    folder, outputs = job_folder(cfg), Path(cfg.outputs)
    finished, results = (folder / "manifest.json").read_text(), folder / "results.csv"
    files = [*outputs.glob("artifacts/*/*/*"), *folder.glob("parts/*"), results]
    assert {file.suffix for file in files} == {".safetensors", ".json", ".csv"}
    for file in files:
        caplog.clear()
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 1
        file.write_bytes(whole[: len(whole) // 2] if truncate else whole)
        if file != results:  # or the job would not look at anything else
            results.unlink()
        if "artifacts" in file.parts:
            for part in folder.glob("parts/*"):
                part.unlink()
        (folder / "manifest.json").write_text(finished)
        pd.testing.assert_frame_equal(path_analysis.run(cfg), expected)
        named = file.parent if "artifacts" in file.parts else file
        assert any("damaged" in line and str(named) in line for line in caplog.messages), file


def test_a_model_that_changes_its_input_is_measured_as_one_that_does_not():
    model, images = zoo.make(zoo.Normalising), zoo.images()
    pathway, batch = cpath.find_pathway(model, images, sparsity=80), images.clone()
    cfg = OmegaConf.create({"activations": ["relu"], "experiment": {"by_site": False}})
    measures = path_analysis._measure(model, batch, {80.0: {"neuron_mct": pathway}}, cfg)
    assert torch.equal(batch, images)
    change, kept = response_preservation(model, images, pathway)
    torch.testing.assert_close(measures["neuron_mct", "sparsity", 80.0, "response_change"], change)
    assert torch.equal(measures["neuron_mct", "sparsity", 80.0, "class_kept"], kept)
