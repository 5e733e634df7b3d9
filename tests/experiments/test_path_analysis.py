from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

import cpath
from cpath.analysis import response_preservation
from cpath.inputs import Inputs
from experiments import redraw
from experiments.engine import tracking
from experiments.engine.measuring import read_per_image
from experiments.engine.provenance import MANIFEST
from experiments.engine.scoring import Scoring, plan_searches
from experiments.engine.table import Measure
from tests import zoo
from tests.rows import row_of

SETTINGS = [
    "experiment=path_analysis",
    "experiment.images=10",
    "experiment.batch=4",
    "sparsity=[80,95]",
    "method=neuron_mct",
    "+method.neuron_intgrad={nodes: 3}",
    "+method.random={seed: 0}",
    "+method.active={}",
]


@pytest.fixture
def run(job, trained):
    """Runs the job of the settings and returns its table."""
    return lambda *overrides: job(*SETTINGS, *overrides).run()


def test_results_are_the_means_of_what_the_library_says_image_by_image(job, run):
    table, made = run(), job(*SETTINGS)
    images, model = made.sample(10), made.model
    dead, overlap, change = [], [], []
    for index in range(10):
        image = images.batch(slice(index, index + 1))
        with torch.no_grad(), cpath.observe(model) as seen:
            probability = model(image).softmax(1)
        mct = cpath.find_pathway(model, image, "neuron_mct", sparsity=95)
        random = cpath.find_pathway(model, image, "random", sparsity=95)
        overlap.append(mct.jaccard(random).item())
        dead.append(100 * random.dead_share(seen.activations).item())
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
    assert row_of(table, "active", "class_kept", 95).value == 100
    base = table[table.metric == "base_sparsity"].value.iloc[0]
    assert row_of(table, "active", "realised_sparsity", 95).value == pytest.approx(base)


def test_methods_are_compared_with_themselves_after_one_rounding(job, trained):
    settings = [*SETTINGS, "+method.greedy={rounds: 4}", "experiment.self_overlap=5"]
    table, made = job(*settings).run(), job(*settings)
    images, found = made.sample(10), {"neuron_mct": [], "greedy": [], "random": []}
    for index in range(5):
        image = images.batch(slice(index, index + 1))
        for name, values in found.items():
            method = made.methods[name]
            one = cpath.find_pathway(made.model, image, method, 95)
            other = cpath.find_pathway(made.model, image * (1 + 2**-23), method, 95, target=one.target)
            values.append(one.jaccard(other).item())
    for name in ("neuron_mct", "random"):
        row = row_of(table, name, "self_overlap", 95)
        assert row.value == pytest.approx(sum(found[name]) / 5, abs=0.01)
        assert row.n == 5
    assert row_of(table, "neuron_mct", "self_overlap", 95).value > 0.99
    assert row_of(table, "random", "self_overlap", 95).value < 0.1
    assert 0.1 < row_of(table, "greedy", "self_overlap", 95).value <= 1
    without = job(*settings, "experiment.self_overlap=0").run()
    assert "self_overlap" not in set(without.metric)


def test_self_overlap_repeats_no_warning(job, trained, monkeypatch):
    score = cpath.score

    def warning(*args, **rest):
        warnings.warn("no gates kept the class", UserWarning, stacklevel=2)
        return score(*args, **rest)

    monkeypatch.setattr(cpath, "score", warning)
    settings = [*SETTINGS, "method=random", "experiment.images=6", "experiment.self_overlap=6"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = job(*settings).run()
    assert [str(one.message) for one in caught].count("no gates kept the class") == 3 * 2  # methods, batches
    assert row_of(table, "random", "self_overlap", 95).n == 6


class Silent(cpath.Method):
    """Scores of 0 for all images but the first four: their pathways are empty."""

    name = "silent"

    def contributions(self, probe):
        return {
            name: torch.rand_like(output) * (torch.arange(len(output)) < 4).view(-1, *[1] * (output.dim() - 1))
            for name, output in probe.record(gradients=False).activations.items()
        }


def test_empty_pathways_are_counted(job, trained):
    made = job(*SETTINGS, "method=random", "experiment.images=6", "experiment.batch=6")
    made.__dict__["methods"] = {"silent": Silent()}
    table = made.run()
    row = row_of(table, "silent", "empty_pathways", 80)
    assert (row.value, row.n) == (pytest.approx(100 / 3), 6)
    assert row_of(table, "silent", "dead_share", 80).n == 4


def test_a_network_of_float64_makes_greedy_repeat_itself(job, trained):
    settings = [*SETTINGS, "method=greedy", "method.greedy.rounds=4", "dtype=float64"]
    made = job(*settings)
    table = made.run()
    assert next(made.model.parameters()).dtype == made.sample(1).batch(slice(0, 1)).dtype == torch.float64
    assert row_of(table, "greedy", "self_overlap", 80).value == 1
    assert job(*SETTINGS, "method=greedy", "method.greedy.rounds=4").model_hash != made.model_hash


def test_a_job_leaves_table_configuration_manifest_and_figures(job, run, figures):
    run()
    folder = job(*SETTINGS).folder
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest["status"] == "finished"
    assert len(manifest["images"]) == 10
    assert manifest["seed"] == 0
    assert {"torch", "cpath", "python"} <= set(manifest["versions"])
    assert manifest["made_of"]["experiment"]["sparsity"] == [80.0, 95.0]
    assert (folder / "config.yaml").exists()
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"overlap.png", "overlap.svg", "dead_share.png", "responses.svg", "captions.json"} <= names


