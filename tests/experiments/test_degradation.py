from __future__ import annotations

import numpy as np
import pytest
import torch

import cpath
from cpath.errors import InputError
from cpath.evaluation import ORDERS, NoisyLinear, degrade
from experiments.degradation import _CRITERIA
from experiments.engine.config import parse
from experiments.engine.job import Job, run
from experiments.engine.measuring import read_per_image
from experiments.engine.provenance import read_manifest
from experiments.metrics import METRICS
from experiments.paper import published
from tests.rows import row_of

SETTINGS = [
    "experiment=degradation",
    "experiment.images=6",
    "experiment.batch=4",
    "percent=[5,10,50]",
    "experiment.road.images=5",
    "experiment.road.percent=[10,50]",
]
ATTRIBUTIONS = {"neuron_mct": {"sparsity": 80}, "gradients": {}, "random": {"seed": 0}}
ORDERED = ("neuron_mct", "gradients", "gbp", "gradcam")


@pytest.fixture
def cfg(configure, trained):
    cfg = configure(*SETTINGS)
    cfg.attribution = ATTRIBUTIONS
    return cfg


def _one_by_one(cfg, method: str, order: str, fill, percent, count: int) -> np.ndarray:
    job = Job(parse(cfg))
    images = job.sample(cfg.experiment.images)
    found = []
    for index in range(count):
        image = images.batch(slice(index, index + 1))
        maps = cpath.attribute(job.model, image, method, **ATTRIBUTIONS[method])
        found.append(degrade(job.model, image, maps, order=order, fill=fill, percent=percent).change[0])
    return torch.stack(found).numpy()


def test_results_are_the_means_of_what_the_library_says_image_by_image(cfg):
    table = run(cfg)
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
    table = run(cfg)
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
    run(cfg)
    assert calls == 2 * ["neuron_mct", "gradients", "random"]


def test_a_job_leaves_figures_and_says_where_its_time_went(cfg, figures):
    run(cfg)
    folder = Job(parse(cfg)).folder
    names = {path.name for path in (folder / "figures").iterdir()}
    for name in ("degradation", "areas", "degradation_road", "rank_agreement"):
        assert {f"{name}.png", f"{name}.svg"} <= names
    time = read_manifest(folder)["time"]
    assert 0 < time["percent_in_forward_passes_mean"] <= 100
    assert 0 < time["seconds_mean_forward"] <= time["seconds_mean"]
    per_image = read_per_image(folder)
    assert set(per_image.method) == set(ATTRIBUTIONS)
    assert per_image.groupby(["method", "metric", "x"]).image.nunique().eq(6).all()


def test_the_time_of_a_stopped_job_counts_too(cfg, monkeypatch):
    attribute, calls = cpath.attribute, []

    def dies_in_the_second_batch(*args, **rest):
        calls.append(args[2].name)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return attribute(*args, **rest)

    monkeypatch.setattr(cpath, "attribute", dies_in_the_second_batch)
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    folder = Job(parse(cfg)).folder
    (first,) = [
        manifest
        for part in folder.glob("parts/measures-*")
        if (manifest := read_manifest(part))["status"] == "finished"
    ]
    run(cfg)
    assert calls[4:] == list(ATTRIBUTIONS), "the first batch was finished"
    spent = read_manifest(folder)["time"]
    assert spent["seconds_maps"] >= round(first["seconds_by_step"]["maps"], 2) > 0


@pytest.mark.parametrize("images", [1, 2, 5])
def test_any_number_of_images_makes_a_table(cfg, images):
    cfg.experiment.images = images
    cfg.attribution = {"gradients": {}, "gbp": {}}
    table = run(cfg)
    curves = table[table.x_name == "percent_removed"]
    assert len(curves) == 2 * 2 * (3 + 2)
    assert (curves.n == images).all()
    assert set(table.metric.str.partition("/")[0]) <= set(METRICS)


