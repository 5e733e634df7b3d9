"""The part of finished jobs that is worth committing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cpath.errors import InputError
from experiments import keep as command
from experiments.engine.job import RESULTS
from experiments.engine.job_listing import find_runs
from experiments.engine.measuring import read_per_image
from experiments.engine.metric_entry import base_name
from experiments.engine.provenance import MANIFEST
from experiments.keep import _reduce, keep_jobs
from experiments.paper.verdicts import COMPARED
from experiments.redraw import redraw_below

JOB = ["experiment=path_analysis", "method=[neuron_mct,random]", "experiment.images=2"]


def test_tables_pictures_and_the_numbers_of_images_are_kept(job, trained, figures, tmp_path):
    job(*JOB, "sparsity=[80,90]").run()
    (run,) = find_runs(trained)
    (kept,) = keep_jobs(trained, tmp_path / "kept")
    for name in (RESULTS, MANIFEST, "config.yaml"):
        assert (kept / name).read_bytes() == (run.folder / name).read_bytes()
    whole, part = read_per_image(run.folder), read_per_image(kept)
    compared = whole.metric.map(base_name).isin(COMPARED)
    assert {"dead_share", "jaccard", "response_change"} <= set(whole[compared].metric.map(base_name))
    assert 0 < compared.sum() < len(whole)
    pd.testing.assert_frame_equal(part, whole[compared].reset_index(drop=True).infer_objects(), rtol=1e-6)
    pictures = sorted(path.name for path in (kept / "figures").glob("*"))
    assert pictures == sorted(p.name for p in (run.folder / "figures").glob("*") if p.suffix != ".svg")
    first = (kept / "per_image.csv.gz").read_bytes()
    (again,) = keep_jobs(trained, tmp_path / "kept")  # in place of the first
    assert (again / "per_image.csv.gz").read_bytes() == first
    assert redraw_below([kept]) == [kept]  # all that figures need is there


def test_one_job_of_an_experiment_at_a_time(job, trained, tmp_path, capsys):
    with pytest.raises(InputError, match=r"there is no (finished )?job"):
        keep_jobs(trained, tmp_path / "kept")
    for sparsity in (80, 90):
        job(*JOB, f"sparsity={sparsity}").run()
    assert command.main([str(trained), str(tmp_path / "kept")]) == 2
    assert "several jobs of path_analysis" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()
    one = find_runs(trained)[0]
    assert command.main([str(one.folder), str(tmp_path / "kept")]) == 0
    assert "path_analysis" in capsys.readouterr().out
    assert (tmp_path / "kept" / "path_analysis" / RESULTS).exists()


def test_a_copy_never_replaces_jobs_or_what_is_no_copy(job, trained, tmp_path, monkeypatch):
    for sparsity in (80, 90):
        job(*JOB, f"sparsity={sparsity}").run()
    one, other = find_runs(trained)
    for folder in (trained / "runs", one.folder, trained / "runs" / "path_analysis" / ".." / "."):
        with pytest.raises(InputError, match="is where the jobs themselves are"):
            keep_jobs(one.folder, folder)
    taken = tmp_path / "kept" / "path_analysis"
    taken.mkdir(parents=True)
    (taken / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="path_analysis is no copy of a job, and is left alone"):
        keep_jobs(one.folder, tmp_path / "kept")
    assert (taken / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match=r"cannot copy to .*notes\.txt: "):
        keep_jobs(one.folder, taken / "notes.txt")
    assert [run.status for run in find_runs(trained)] == ["finished", "finished"]
    assert (other.folder / RESULTS).exists()


def test_an_interrupted_copy_leaves_the_earlier_one(job, trained, tmp_path, monkeypatch):
    job(*JOB, "sparsity=80").run()
    (kept,) = keep_jobs(trained, tmp_path / "kept")
    before = {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()}
    monkeypatch.setattr("experiments.keep.read_per_image", lambda folder: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        keep_jobs(trained, tmp_path / "kept")
    assert {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()} == before
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_pictures_become_smaller_and_stay_the_same_to_the_eye(tmp_path):
    rng = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(300), np.arange(300))[..., None] * np.array([0.4, 0.2, 0.1])
    noisy = (smooth + rng.normal(0, 2, (300, 300, 3))).clip(0, 255).astype(np.uint8)
    path = tmp_path / "picture.png"
    Image.fromarray(noisy).save(path)
    before = path.stat().st_size
    _reduce(path)
    assert path.stat().st_size < 0.7 * before
    with Image.open(path) as image:
        difference = np.abs(np.asarray(image.convert("RGB"), dtype=float) - noisy)
    assert difference.mean() < 6
    assert list(tmp_path.iterdir()) == [path]
    Image.fromarray(np.tile(np.arange(250, dtype=np.uint8), (5000, 1))).save(path)
    _reduce(path)
    with Image.open(path) as image:
        assert image.size == (200, 4000)
    plain = tmp_path / "plain.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(plain, optimize=True)
    content = plain.read_bytes()
    _reduce(plain)  # a palette would only add to it
    assert plain.read_bytes() == content or plain.stat().st_size < len(content)
