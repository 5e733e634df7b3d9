from __future__ import annotations

import json
import zlib
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

import cpath
from cpath.errors import InputError
from cpath.evaluation import accuracy, altered, rank_pixels, stored_ranks
from cpath.training import train
from experiments import roar, roar_table
from experiments.figures.sweep import sweep_figures
from experiments.framework import devices, retraining, side_by_side, trained
from experiments.framework.aggregate import aggregate
from experiments.framework.job import job_folder
from experiments.framework.retraining import Cell
from experiments.framework.store import ArtifactStore, write_json
from experiments.framework.subject import build_model, load_data, trained_model
from tests.rows import row_of

METHODS = {"neuron_mct": {"sparsity": 80}, "gradients": {}, "random": {"seed": 0}}
TINY = ["dataset._target_=tests.experiments.tiny.digits", "dataset.size=8"]
PERCENTS, SEEDS = [30, 90], [0, 1, 2]


def _fake_accuracy(name: str) -> int:
    """Hits of 36 for a training, by its name: anything, but the same every time."""
    return 5 + zlib.crc32(name.encode()) % 30


@pytest.fixture
def quick(monkeypatch) -> list[str]:
    """Trainings are noted, and have made-up results: for tests of all that surrounds them."""
    names: list[str] = []

    def fake(folder, cfg, data, model, *, name, position=0, keep_model=True):
        names.append(name)
        hits = _fake_accuracy(f"{name}{cfg.seed}")
        write_json(
            folder / "history.json",
            {
                "epochs": [{"epoch": 0.0, "loss": 2.0, "val_loss": 1.0, "val_accuracy": 50.0}],
                "test_hits": [int(k < hits) for k in range(36)],
            },
        )
        if keep_model:
            from safetensors.torch import save_file

            save_file(model.state_dict(), folder / "model.safetensors")

    monkeypatch.setattr(retraining, "train_in", fake)
    monkeypatch.setattr(trained, "train_in", fake)
    return names


@pytest.fixture
def table_cfg(configure):
    cfg = configure("experiment=roar_table", *TINY, "experiment.percents=[30,90]", "experiment.side_by_side=1")
    cfg.attribution = METHODS
    return cfg


def _accuracies(cells: pd.DataFrame, method: str, percent: float, keep: bool) -> np.ndarray:
    part = cells[(cells.attribution == method) & (cells.percent == percent) & (cells.keep == keep)]
    return part.sort_values("seed").test_accuracy.to_numpy()


def test_a_cell_is_what_the_library_gives_on_the_altered_data(configure, tmp_path):
    cfg = configure("experiment=roar", "percent=70", "seed=4", "attribution=gradients", *TINY)
    table = roar.run(cfg)
    data = load_data(cfg)
    explained = trained_model(configure(*TINY), data, ArtifactStore(tmp_path / "artifacts"))  # of seed 0
    stored = stored_ranks(data, tmp_path / "by_hand", 500)
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        images = split.batch(torch.arange(len(split)))
        maps = cpath.attribute(explained, images, "gradients")  # of the classes that it predicts
        ranks = rank_pixels(maps, images)
        stored[name].write(lambda where, ranks=ranks: ranks[where])
    changed = altered(data, stored, 70)
    model = build_model(cfg, data)
    history = train(model, changed, trained_recipe(cfg), tmp_path / "by_hand", seed=4, quiet=True)
    expected = 100 * accuracy(model, changed.test).double().mean().item()
    assert row_of(table, "gradients", "roar_accuracy", 70).value == pytest.approx(expected, abs=1e-9)
    assert row_of(table, "gradients", "val_accuracy", 1).value == pytest.approx(history[0]["val_accuracy"])


def trained_recipe(cfg):
    from hydra.utils import instantiate

    from cpath.training import Recipe

    return Recipe(**instantiate(cfg.dataset.recipe))