def test_shares_with_many_digits_stay_apart(cfg):
    cfg.percent = [33.3333333, 33.3333334, 66.6666667]
    cfg.experiment.road.percent = [33.3333333]
    cfg.experiment.images = 2
    cfg.attribution = {
        name: {"_target_": "cpath.attribution.get", "name": name_of}
        for name, name_of in (("a|b", "gradients"), ("a/b", "random"))
    }
    table = run(cfg)
    rows = table[table.metric == "lerf_change"]
    assert set(rows.method) == {"a|b", "a/b"}
    assert sorted(rows.x.astype(float).unique()) == [33.3333333, 33.3333334, 66.6666667]
    assert len(rows) == 2 * 3


def test_road_and_orders_may_be_left_out(cfg):
    cfg.experiment.road.images = 0
    cfg.experiment.orders = ["least"]
    cfg.attribution = {"gradients": {}}
    table = run(cfg)
    assert set(table.metric) == {"lerf_change", "lerf_area"}


def _published(cfg) -> dict[str, set[float]]:
    job = Job(parse(cfg))
    rows = job.config.experiment._published(job)
    return {row.method: {other.x for other in rows if other.method == row.method} for row in rows}


def test_published_curves_stand_beside_ours_where_dataset_and_network_match(cfg, figures, monkeypatch):
    narrow = {"_target_": "cpath.models.resnet8_narrow", "width": 4}
    monkeypatch.setitem(published._NETWORKS, "resnet8", narrow)  # as if the paper were about this one
    cfg.dataset.name = "cifar10"
    cfg.attribution = {"gradients": {}, "sobel": {}}
    table = run(cfg)
    paper = table[table.metric == "lerf_change/published"]
    assert set(paper.method) == {"gradients"}
    assert row_of(table, "gradients", "lerf_change/published", 10).value == 0.54
    assert (Job(parse(cfg)).folder / "figures" / "published.png").exists()


def test_published_curves_are_of_the_released_network_with_the_mean_colour_alone(configure):
    cifar = ["experiment=degradation", "dataset=cifar10"]
    at = {*range(1, 11), *range(20, 100, 10)}
    found = _published(configure(*cifar, "model=resnet8", small=False))
    assert found.pop("neuron_intgrad_star") == set(range(1, 11))
    assert found == dict.fromkeys(
        ("gradients", "gbp", "gradcam", "input_mct", "input_intgrad", "neuron_mct", "neuron_intgrad"), at
    )
    for other in (
        ["model=resnet8_narrow"],
        ["model=resnet8_narrow", "model.name=resnet8"],
        ["model=resnet8", "model.width=16"],
        ["model=resnet8", "experiment.fill=1"],
        ["model=resnet8", "dataset.name=mine"],
    ):
        assert _published(configure(*cifar, *other, small=False)) == {}, other
    renamed = configure(*cifar, "model=resnet8", "model.name=mine", small=False)
    assert "gradcam" in _published(renamed), "the network counts, not its name"


def test_a_dataset_may_say_under_which_name_it_is_published(configure):
    files = ["dataset=cifar10_folder", "dataset.root=x", "model=resnet8"]
    cfg = configure("experiment=degradation", *files, small=False)
    assert cfg.dataset.name == "cifar10-files"
    assert "gradcam" in _published(cfg)
    cfg.dataset.published_as = None
    assert _published(cfg) == {}


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("experiment.orders=[last]", r"orders\[0\] must be 'least' or 'most'; got 'last'"),
        ("experiment.orders=[least,least]", "must be different values"),
        ("experiment.orders=[]", "at least 1 item"),
        ("percent=[10,5]", "must ascend"),
        ("percent=[0,5]", "greater than 0"),
        ("percent=[5,100]", "less than 100"),
        ("experiment.road.percent=[5,5]", "road.percent .*must ascend"),
        ("experiment.road.noise=-1", "noise must be greater than or equal to 0"),
        ("experiment.rank_by=absolut", "'absolute' or 'signed'"),
        ("experiment.fill=nan", "must be finite"),
        ("+experiment.percents=[5]", "called 'percent' now"),
        ("+experiment.road.percents=[5]", "called 'experiment.road.percent' now"),
    ],
)
def test_bad_settings_are_refused_before_any_training(configure, tmp_path, override, part):
    with pytest.raises(InputError, match=part):
        run(configure(*SETTINGS, override))
    assert not (tmp_path / "artifacts").exists()


def test_every_order_of_the_library_has_a_name():
    assert set(_CRITERIA) == set(ORDERS)
