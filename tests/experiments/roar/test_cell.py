from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scipy import stats

import cpath
from cpath.errors import InputError
from cpath.evaluation import accuracy, altered, parts_of, rank_pixels, stored_ranks
from cpath.training import Recipe, train
from experiments.engine.aggregate import aggregate
from experiments.engine.job import run
from experiments.engine.metric_entry import base_name
from experiments.engine.network import build_model
from experiments.engine.training import training_key
from experiments.figures.sweep import sweep_figures
from experiments.metrics import METRICS
from experiments.roar.cell import RoarCell
from experiments.roar.cells import Cell, Retrainings
from tests.experiments.roar.shared import TINY, job_of, made_up_hits
from tests.rows import row_of


def test_a_cell_is_what_the_library_gives_on_the_altered_data(configure, job, tmp_path):
    cfg = configure("experiment=roar", "percent=70", "seed=4", "attribution=gradients", *TINY)
    table = run(cfg)
    ours = job_of(cfg)
    explained = job(*TINY).model  # of seed 0
    stored = stored_ranks(ours.data, tmp_path / "by_hand", 500)
    for name, split in parts_of(ours.data).items():
        images = split.batch(torch.arange(len(split)))
        maps = cpath.attribute(explained, images, "gradients")  # of the classes that it predicts
        stored[name].write(0, rank_pixels(maps, images))
    changed = altered(ours.data, stored, 70)
    model = build_model(ours.config, ours.data)
    recipe = Recipe(**instantiate(cfg.recipe))
    history = train(model, changed, recipe, tmp_path / "by_hand", seed=4, quiet=True)
    expected = 100 * accuracy(model, changed.test).double().mean().item()
    assert row_of(table, "gradients", "roar_accuracy", 70).value == pytest.approx(expected, abs=1e-9)
    assert row_of(table, "gradients", "val_accuracy", 1).value == pytest.approx(history[0]["val_accuracy"])


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ([], "one cell has one attribution, not 11"),
        (["attribution=random", "percent=101"], r"experiment\.percent must be less than or equal to 100; got 101"),
        (["attribution=random", "percent=-1"], r"experiment\.percent must be greater than or equal to 0; got -1"),
        (["attribution=random", "percent=[30,50]"], r"experiment\.percent must be a valid number; got \[30, 50\]"),
        (
            ["attribution=random", "keep=[false,true]"],
            r"experiment\.keep must be false .* or true .*-m keep=false,true.*roar_table.*; got \[False, True\]",
        ),
    ],
)
def test_what_one_cell_cannot_be_is_refused_before_any_training(configure, tmp_path, overrides, part):
    with pytest.raises(InputError, match=part):
        run(configure("experiment=roar", *overrides))
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("keep", ["false", "true"])
def test_untouched_images_are_no_place_of_a_curve(configure, quick, keep):
    table = run(configure("experiment=roar", "percent=0", f"keep={keep}", *TINY))  # whatever attributions there are
    row = row_of(table, "untouched", "untouched_accuracy")
    assert (row.x_name, row.x) == ("", "")
    assert row.value == pytest.approx(made_up_hits("training resnet8_narrow-digits0") / 0.36)
    assert not table.metric.str.contains("roar|kar").any()
    assert row_of(table, "untouched", "val_accuracy", "").value == 50


@pytest.mark.parametrize(
    ("keep", "mode", "x_name"), [(False, "roar", "percent_removed"), (True, "kar", "percent_kept")]
)
def test_every_number_of_a_cell_has_an_entry(configure, quick, keep, mode, x_name):
    table = run(configure("experiment=roar", "attribution=random", "percent=100", f"keep={keep}", *TINY))
    found = table[table.x_name != "epoch"]
    assert set(found.metric) == {f"{mode}_accuracy", f"{mode}_val_accuracy"}
    assert set(found.x_name) == {x_name}
    assert set(found.x.astype(float)) == {100.0}
    names = {metric.name for metric in RoarCell.metrics}
    assert {base_name(metric) for metric in found.metric} <= names <= set(METRICS)


def test_a_sweep_of_cells_becomes_a_curve_a_method_with_intervals_over_seeds(configure, quick):
    tables = {}
    for attribution in ("gradients", "random"):
        for percent in (30, 90):
            for seed in (0, 1, 2):
                sweep = (f"attribution={attribution}", f"percent={percent}", f"seed={seed}")
                tables[sweep] = run(configure("experiment=roar", *TINY, *sweep))
    found = aggregate(tables, METRICS)
    for method in ("gradients", "random"):
        for percent in (30, 90):
            hits = [made_up_hits(f"{Cell(method, percent, False, seed).label}{seed}") for seed in (0, 1, 2)]
            row = row_of(found, method, "roar_accuracy", percent)
            low, high = stats.t.interval(0.95, 2, np.mean(hits) / 0.36, stats.sem(hits) / 0.36)
            assert (row.value, row.ci_low, row.ci_high) == pytest.approx(
                (np.mean(hits) / 0.36, max(low, 0), min(high, 100))
            )
            assert (row.n, row.over, row.variant, row.seed) == (3, "seeds", "", "0 1 2")
    drawings = {drawing.name: drawing for drawing in sweep_figures(found, METRICS)}
    panel = drawings["roar-digits-resnet8_narrow-percent_removed"].figure.axes[0]
    assert panel.get_ylabel() == "ROAR: test accuracy (%)"
    lines = {line.get_label(): line.get_xdata().tolist() for line in panel.get_lines()}
    assert lines == {"Gradients": [30, 90], "Random": [30, 90]}