def test_the_table_is_the_mean_over_seeds_with_students_interval(table_cfg, quick):
    table_cfg.keep = [False, True]
    table = roar_table.run(table_cfg)
    cells = pd.read_csv(job_folder(table_cfg) / "cells.csv")
    assert len(cells) == len(SEEDS) * (1 + 2 * len(METHODS) * len(PERCENTS))
    for mode, keep in (("roar", False), ("kar", True)):
        for method in METHODS:
            for percent in PERCENTS:
                values = _accuracies(cells, method, percent, keep)
                row = row_of(table, method, f"{mode}_accuracy", percent)
                low, high = stats.t.interval(0.95, 2, values.mean(), stats.sem(values))
                assert (row.value, row.ci_low, row.ci_high) == pytest.approx((values.mean(), low, high))
                assert row.n == 3
                name = f"{Cell(method, percent, keep, 1).name}"
                assert values[1] == pytest.approx(_fake_accuracy(f"{name}1") / 0.36)
    untouched = _accuracies(cells, "untouched", 0, False)
    for method in METHODS:
        assert row_of(table, method, "roar_accuracy", 0).value == pytest.approx(untouched.mean())
    kar = table[table.metric == "kar_accuracy"]
    assert set(kar.x_name) == {"percent_kept"}
    assert set(kar.x.astype(float)) == {30, 90}


def test_areas_differences_and_agreement_follow_from_the_cells(table_cfg, quick):
    table_cfg.keep = [False, True]
    table = roar_table.run(table_cfg)
    cells = pd.read_csv(job_folder(table_cfg) / "cells.csv")
    at = {
        (method, keep): [_accuracies(cells, method, percent, keep) for percent in PERCENTS]
        for method in METHODS
        for keep in (False, True)
    }
    zero = _accuracies(cells, "untouched", 0, False)
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
    interval = stats.t.interval(0.95, 2, difference.mean(), stats.sem(difference))
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx((difference.mean(), *interval))
    assert row.n == 3


def _taus(cells: pd.DataFrame, methods: list[str], percent: float) -> np.ndarray:
    """Between ROAR and KAR, of each seed: from 0 per cent on, where every method has the same accuracy."""
    roar, kar = (
        np.stack([_accuracies(cells, method, percent, keep) for method in methods], 1) for keep in (False, True)
    )
    return np.array([stats.kendalltau(-one, other).statistic for one, other in zip(roar, kar, strict=True)])


def test_agreement_is_the_mean_over_seeds_without_the_controls(table_cfg, quick):
    methods = ["neuron_mct", "gradients", "gbp", "input_mct"]
    table_cfg.keep = [False, True]
    table_cfg.experiment.percents = [90]
    table_cfg.attribution = {method: {} for method in methods} | {"random": {"seed": 0}, "sobel": {}}
    table = roar_table.run(table_cfg)
    cells = pd.read_csv(job_folder(table_cfg) / "cells.csv")
    taus = _taus(cells, methods, 90)
    assert len(set(taus)) > 1, "made-up accuracies that tell seeds apart"
    row = row_of(table, "all", "rank_agreement/roar/kar")
    low, high = stats.t.interval(0.95, 2, taus.mean(), stats.sem(taus))
    expected = taus.mean(), max(low, -1), min(high, 1)
    assert (row.value, row.ci_low, row.ci_high) == pytest.approx(expected)
    assert row.n == 3


def test_one_seed_has_no_interval(table_cfg, quick):
    table_cfg.keep = [False, True]
    table_cfg.experiment.seeds = [0]
    table = roar_table.run(table_cfg)
    rows = table[table.metric.str.contains("difference|agreement|area|roar_accuracy")]
    assert set(rows.n) == {1}
    assert rows[["ci_low", "ci_high"]].isna().all(axis=None)
    assert {"roar_difference/random", "kar_difference/random", "rank_agreement/roar/kar"} <= set(rows.metric)


@pytest.mark.parametrize("seed", [1, 5])
def test_a_seed_that_would_change_nothing_is_refused(configure, tmp_path, seed):
    cfg = configure("experiment=roar_table", f"seed={seed}")
    for function in (roar_table.run, roar_table.check):
        with pytest.raises(InputError, match=r"experiment\.seeds.*experiment\.base_seed"):
            function(cfg)
    assert not (tmp_path / "artifacts").exists()
    cfg.experiment.base_seed = seed
    roar_table.check(cfg)