def test_numbers_of_every_image_are_kept_in_long_form(job, run):
    table, made = run(), job(*SETTINGS)
    frame = read_per_image(made.folder)
    assert list(frame.columns) == ["image", "method", "metric", "x_name", "x", "value"]
    kept = frame[(frame.method == "random") & (frame.metric == "class_kept") & (frame.x == 95.0)]
    assert kept.image.tolist() == made.sample(10).ids
    assert kept.value.mean() == pytest.approx(row_of(table, "random", "class_kept", 95).value)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_last_batch_may_hold_one_image(job, trained, images):
    table = job(*SETTINGS, f"experiment.images={images}").run()
    assert (table[table.metric == "class_kept"].n == images).all()
    alone = job(*SETTINGS, f"experiment.images={images}", "experiment.batch=1").run()
    pd.testing.assert_frame_equal(table, alone, check_exact=False, rtol=1e-4, atol=1e-6)


def test_sparsities_that_differ_in_the_last_digit_stay_apart(job, trained):
    values = [90.00001, 90.00002, 99.99999]
    table = job(*SETTINGS, f"sparsity={values}".replace(" ", ""), "experiment.images=2").run()
    found = table[(table.method == "random") & (table.metric == "class_kept")]
    assert found.x.astype(float).tolist() == values
    frame = read_per_image(job(*SETTINGS, f"sparsity={values}".replace(" ", ""), "experiment.images=2").folder)
    assert sorted(set(frame[frame.x_name == "sparsity"].x)) == values


