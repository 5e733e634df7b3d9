from __future__ import annotations

import copy

import pytest
import torch

import cpath
from cpath.analysis import affine_radius
from experiments import linearity
from experiments.engine.config import parse
from experiments.engine.job import Job, run
from experiments.engine.measuring import read_per_image
from experiments.figures.linearity import linearity_figures
from tests.rows import row_of


def test_radii_are_those_of_the_library_and_drawn_over_sparsity(configure, trained):
    cfg = configure("experiment=linearity", "experiment.images=3", "experiment.batch=2", "experiment.neurons=20")
    cfg.sparsity, cfg.method = [90, 99], {"neuron_mct": {}, "active": {}, "greedy_released": {"rounds": 2}}
    table = run(cfg)
    job = Job(parse(cfg))
    images, model = job.sample(3).batch(slice(0, 3)), job.model
    for sparsity in (90, 99):
        expected = {
            "neuron_mct": cpath.find_pathway(model, images, "neuron_mct", sparsity),
            "active": cpath.find_pathway(model, images, "active", sparsity),
            "greedy_released": cpath.find_pathway(model, images, cpath.methods.GreedyReleased(rounds=2), sparsity),
        }
        for name, pathway in expected.items():
            here = table[(table.method == name) & (table.x.astype(float) == sparsity)].set_index("metric").value
            radius = affine_radius(copy.deepcopy(model).double(), images.double(), pathway, neurons=20)
            assert here["affine_radius"] == pytest.approx(radius[radius.isfinite()].mean().item(), rel=1e-6)
            assert here["affine_everywhere"] == pytest.approx(100 * radius.isinf().double().mean().item())
    (drawing,) = linearity_figures(table)
    assert len(drawing.figure.axes[0].lines) == 3


def test_a_ball_without_an_end_is_counted_and_left_out_of_the_mean(configure, trained, monkeypatch):
    radii = torch.tensor([1.0, float("inf"), 3.0])
    monkeypatch.setattr(linearity, "affine_radius", lambda *_, **__: radii)
    cfg = configure("experiment=linearity", "experiment.images=3", "experiment.batch=3", "method=neuron_mct")
    cfg.sparsity = 90
    rows = run(cfg).set_index("metric")
    assert (rows.value["affine_radius"], rows.n["affine_radius"]) == (2, 2)
    assert rows.value["affine_everywhere"] == pytest.approx(100 / 3)


@pytest.mark.parametrize("images", [1, 2, 3])
def test_any_number_of_images_and_any_sparsity_has_its_rows(job, trained, images):
    made = job(
        "experiment=linearity",
        f"experiment.images={images}",
        "experiment.batch=2",
        "experiment.neurons=2",
        "method=random",
        "sparsity=[90.00001,90.00002,99.99999]",
    )
    table = run(made.config.composed)
    for sparsity in (90.00001, 90.00002, 99.99999):
        row = row_of(table, "random", "affine_everywhere", sparsity)
        assert (row.n, 0 <= row.value <= 100) == (images, True)
    assert read_per_image(made.folder).image.nunique() == images


def test_sites_without_a_pre_activation_are_refused_before_training(job):
    with pytest.raises(cpath.SiteError, match="no pre-activation"):
        job("experiment=linearity", "method=random", "sites=stage1").check()