def _speed(cfg) -> dict[str, float]:
    return json.loads((job_folder(cfg) / "manifest.json").read_text())["speed"]


def test_every_cell_is_trained_once_and_the_untouched_ones_are_models_of_all_experiments(table_cfg, quick):
    roar_table.run(table_cfg)
    base = [name for name in quick if name.startswith("training")]
    assert len(base) == 3  # that of seed 0 is the explained network
    assert len(quick) == 3 + 3 * len(METHODS) * len(PERCENTS)
    speed = _speed(table_cfg)
    assert speed["cells_trained"] == len(quick) - 1  # the explained network was there
    images = len(load_data(table_cfg).training_splits()[0]) * speed["cells_trained"]  # an epoch each
    assert speed["training_images_per_second"] * speed["seconds"] == pytest.approx(images, rel=0.01)
    table_cfg.redo = True
    before = list(quick)
    again = roar_table.run(table_cfg)
    assert quick == before
    assert _speed(table_cfg)["cells_trained"] == 0
    assert row_of(again, "base", "test_accuracy").n == 36


def test_a_sweep_of_single_cells_and_a_table_share_their_artifacts(configure, table_cfg, quick):
    for seed in (0, 1):
        cfg = configure("experiment=roar", "percent=30", f"seed={seed}", *TINY)
        cfg.attribution = {"random": {"seed": "${seed}"}}
        roar.run(cfg)
    folders = list((job_folder(cfg).parents[2] / "artifacts" / "ranks").glob("random-*"))
    assert len(folders) == 1, "maps belong to the explained network: they do not vary with a cell's seed"
    before = len(quick)
    table_cfg.attribution = {"random": {"seed": 0}}
    table_cfg.experiment.percents = [30]
    table_cfg.experiment.seeds = [0, 1]
    roar_table.run(table_cfg)
    assert len(quick) - before == 1  # the untouched one of seed 1


def test_maps_are_of_the_predicted_class_of_every_split_in_batches(table_cfg, quick, monkeypatch):
    attribute, sizes = cpath.attribute, []

    def counting(model, images, attribution, target=None, **rest):
        assert target is None  # the predicted class
        sizes.append(len(images))
        return attribute(model, images, attribution, target, **rest)

    monkeypatch.setattr(cpath, "attribute", counting)
    table_cfg.attribution = {"gradients": {}}
    table_cfg.experiment.batch = 30
    roar_table.run(table_cfg)
    assert sizes == [30, 30, 4, 16, 30, 6]


def test_control_says_whether_the_explained_network_is_like_its_retrainings(table_cfg, quick, caplog):
    table_cfg.attribution = {"random": {"seed": 0}}
    table = roar_table.run(table_cfg)
    base = row_of(table, "base", "test_accuracy").value
    values = _accuracies(pd.read_csv(job_folder(table_cfg) / "cells.csv"), "untouched", 0, False)
    half = stats.t.ppf(0.975, 2) * values.std(ddof=1) * np.sqrt(1 + 1 / 3)
    inside = abs(base - values.mean()) <= half
    assert row_of(table, "base", "within_interval_of_untouched").value == float(inside)
    assert ("control failed" in caplog.text) == (not inside)


def test_published_curves_stand_beside_ours_where_data_and_model_are_the_papers(table_cfg, quick):
    table_cfg.dataset.name = "cifar10"  # in name only
    table_cfg.attribution = {"gradients": {}, "gbp": {}, "random": {"seed": 0}}
    table = roar_table.run(table_cfg)
    paper = table[table.metric == "roar_accuracy/published"]
    assert set(paper.method) == {"gradients", "gbp"}
    assert row_of(table, "gradients", "roar_accuracy/published", 0).value == 84.36
    assert set(paper.n) == {0}
    # Two methods: in each seed their orders agree, or are each other's reverse.
    theirs = {name: np.trapezoid(part.value, part.x.astype(float)) for name, part in paper.groupby("method")}
    cells = pd.read_csv(job_folder(table_cfg) / "cells.csv")
    zero = _accuracies(cells, "untouched", 0, False)
    curves = {name: [zero, *(_accuracies(cells, name, x, False) for x in PERCENTS)] for name in theirs}
    ours = {name: np.trapezoid(curve, [0, *PERCENTS], axis=0) for name, curve in curves.items()}
    same = np.sign(ours["gbp"] - ours["gradients"]) * np.sign(theirs["gbp"] - theirs["gradients"])
    assert row_of(table, "all", "rank_agreement/roar/published").value == pytest.approx(same.mean())


