from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

import cpath
from cpath.evaluation import NoisyLinear, degrade
from experiments import degradation
from experiments.framework.job import job_folder
from experiments.framework.store import ArtifactStore
from experiments.framework.subject import load_data, load_images, trained_model
from tests.rows import row_of

SETTINGS = [
    "experiment=degradation",
    "experiment.images=6",
    "experiment.batch=4",
    "experiment.percents=[5,10,50]",
    "experiment.road.images=5",
    "experiment.road.percents=[10,50]",
]
ATTRIBUTIONS = {"neuron_mct": {"sparsity": 80}, "gradients": {}, "random": {"seed": 0}}
ORDERED = ("neuron_mct", "gradients", "gbp", "gradcam")


@pytest.fixture
def cfg(configure, trained):
    cfg = configure(*SETTINGS)
    cfg.attribution = ATTRIBUTIONS
    return cfg


def _one_by_one(cfg, method: str, order: str, fill, percents, count: int) -> np.ndarray:
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, ArtifactStore(job_folder(cfg).parents[2] / "artifacts"))
    found = []
    for index in range(count):
        image = images.batch(slice(index, index + 1))
        maps = cpath.attribute(model, image, method, **ATTRIBUTIONS[method])
        found.append(degrade(model, image, maps, order=order, fill=fill, percents=percents).change[0])
    return torch.stack(found).numpy()


def test_results_are_the_means_of_what_the_library_says_image_by_image(cfg):
    table = degradation.run(cfg)
    for method in ("neuron_mct", "gradients"):
        for order, name in (("least", "lerf"), ("most", "morf")):
            expected = _one_by_one(cfg, method, order, 0.0, (5, 10, 50), 6)
            for place, percent in enumerate((5, 10, 50)):
                row = row_of(table, method, f"{name}_change", percent)
                assert row.value == pytest.approx(expected[:, place].mean(), rel=1e-3, abs=1e-6)
                assert row.n == 6
                assert row.ci_low <= row.value <= row.ci_high
            up_to_10 = (2.5 * expected[:, 0] + 2.5 * (expected[:, 0] + expected[:, 1])) / 10
            assert row_of(table, method, f"{name}_area", 10).value == pytest.approx(up_to_10.mean(), rel=1e-3)
    road = _one_by_one(cfg, "gradients", "most", NoisyLinear(noise=cfg.experiment.road.noise), (10, 50), 5)
    for place, percent in enumerate((10, 50)):
        row = row_of(table, "gradients", "morf_change_road", percent)
        assert row.value == pytest.approx(road[:, place].mean(), rel=1e-3, abs=1e-6)
        assert row.n == 5  # the others of the six have none


def test_rank_agreement_is_kendalls_tau_of_the_areas_of_each_criterion(cfg):
    from scipy.stats import kendalltau

    cfg.attribution = {**ATTRIBUTIONS, "gbp": {}, "gradcam": {}, "sobel": {}}
    table = degradation.run(cfg)
    assert set(cfg.attribution) > {"random", "sobel"}, "controls, which do not count"
    areas = {
        name: [row_of(table, method, f"{name}_area", 50).value for method in ORDERED] for name in ("lerf", "morf")
    }
    row = row_of(table, "all", "rank_agreement/lerf/morf", 50)
    assert row.value == pytest.approx(kendalltau([-area for area in areas["lerf"]], areas["morf"]).statistic)
    assert row.n == 6
    # Between fills: only on the images and shares that both have.
    assert row_of(table, "all", "rank_agreement/lerf/lerf_road", 50).n == 5
    assert set(table[table.metric.str.startswith("rank_agreement/")].metric) == {
        f"rank_agreement/{pair}"
        for pair in ("lerf/morf", "lerf/lerf_road", "lerf/morf_road", "morf/lerf_road", "morf/morf_road")
    } | {"rank_agreement/lerf_road/morf_road"}


def test_maps_are_computed_once_a_batch_and_serve_all_orders_and_fills(cfg, monkeypatch):
    attribute, calls = cpath.attribute, []

    def counting(model, images, attribution, *args, **rest):
        calls.append(attribution.name)
        return attribute(model, images, attribution, *args, **rest)

    monkeypatch.setattr(cpath, "attribute", counting)
    degradation.run(cfg)
    assert calls == 2 * ["neuron_mct", "gradients", "random"]


def test_a_job_leaves_figures_and_says_where_its_time_went(cfg, figures):
    degradation.run(cfg)
    folder = job_folder(cfg)
    names = {path.name for path in (folder / "figures").iterdir()}
    for name in ("degradation", "areas", "degradation_road", "rank_agreement"):
        assert {f"{name}.png", f"{name}.svg"} <= names
    time = json.loads((folder / "manifest.json").read_text())["time"]
    assert 0 < time["share_in_forward_passes_mean"] <= 1
    assert time["seconds_mean_forward"] <= time["seconds_mean"]
    assert len(pd.read_csv(folder / "per_image.csv.gz")) == 6


def test_road_and_orders_may_be_left_out(cfg):
    cfg.experiment.road.images = 0
    cfg.experiment.orders = ["least"]
    cfg.attribution = {"gradients": {}}
    table = degradation.run(cfg)
    assert set(table.metric) == {"lerf_change", "lerf_area"}


def test_published_curves_stand_beside_ours_where_dataset_and_model_match(cfg, figures):
    cfg.dataset.name, cfg.model.name = "cifar10", "resnet8"
    cfg.attribution = {"gradients": {}, "sobel": {}}
    table = degradation.run(cfg)
    paper = table[table.metric == "lerf_change/published"]
    assert set(paper.method) == {"gradients"}
    assert row_of(table, "gradients", "lerf_change/published", 10).value == 0.54
    assert (job_folder(cfg) / "figures" / "published.png").exists()


def test_a_dataset_may_say_under_which_name_it_is_published(cfg):
    OmegaConf.update(cfg, "dataset.published_as", "cifar10", force_add=True)
    cfg.dataset.name, cfg.attribution = "my-files", {"gradients": {}}
    table = degradation.run(cfg)
    assert row_of(table, "gradients", "lerf_change/published", 10).value == 0.54
    assert set(table.dataset) == {"my-files"}


@pytest.mark.parametrize(
    ("setting", "value", "part"),
    [
        ("orders", ["last"], "Did you mean"),
        ("percents", [10, 5], "must ascend"),
        ("percents", [0, 5], "between 0 and 100"),
        ("rank_by", "absolut", "absolute"),
    ],
)
def test_bad_settings_are_refused_before_any_training(configure, tmp_path, setting, value, part):
    cfg = configure(*SETTINGS)
    cfg.experiment[setting] = value
    with pytest.raises(cpath.CpathError, match=part):
        degradation.run(cfg)
    assert not (tmp_path / "artifacts").exists()