def test_sites_may_be_called_anything(job, trained, monkeypatch):
    real = cpath.sites.observe
    made = job(*SETTINGS, "experiment.images=2", "method=random")
    expected = made.run()

    class Renamed(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.add_module("a|b", model)

        def forward(self, images):
            return getattr(self, "a|b")(images)

    other = job(*SETTINGS, "experiment.images=2", "method=random", "redo=true")
    other.__dict__["model"] = Renamed(made.model).eval()
    table = other.run()
    sites = table[table.metric.str.startswith("site_kept/")].metric
    assert sites.str.startswith("site_kept/a|b.").all()
    assert len(table) == len(expected)
    assert real is cpath.sites.observe


def test_an_image_is_decoded_once_and_the_model_hashed_once(job, trained, monkeypatch):
    from experiments.engine import job as job_module

    made, hashed, decoded = job(*SETTINGS), [], []
    real, batch = job_module.fingerprint, type(made.data.test).batch
    monkeypatch.setattr(job_module, "fingerprint", lambda *args: hashed.append(1) or real(*args))
    monkeypatch.setattr(
        type(made.data.test),
        "batch",
        lambda self, indices: decoded.extend(indices.tolist()) or batch(self, indices),
    )
    made.run()
    assert len(hashed) == 1
    assert sorted(decoded) == sorted(made.sample(10).indices.tolist())


def test_a_finished_job_is_not_done_again_and_others_share_its_scores(job, run, monkeypatch):
    first = run()
    scored = []
    score = cpath.score
    monkeypatch.setattr(cpath, "score", lambda *args, **rest: scored.append(args[2].name) or score(*args, **rest))
    pd.testing.assert_frame_equal(first, run())
    assert scored == []
    run("sparsity=90", "experiment.self_overlap=0")
    assert set(scored) == {"random", "active"}  # cheaper to draw again than to keep


def test_other_attributions_make_no_other_job(job):
    assert job(*SETTINGS, "attribution=gradcam").folder == job(*SETTINGS).folder


def test_scores_that_do_not_fit_the_budget_are_not_kept_and_change_nothing(run, trained):
    kept = run()
    before = sorted((trained / "artifacts" / "scores").iterdir())
    shutil.rmtree(trained / "runs")
    again = run("experiment.keep_scores_gb=0")
    assert sorted((trained / "artifacts" / "scores").iterdir()) == before
    pd.testing.assert_frame_equal(kept, again)


def test_figures_can_be_made_again_from_the_table(job, run, trained, figures):
    run()
    drawn = job(*SETTINGS).folder / "figures"
    before = (drawn / "dead_share.png").read_bytes()
    for file in drawn.iterdir():
        file.unlink()
    redraw.redraw_below([trained / "runs"])
    assert (drawn / "dead_share.png").read_bytes() == before


def test_bad_input_is_refused_before_any_training(job, tmp_path):
    with pytest.raises(cpath.InputError, match="the split has 360"):
        job(*SETTINGS, "experiment.images=1000").run()
    assert not (tmp_path / "artifacts").exists()


def test_a_model_without_sites_is_refused_before_any_training(job, tmp_path):
    other = ["model=mobilenet_v2", "dataset.channels=3", "dataset.size=32"]
    with pytest.raises(cpath.SiteError, match=r"mobilenet_v2.*no site found"):
        job(*SETTINGS, *other, small=False).run()
    assert not list((tmp_path / "artifacts").glob("models/*/model.safetensors"))


@pytest.mark.slow
def test_wandb_keeps_an_offline_run_a_job_with_all_that_it_found(job, trained, figures, monkeypatch):
    monkeypatch.setattr(tracking, "_sweep", lambda: "path_analysis-1234abcd")
    settings = [*SETTINGS[:4], "tracker=wandb", "method=random"]
    job(*settings).run()
    (record,) = (trained / "wandb" / "wandb").glob("offline-run-*/*.wandb")
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
    assert f"results-{job(*settings).folder.name}" in text
    assert list(record.parent.glob("files/media/images/figures/*.png"))


@pytest.mark.parametrize("truncate", [False, True])
def test_a_damaged_file_is_found_and_made_again(job, trained, caplog, truncate):
    # A small job, which makes as many kinds of files as a large one.
    settings = "experiment=path_analysis", "experiment.images=3", "method=[neuron_mct,random]", "sparsity=80"
    expected, folder = job(*settings).run(), job(*settings).folder
    finished, results = (folder / MANIFEST).read_text(), folder / "results.csv"
    files = [*trained.glob("artifacts/*/*/[!.]*"), *folder.glob("parts/*/[!.]*"), results]
    kinds = {(file.parent.parent.name, file.name): file for file in files}  # one of each kind
    assert {file.suffix for file in kinds.values()} == {".safetensors", ".json", ".csv"}
    for file in list(kinds.values())[:: 2 if truncate else 1]:  # a file cut short is found as a flipped bit is
        caplog.clear()
        whole = bytearray(file.read_bytes())
        whole[len(whole) // 2] ^= 1
        file.write_bytes(whole[: len(whole) // 2] if truncate else whole)
        if file != results:  # or the job would not look at anything else
            results.unlink()
        if "artifacts" in file.parts:
            shutil.rmtree(folder / "parts")
        (folder / MANIFEST).write_text(finished)
        pd.testing.assert_frame_equal(job(*settings).run(), expected)
        if file.name != MANIFEST:
            assert any("damaged" in line and str(file.parent) in line for line in caplog.messages), file


def test_a_model_that_changes_its_input_is_measured_as_one_that_does_not(job, trained):
    model, images = zoo.make(zoo.Normalising), zoo.images()
    made = job(*SETTINGS[:4], "method=neuron_mct", "sparsity=80", "experiment.by_site=false")
    made.__dict__["model"] = model
    batch = next(made.sample(3).batches(3))
    batch.__dict__["inputs"] = Inputs.of(images.clone())
    searches = plan_searches(made.methods, [80.0])
    scoring = Scoring(made, max_batch=64, keep=False)
    measures = made.config.experiment._measure(made, batch, searches, scoring)
    assert torch.equal(batch.inputs.first, images)
    change, kept = response_preservation(model, images, cpath.find_pathway(model, images, sparsity=80))
    torch.testing.assert_close(measures[Measure("neuron_mct", "response_change", "sparsity", 80.0)], change)
    assert torch.equal(measures[Measure("neuron_mct", "class_kept", "sparsity", 80.0)], 100 * kept.double())