def test_a_job_leaves_its_figures(table_cfg, quick, figures):
    table_cfg.keep = [False, True]
    table_cfg.experiment.seeds = [0, 1]
    roar_table.run(table_cfg)
    names = {path.stem for path in (job_folder(table_cfg) / "figures").glob("*.svg")}
    assert names == {"roar", "areas", "paired", "rank_agreement"}


@pytest.mark.parametrize(
    ("setting", "value", "part"),
    [
        ("experiment.percents", [50, 10], "must ascend"),
        ("experiment.percents", [0, 50], "always there"),
        ("experiment.percents", [50, 101], "between 0 and 100"),
        ("experiment.seeds", [], "different numbers"),
        ("experiment.seeds", [1, 1], "different numbers"),
        ("experiment.rank_by", "absolut", "absolute"),
        ("experiment.side_by_side", 0, "auto or a number"),
        ("experiment.batch", 0, "at least 1"),
        ("keep", "both", "keep must be"),
        ("attribution", {}, "no attribution"),
    ],
)
def test_bad_settings_are_refused_before_any_training(configure, tmp_path, setting, value, part):
    from omegaconf import OmegaConf

    cfg = configure("experiment=roar_table")
    OmegaConf.update(cfg, setting, value, merge=False)
    with pytest.raises(cpath.CpathError, match=part):
        roar_table.run(cfg)
    with pytest.raises(cpath.CpathError, match=part):
        roar_table.check(cfg)
    assert not (tmp_path / "artifacts").exists()


def test_one_cell_has_one_attribution(configure, tmp_path):
    with pytest.raises(InputError, match="one cell has one attribution, not 11"):
        roar.run(configure("experiment=roar"))
    with pytest.raises(InputError, match="between 0 and 100"):
        roar.run(configure("experiment=roar", "attribution=random", "percent=101"))
    with pytest.raises(InputError, match=r"keep must be false .* or true .*, not \[False, True\].*roar_table"):
        roar.run(configure("experiment=roar", "attribution=random", "keep=[false,true]"))
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("keep", ["false", "true"])
def test_untouched_images_are_no_place_of_a_curve(configure, quick, keep):
    table = roar.run(configure("experiment=roar", "attribution=random", "percent=0", f"keep={keep}", *TINY))
    (accuracy,) = table[table.metric.str.endswith("test_accuracy")].itertuples()
    assert (accuracy.method, accuracy.metric, accuracy.x_name, accuracy.x) == ("untouched", "test_accuracy", "", "")
    assert accuracy.value == pytest.approx(_fake_accuracy("training resnet8-digits0") / 0.36)
    assert not table.metric.str.contains("roar|kar").any()
    assert row_of(table, "untouched", "val_accuracy", "").value == 50


def test_a_sweep_of_cells_becomes_a_curve_a_method_with_intervals_over_seeds(configure, quick):
    tables = {}
    for attribution in ("gradients", "random"):
        for percent in (30, 90):
            for seed in (0, 1, 2):
                sweep = (f"attribution={attribution}", f"percent={percent}", f"seed={seed}")
                tables[sweep] = roar.run(configure("experiment=roar", *TINY, *sweep))
    found = aggregate(tables)
    for method in ("gradients", "random"):
        for percent in (30, 90):
            hits = [_fake_accuracy(f"{Cell(method, percent, False, seed).name}{seed}") for seed in (0, 1, 2)]
            row = row_of(found, method, "roar_accuracy", percent)
            low, high = stats.t.interval(0.95, 2, np.mean(hits) / 0.36, stats.sem(hits) / 0.36)
            assert (row.value, row.ci_low, row.ci_high) == pytest.approx((np.mean(hits) / 0.36, low, high))
            assert (row.n, row.over, row.variant, row.seed) == (3, "seeds", "", "0 1 2")
    drawings = {drawing.name: drawing for drawing in sweep_figures(found)}
    panel = drawings["roar-digits-resnet8-percent_removed"].figure.axes[0]
    assert panel.get_ylabel() == "ROAR: test accuracy (%)"
    lines = {line.get_label(): line.get_xdata().tolist() for line in panel.get_lines()}
    assert lines == {"Gradients": [30, 90], "Random": [30, 90]}


