from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from scipy import stats

from cpath.errors import InputError
from experiments.engine.job import run
from experiments.engine.metric_entry import base_name
from experiments.paper import published
from experiments.paper.claims import CLAIMS
from experiments.paper.verdicts import read_settings, verdict_on
from experiments.roar.cells import Cell
from experiments.roar.table import RoarTable
from tests.experiments.roar.shared import (
    METHODS,
    PERCENTS,
    SEEDS,
    TINY,
    accuracies,
    cells_of,
    job_of,
    made_up_hits,
    notes_of,
)
from tests.rows import row_of


def test_the_table_is_the_mean_over_seeds_with_students_interval(table_cfg, quick):
    table_cfg.keep = [False, True]
    table = run(table_cfg)
    cells = cells_of(table_cfg)
    assert len(cells) == len(SEEDS) * (1 + 2 * len(METHODS) * len(PERCENTS))
    for mode, keep in (("roar", False), ("kar", True)):
        for method in METHODS:
            for percent in PERCENTS:
                values = accuracies(cells, method, percent, keep)
                row = row_of(table, method, f"{mode}_accuracy", percent)
                low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
                ends = max(low, 0), min(high, 100)  # of a share
                assert (row.value, row.ci_low, row.ci_high) == pytest.approx((values.mean(), *ends))
                assert row.n == 3
                name = Cell(method, percent, keep, 1).label
                assert values[1] == pytest.approx(made_up_hits(f"{name}1") / 0.36)
    untouched = accuracies(cells, "untouched", 0, False)
    assert row_of(table, "untouched", "untouched_accuracy").value == pytest.approx(untouched.mean())
    for method in METHODS:
        assert row_of(table, method, "roar_accuracy", 0).value == pytest.approx(untouched.mean())
    kar = table[table.metric == "kar_accuracy"]
    assert set(kar.x_name) == {"percent_kept"}
    assert set(kar.x.astype(float)) == {30, 90}


def test_areas_differences_and_agreement_follow_from_the_cells(table_cfg, quick):
    table_cfg.keep = [False, True]
    table = run(table_cfg)
    cells = cells_of(table_cfg)
    at = {
        (method, keep): [accuracies(cells, method, percent, keep) for percent in PERCENTS]
        for method in METHODS
        for keep in (False, True)
    }
    zero = accuracies(cells, "untouched", 0, False)
    areas = {}
    for method in METHODS:
        first, last = at[method, False]
        areas[method, "roar"] = (30 * (zero + first) / 2 + 60 * (first + last) / 2) / 90
        areas[method, "kar"] = (at[method, True][0] + at[method, True][1]) / 2
        for mode in ("roar", "kar"):
            assert row_of(table, method, f"{mode}_area", 90).value == pytest.approx(areas[method, mode].mean())
    difference = np.mean(at["neuron_mct", False], 0) - np.mean(at["random", False], 0)
    assert difference.shape == (3,), "shares are no repetitions"
    row = row_of(table, "neuron_mct", "roar_difference/random")
    low, high = stats.t.interval(0.95, 2, difference.mean(), stats.sem(difference))
    ends = max(low, -100), min(high, 100)  # of a difference of shares
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx((difference.mean(), *ends))
    assert row.n == 3


def _taus(cells: pd.DataFrame, methods: list[str], percent: float) -> np.ndarray:
    """Between ROAR and KAR, of each seed: from 0 per cent on, where every method has the same accuracy."""
    roar, kar = (
        np.stack([accuracies(cells, method, percent, keep) for method in methods], 1) for keep in (False, True)
    )
    return np.array([stats.kendalltau(-one, other).statistic for one, other in zip(roar, kar, strict=True)])


def test_agreement_is_the_mean_over_seeds_without_the_controls(table_cfg, quick):
    methods = ["neuron_mct", "gradients", "gbp", "input_mct"]
    table_cfg.keep = [False, True]
    table_cfg.percent = [90]
    table_cfg.attribution = {method: {} for method in methods} | {"random": {"seed": 0}, "sobel": {}}
    table = run(table_cfg)
    cells = cells_of(table_cfg)
    taus = _taus(cells, methods, 90)
    assert len(set(taus)) > 1, "made-up accuracies that tell seeds apart"
    row = row_of(table, "all", "roar_rank_agreement/roar/kar")
    low, high = stats.t.interval(0.95, 2, taus.mean(), stats.sem(taus))
    expected = taus.mean(), max(low, -1), min(high, 1)
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx(expected)
    assert row.n == 3