def test_a_sweep_of_single_cells_and_a_table_share_their_work(configure, table_cfg, quick):
    for seed in (0, 1):
        cfg = configure("experiment=roar", "percent=30", f"seed={seed}", *TINY)
        cfg.attribution = {"random": {"seed": "${seed}"}}
        run(cfg)
    ranks = job_of(cfg).cache.root / "ranks"
    assert len(list(ranks.glob("random-*"))) == 3, (
        "one for each split: maps belong to the explained network, and do not vary with a cell's seed"
    )
    before = len(quick)
    table_cfg.attribution = {"random": {"seed": 0}}
    table_cfg.percent = [30]
    table_cfg.experiment.seeds = [0, 1]
    run(table_cfg)
    assert len(quick) - before == 1  # the untouched one of seed 1
    assert len(list(ranks.glob("random-*"))) == 3
    before = list(quick)
    again = configure("experiment=roar", "percent=0", "seed=1", *TINY)
    run(again)
    assert quick == before, "a cell of the table is found again"


def _retrainings(cfg) -> Retrainings:
    job = job_of(cfg)
    return Retrainings(job.config, job.data, job.cache, {}, 0.0)


def test_retrainings_start_from_scratch_whatever_weights_are_explained(configure):
    cfg = configure("experiment=roar", "checkpoint=mine.pt", "+model.weights=DEFAULT", *TINY)
    ours = _retrainings(cfg).config_of(3)
    assert (ours.checkpoint, ours.model["weights"], ours.seed) == (None, None, 3)
    assert (cfg.checkpoint, cfg.model.weights, cfg.seed) == ("mine.pt", "DEFAULT", 0)


def test_a_retraining_of_untouched_images_is_the_training_of_any_other_experiment(configure):
    cfg = configure(*TINY, "experiment=roar", "model=squeezenet1_0", "seed=2", small=False)
    assert cfg.model.weights == "auto"
    retrainings = _retrainings(cfg)
    train = job_of(configure(*TINY, "experiment=train", "model=squeezenet1_0", "seed=2", small=False))
    assert retrainings.key(Cell.untouched(2)) == training_key(train.config, train.data)
    assert retrainings.key(Cell.untouched(3)) != training_key(train.config, train.data)
    # Of ImageNet the pretrained weights are meant, and a retraining is from scratch.
    data = replace(train.data, name="imagenet")
    assert replace(retrainings, data=data).key(Cell.untouched(2)) != training_key(train.config, data)


def test_removed_pixels_can_be_filled_in_from_those_that_are_left(table_cfg, quick):
    job = job_of(table_cfg)
    ranks = job.config.experiment.rank(job)
    cell = Cell("random", 30.0, False, 0)
    filled, grey = (
        Retrainings(job.config, job.data, job.cache, ranks, fill)._images(cell) for fill in ("noisy_linear", 0.0)
    )
    first = torch.arange(4)
    removed = (grey.test.batch(first) == 0) & (job.data.test.batch(first) != 0)
    expected = cpath.evaluation.NoisyLinear()(job.data.test.batch(first), removed.any(1))
    torch.testing.assert_close(filled.test.batch(first)[removed], expected[removed])


@pytest.mark.parametrize("experiment", ["roar", "roar_table"])
def test_nothing_can_be_filled_in_where_every_pixel_is_gone(configure, experiment):
    cfg = configure(f"experiment={experiment}", "experiment.fill=noisy_linear", "percent=100", "attribution=random")
    with pytest.raises(InputError, match=r"at percent=100 none is"):
        job_of(cfg).check()
    cfg.keep = True
    job_of(cfg).check()


def test_a_cell_depends_on_all_that_determines_it(table_cfg, quick):
    run(table_cfg)
    job = job_of(table_cfg)
    experiment = job.config.experiment
    retrainings = experiment.retrainings(job, experiment.rank(job))
    cell = Cell("random", 30.0, False, 0)
    others = [
        *(replace(cell, **change) for change in ({"percent": 30.000001}, {"keep": True}, {"seed": 1})),
        replace(cell, attribution="gradients"),
    ]
    keys = [retrainings.key(other) for other in (cell, *others)]
    keys.append(replace(retrainings, fill=1.0).key(cell))
    keys.append(replace(retrainings, fill="noisy_linear").key(cell))
    assert len({key.name.rpartition("-")[2] for key in keys}) == 7
    assert retrainings.is_trained(cell)
    assert not retrainings.is_trained(others[0])