def test_retrainings_start_from_scratch_whatever_weights_are_explained(configure):
    cfg = configure("experiment=roar", "checkpoint=mine.pt", "+model.weights=DEFAULT")
    ours = retraining.cell_config(cfg, 3)
    assert (ours.checkpoint, ours.model.weights, ours.seed) == (None, None, 3)
    assert (cfg.checkpoint, cfg.model.weights, cfg.seed) == ("mine.pt", "DEFAULT", 0)


def _gpus(monkeypatch, count: int, number: int | None) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(devices, "sweep_number", lambda: number)
    monkeypatch.setattr(side_by_side, "sweep_number", lambda: number)


def test_jobs_of_a_sweep_take_turns_at_the_gpus(configure, monkeypatch):
    cfg = configure()
    found = []
    for number in range(4):
        _gpus(monkeypatch, 3, number)
        found.append(str(devices.device_of(cfg)))
    assert found == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    _gpus(monkeypatch, 1, 5)
    assert str(devices.device_of(cfg)) == "cuda"
    _gpus(monkeypatch, 3, None)
    assert str(devices.device_of(cfg)) == "cuda"
    assert devices.devices_of(cfg, 5) == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
    cfg.device = "cuda:1"
    assert devices.devices_of(cfg, 2) == ["cuda:1", "cuda:1"]
    cfg.device = "cpu"
    assert devices.devices_of(cfg, 2) == ["cpu", "cpu"]


def test_sweep_number_is_that_of_hydra(monkeypatch):
    from hydra.types import RunMode

    hydra = SimpleNamespace(mode=RunMode.MULTIRUN, job=SimpleNamespace(num=3))
    monkeypatch.setattr(devices.HydraConfig, "initialized", lambda: True)
    monkeypatch.setattr(devices.HydraConfig, "get", lambda: hydra)
    assert devices.sweep_number() == 3
    hydra.mode = RunMode.RUN
    assert devices.sweep_number() is None


def test_a_training_over_several_processes_is_refused_in_a_sweep(configure, monkeypatch, tmp_path):
    cfg = configure("experiment=roar", "attribution=random", "trainer=ddp", "device=cpu")
    _gpus(monkeypatch, 0, 0)
    with pytest.raises(InputError, match="inside a sweep"):
        roar.run(cfg)
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "runs").exists()
    _gpus(monkeypatch, 1, None)
    cfg.device = "auto"
    with pytest.raises(InputError, match="there are 1 GPUs"):
        roar.run(cfg)


def test_how_many_cells_train_side_by_side(configure, monkeypatch):
    cfg = configure("experiment=roar_table")
    monkeypatch.setattr(side_by_side.os, "cpu_count", lambda: 64)
    _gpus(monkeypatch, 2, None)
    assert side_by_side.how_many(cfg) == 16
    _gpus(monkeypatch, 2, 0)
    assert side_by_side.how_many(cfg) == 1
    _gpus(monkeypatch, 0, None)
    monkeypatch.setattr(side_by_side.torch, "get_num_threads", lambda: 6)
    assert side_by_side.how_many(cfg) == 6
    cfg.trainer.processes = 2
    assert side_by_side.how_many(cfg) == 1
    cfg.experiment.side_by_side = 3
    with pytest.raises(InputError, match="trainer=ddp trains one cell"):
        side_by_side.how_many(cfg)