def test_one_seed_has_no_interval(table_cfg, quick):
    table_cfg.keep = [False, True]
    table_cfg.experiment.seeds = [0]
    table = run(table_cfg)
    rows = table[table.metric.str.contains("difference|agreement|area|roar_accuracy")]
    assert set(rows.n) == {1}
    assert rows[["ci_low", "ci_high"]].isna().all(axis=None)
    assert {"roar_difference/random", "kar_difference/random", "roar_rank_agreement/roar/kar"} <= set(rows.metric)


@pytest.mark.parametrize("seed", [1, 5])
def test_a_seed_that_would_change_nothing_is_refused(configure, tmp_path, seed):
    cfg = configure("experiment=roar_table", f"seed={seed}")
    with pytest.raises(InputError, match=r"experiment\.seeds.*experiment\.base_seed"):
        run(cfg)
    assert not (tmp_path / "artifacts").exists()
    cfg.experiment.base_seed = seed
    job_of(cfg).check()


def test_every_cell_is_trained_once_and_the_untouched_ones_are_models_of_all_experiments(table_cfg, quick):
    run(table_cfg)
    base = [name for name in quick if name.startswith("training")]
    assert len(base) == 3  # that of seed 0 is the explained network
    assert len(quick) == 3 + 3 * len(METHODS) * len(PERCENTS)
    speed = notes_of(table_cfg)["speed"]
    assert speed["cells_trained"] == len(quick) - 1  # the explained network was there
    images = len(job_of(table_cfg).data.training_splits()[0]) * speed["cells_trained"]  # an epoch each
    assert speed["training_images_per_second"] * speed["seconds"] == pytest.approx(images, rel=0.01)
    table_cfg.redo = True
    before = list(quick)
    again = run(table_cfg)
    assert quick == before
    assert notes_of(table_cfg)["speed"]["cells_trained"] == 0
    assert row_of(again, "base", "test_accuracy").n == 36


def test_control_says_whether_the_explained_network_is_like_its_retrainings(table_cfg, quick, caplog):
    table_cfg.attribution = {"random": {"seed": 0}}
    table = run(table_cfg)
    base = row_of(table, "base", "test_accuracy").value
    values = accuracies(cells_of(table_cfg), "untouched", 0, False)
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) * np.sqrt(1 + 1 / 3)
    inside = abs(base - values.mean()) <= half
    assert row_of(table, "base", "within_interval_of_untouched").value == float(inside)
    assert ("control failed" in caplog.text) == (not inside)


@pytest.fixture
def paper_cfg(configure, monkeypatch):
    """The paper's schedule on a few digits, as if the paper were about those and a narrow network."""
    narrow = {"_target_": "cpath.models.resnet8_narrow", "width": 4}
    monkeypatch.setitem(published._NETWORKS, "resnet8", narrow)
    settings = [*TINY, "percent=[30,90]", "experiment.side_by_side=1", "model.width=4", "dataset.name=cifar10"]
    return configure("experiment=roar_table", *settings, "recipe=cifar10", small=False)


def test_published_curves_stand_beside_ours_where_data_network_and_schedule_are_the_papers(paper_cfg, quick):
    table_cfg = paper_cfg
    table_cfg.attribution = {"gradients": {}, "gbp": {}, "random": {"seed": 0}}
    table = run(table_cfg)
    paper = table[table.metric == "roar_accuracy/published"]
    assert set(paper.method) == {"gradients", "gbp"}
    assert row_of(table, "gradients", "roar_accuracy/published", 0).value == 84.36
    assert set(paper.n) == {0}
    # Two methods: in each seed their orders agree, or are each other's reverse.
    theirs = {name: np.trapezoid(part.value, part.x.astype(float)) for name, part in paper.groupby("method")}
    cells = cells_of(table_cfg)
    zero = accuracies(cells, "untouched", 0, False)
    curves = {name: [zero, *(accuracies(cells, name, x, False) for x in PERCENTS)] for name in theirs}
    ours = {name: np.trapezoid(curve, [0, *PERCENTS], axis=0) for name, curve in curves.items()}
    same = np.sign(ours["gbp"] - ours["gradients"]) * np.sign(theirs["gbp"] - theirs["gradients"])
    assert row_of(table, "all", "roar_rank_agreement/roar/published").value == pytest.approx(same.mean())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("recipe.epochs", 12),
        ("recipe.optimizer.lr", 0.01),
        ("experiment.fill", 1.0),
        ("model.width", 8),
        ("dataset.name", "mine"),
        ("dataset.per_class", 50),
    ],
)
def test_published_curves_are_not_laid_over_another_experiment(paper_cfg, setting, value):
    made = job_of(paper_cfg)
    assert len(made.config.experiment._published(made)) == 48
    OmegaConf.update(paper_cfg, setting, value, force_add=True)
    made = job_of(paper_cfg)
    assert made.config.experiment._published(made).empty


def test_a_job_leaves_its_figures(table_cfg, quick, figures):
    table_cfg.keep = [False, True]
    table_cfg.experiment.seeds = [0, 1]
    run(table_cfg)
    names = {path.stem for path in (job_of(table_cfg).folder / "figures").glob("*.svg")}
    assert names == {"roar", "areas", "paired", "rank_agreement"}


@pytest.mark.parametrize(
    ("setting", "value", "part"),
    [
        ("percent", [50, 10], r"experiment\.percent must ascend; got \[50, 10\]"),
        ("percent", [50, 50], r"experiment\.percent must ascend"),
        ("percent", [0, 50], r"experiment\.percent\[0\] must be greater than 0"),
        ("percent", [50, 101], r"experiment\.percent\[1\] must be less than or equal to 100"),
        ("percent", [], r"experiment\.percent must have at least 1 item"),
        ("percent", "half", r"experiment\.percent\[0\] must be a valid number"),
        ("experiment.seeds", [], r"experiment\.seeds must have at least 1 item"),
        ("experiment.seeds", [1, 1], r"experiment\.seeds must be different values"),
        ("experiment.seeds", [0, -1], r"experiment\.seeds\[1\] must be greater than or equal to 0"),
        ("experiment.seeds", [0.5], r"experiment\.seeds\[0\] must be a valid integer"),
        ("experiment.rank_by", "absolut", r"experiment\.rank_by must be 'absolute' or 'signed'; got 'absolut'"),
        ("experiment.side_by_side", 0, r"experiment\.side_by_side must be greater than or equal to 1 or .*'auto'"),
        ("experiment.batch", 0, r"experiment\.batch must be greater than or equal to 1"),
        ("experiment.fill", float("nan"), r"experiment\.fill must be finite"),
        ("keep", "both", r"experiment\.keep\[0\] must be a valid boolean; got 'both'"),
        ("keep", [True, True], r"experiment\.keep must be different values"),
        ("attribution", {}, "no attribution is named"),
        ("dtype", "float64", r"dtype=float64 is for the explained network alone.*trainer\.precision"),
        ("dtype", "half", "dtype must be 'float32' or 'float64'"),
    ],
)
def test_bad_settings_are_refused_before_any_training(configure, tmp_path, setting, value, part):
    cfg = configure("experiment=roar_table")
    OmegaConf.update(cfg, setting, value, merge=False)
    with pytest.raises(InputError, match=part):
        run(cfg)
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "runs").exists()


def test_a_single_value_stands_for_a_list_of_one(table_cfg):
    for setting in ("percent", "keep"):
        table_cfg[setting] = {"percent": 30, "keep": True}[setting]
    table_cfg.experiment.seeds = 4
    experiment = job_of(table_cfg).config.experiment
    assert (experiment.percent, experiment.keep, experiment.seeds) == ([30.0], [True], [4])


def test_shares_count_with_all_of_their_digits(table_cfg, quick):
    percent = [33.33333331, 33.33333332, 66.6666667]  # the first two share six digits
    table_cfg.percent, table_cfg.keep = percent, [False, True]
    table_cfg.attribution = {"random": {"seed": 0}}
    table = run(table_cfg)
    for metric, places in (("roar_accuracy", [0.0, *percent]), ("kar_accuracy", percent)):
        rows = table[table.metric == metric]
        assert rows.x.astype(float).tolist() == places
        assert rows.n.tolist() == [3] * len(places)
    assert len(quick) == 3 + 3 * 2 * 3, "each share is a cell of its own"
    assert row_of(table, "random", "roar_area").x == "66.6666667"


def test_every_number_has_an_entry_and_lies_in_its_range(table_cfg, quick):
    table_cfg.keep = [False, True]
    table_cfg.dataset.name = "cifar10"  # in name only, so that the paper's numbers are there
    table_cfg.attribution = {"gradients": {}, "gbp": {}, "random": {"seed": 0}}
    table = run(table_cfg)
    entries = {metric.name: metric for metric in RoarTable.metrics}
    names = table.metric.map(base_name)
    assert set(names) == set(entries), "every entry is of use, and none is missing"
    for name, value in zip(names, table.value, strict=True):
        low, high = entries[name].range
        assert low <= value <= high, name
    over = {name: set(table[names == name].n) - {0} for name in entries}
    for name, metric in entries.items():
        assert over[name] == ({3} if metric.over == "seeds" else {36}), name


@pytest.mark.parametrize(
    ("keep", "heading"),
    [
        ([False], "ROAR: retraining without the relevant pixels"),
        ([True], "KAR: retraining on the relevant pixels alone"),
        ([False, True], "ROAR and KAR: retraining without the relevant pixels, and on them alone"),
    ],
)
def test_the_heading_says_what_was_removed(table_cfg, quick, keep, heading):
    table_cfg.keep, table_cfg.attribution = keep, {"random": {"seed": 0}}
    table = run(table_cfg)
    assert job_of(table_cfg).config.experiment.heading(table) == heading


@pytest.mark.parametrize(("images", "batch"), [(1, 4), (2, 4), (5, 4)])
def test_any_number_of_test_images_will_do(table_cfg, quick, images, batch):
    OmegaConf.update(table_cfg, "dataset.test", images, force_add=True)
    table_cfg.experiment.batch = batch
    table_cfg.attribution = {"gradients": {}, "random": {"seed": 0}}
    table = run(table_cfg)
    assert row_of(table, "base", "test_accuracy").n == images
    assert row_of(table, "gradients", "roar_accuracy", 90).n == 3


def test_several_explained_networks_are_crossed_with_the_seeds(table_cfg, quick, tmp_path):
    table_cfg.keep = [False, True]
    alone = run(table_cfg)
    before = list(quick)
    table_cfg.experiment.base_seed = [0, 7]
    table = run(table_cfg)
    cells = cells_of(table_cfg)
    assert len(quick) - len(before) == 1 + 2 * 3 * len(METHODS) * len(PERCENTS)  # those of 0 are there
    each = [cells[cells.base_seed == seed] for seed in (0, 7)]
    table_cfg.experiment.base_seed = 0
    pd.testing.assert_frame_equal(each[0], cells_of(table_cfg))
    table_cfg.experiment.base_seed = [0, 7]
    values = np.stack([accuracies(part, "neuron_mct", 30, False) for part in each])
    row, one = (row_of(found, "neuron_mct", "roar_accuracy", 30) for found in (table, alone))
    parts = np.array([values.mean(1).var(ddof=1) / 2, values.mean(0).var(ddof=1) / 3])
    freedom = parts.sum() ** 2 / (parts**2 / [1, 2]).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum())
    expected = values.mean(), values.mean() - half, values.mean() + half
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx(expected)
    assert (row.n, one.n) == (6, 3)
    untouched, zero = (row_of(found, "neuron_mct", "roar_accuracy", 0) for found in (table, alone))
    assert (untouched.value, untouched.ci_low, untouched.n) == pytest.approx((zero.value, zero.ci_low, 3))

    difference = np.stack(
        [np.mean([accuracies(part, name, x, False) for x in PERCENTS], 0) for part in each for name in METHODS]
    ).reshape(2, 3, 3)
    row = row_of(table, "neuron_mct", "roar_difference/random")
    assert row.value == pytest.approx((difference[:, 0] - difference[:, 2]).mean())
    assert row.n == 6
    networks = table[(table.method == "base") & (table.metric == "test_accuracy")]
    assert networks.x_name.tolist() == ["base_seed"] * 2
    assert networks.x.astype(float).tolist() == [0, 7]
    assert row_of(table, "all", "roar_rank_agreement/roar/kar").n <= 6

    (results,) = read_settings([job_of(table_cfg).folder]).values()
    (claim,) = [one for one in CLAIMS if one.place == "ROAR"]
    decided = verdict_on(claim, results).comparisons
    assert all("n = 6 retrainings (2 explained networks × 3 seeds)" in one.text for one in decided)
    assert f"difference {row.value:.3g} (" in decided[1].text


@pytest.mark.parametrize(("setting", "value"), [("checkpoint", "mine.pt"), ("model.weights", "DEFAULT")])
def test_several_networks_cannot_be_explained_where_one_is_given(table_cfg, tmp_path, setting, value):
    table_cfg.experiment.base_seed = [0, 1]
    OmegaConf.update(table_cfg, setting, value, force_add=True)
    with pytest.raises(InputError, match=r"base_seed=\[0, 1\] trains 2 networks to explain, but the weights"):
        run(table_cfg)
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("seeds", [[0, 0], [3], []])
def test_seeds_of_networks_are_one_or_several_different_ones(configure, seeds):
    cfg = configure("experiment=roar_table")
    cfg.experiment.base_seed = seeds
    with pytest.raises(InputError, match=r"base_seed must be"):
        job_of(cfg).check()
