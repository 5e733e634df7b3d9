from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

import cpath
from cpath.evaluation import sanity_check
from cpath.evaluation.similarity import Comparison
from cpath.storage import read_tensors
from experiments.engine.config import parse
from experiments.engine.images import Images
from experiments.engine.job import Job, redraw, run
from experiments.engine.measuring import read_per_image
from experiments.engine.network import fingerprint
from experiments.engine.table import Measure
from experiments.metrics import METRICS
from experiments.paper import published
from experiments.sanity_checks import _left_out, _means
from tests.rows import row_of

SETTINGS = [
    "experiment=sanity_checks",
    "experiment.images=5",
    "experiment.batch=3",
    "experiment.draws=2",
    "experiment.blocks=[fc,stage3,conv]",
    "experiment.measures=[spearman,ssim]",
    "experiment.strip.images=2",
    "experiment.strip.blocks=2",
]


@pytest.fixture
def cfg(configure, trained):
    cfg = configure(*SETTINGS)
    cfg.attribution = {"gradients": {}, "gradcam": {}, "sobel": {}}
    return cfg


def _subject(cfg):
    job = Job(parse(cfg))
    return job.model, job.sample(cfg.experiment.images)


def test_results_are_the_means_of_what_the_library_says_image_by_image(cfg):
    table = run(cfg)
    model, images = _subject(cfg)
    found = [
        sanity_check(
            model,
            images.batch(slice(index, index + 1)),
            ["gradients", "gradcam"],
            blocks=["fc", "stage3", "conv"],
            draws=2,
            measures=["spearman", "ssim"],
        )
        for index in range(5)
    ]
    for method in ("gradients", "gradcam"):
        for measure in ("spearman", "ssim"):
            values = np.concatenate([one.similarity[method][measure] for one in found], 2)  # draws, blocks, images
            for place, block in enumerate(("fc", "stage3", "conv")):
                row = row_of(table, method, measure, block)
                assert row.value == pytest.approx(np.nanmean(np.nanmean(values[:, place], 0)), abs=1e-3)
                assert row.ci_low <= row.value <= row.ci_high
            spread = np.nanmean(values[:, 1], 1).std(ddof=1)
            assert row_of(table, method, f"{measure}/sd_of_draws", "stage3").value == pytest.approx(
                spread, abs=1e-3
            )
            random = np.concatenate([one.baseline[method][measure] for one in found], 1).mean()
            assert row_of(table, method, f"{measure}_random_map", "").value == pytest.approx(random, abs=1e-3)
    assert row_of(table, "sobel", "spearman", "conv").value == 1  # edges know nothing of the weights
    assert set(table.metric.str.partition("/")[0]) <= set(METRICS)
    # Numbers of single images are means over the draws.
    per_image = read_per_image(Job(parse(cfg)).folder)
    of_images = per_image[
        (per_image.method == "gradients") & (per_image.metric == "ssim") & (per_image.x == "conv")
    ]
    expected = [np.nanmean(one.similarity["gradients"]["ssim"][:, 2, 0]) for one in found]
    assert of_images.value.tolist() == pytest.approx(expected, abs=1e-3)


def test_intervals_are_over_images_and_draws_and_every_draw_is_kept(cfg):
    table = run(cfg)
    per_image = read_per_image(Job(parse(cfg)).folder)
    rows = per_image[(per_image.method == "gradients") & (per_image.x == "stage3")]
    draws = [rows[rows.metric == f"spearman/draw_{number}"].value.to_numpy() for number in (1, 2)]
    assert rows[rows.metric == "spearman"].value.to_numpy() == pytest.approx(np.mean(draws, 0))
    of_draws, of_images = np.mean(draws, 1), np.mean(draws, 0)
    parts = np.array([of_draws.var(ddof=1) / 2, of_images.var(ddof=1) / 5])
    freedom = parts.sum() ** 2 / (parts**2 / [1, 4]).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum())
    row = row_of(table, "gradients", "spearman", "stage3")
    assert (row.ci_low, row.ci_high) == pytest.approx((row.value - half, row.value + half), rel=1e-6)
    assert row.n == 5


def test_maps_without_a_value_are_counted():
    measure = Measure("gbp", "ssim", "randomized_down_to", "fc")
    whole = Measure("gbp", "spearman", "randomized_down_to", "fc")
    nan = float("nan")
    draws = [
        {measure: [0.1, nan, nan, 0.2], whole: [0.1, 0.2, 0.3, 0.4]},
        {measure: [0.3, 0.4, nan, 0.2], whole: [0.1, 0.2, 0.3, 0.4]},
    ]
    (row,) = _left_out(draws)
    assert (row.method, row.metric, row.x) == ("gbp", "maps_left_out/ssim", "fc")
    assert (row.value, row.n) == (37.5, 4)
    assert [row.n for row in _means(draws)] == [3, 4]


def test_blocks_are_found_and_randomised_in_float64(configure, trained):
    settings = [one for one in SETTINGS if "blocks=[" not in one and "images" not in one]
    cfg = configure(*settings, "experiment.images=2", "experiment.strip.images=0")
    cfg.attribution = {"gradients": {}}
    single, cfg.dtype = run(cfg), "float64"
    double = run(cfg)
    # The random maps beside them are drawn in the type of the network.
    shown = ~single.metric.str.contains("random") & (single.method == "gradients")
    assert shown.any()
    single, double = single[shown], double[shown]
    pd.testing.assert_frame_equal(single, double, check_exact=False, atol=0.02)
    assert not single.equals(double)


def test_pictures_show_the_maps_of_the_same_randomised_networks(cfg, figures):
    run(cfg)
    folder = Job(parse(cfg)).folder
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"sanity_checks.png", "sanity_checks.svg", "strip_1.png", "strip_2.png"} <= names
    assert "strip_1.svg" not in names
    (file,) = folder.glob("parts/strip-*/strip.safetensors")
    tensors, metadata = read_tensors(file, "strip", 2)
    maps = {method: tensors[str(place)] for place, method in enumerate(metadata["methods"])}
    assert metadata["columns"] == ["original", "fc", "conv"]
    assert tensors["pixels"].shape == (2, 16, 16, 1)
    model, images = _subject(cfg)
    batch = images.batch(slice(0, 2))
    assert maps["gradcam"].shape == (3, 2, 16, 16)
    original = cpath.attribute(model, batch, "gradcam").squeeze(1)
    assert (maps["gradcam"][0] - original).abs().max() < 1e-5
    found = sanity_check(
        model, batch, ["gradients"], blocks=["fc", "stage3", "conv"], draws=1, measures=["spearman"]
    )
    last = Comparison(maps["gradients"][0].unsqueeze(1), ("spearman",))
    similarity = last.to(maps["gradients"][2].unsqueeze(1))["spearman"]
    assert similarity == pytest.approx(found.similarity["gradients"]["spearman"][0, 2], abs=1e-3)


def test_redrawing_keeps_the_pictures_and_their_captions(cfg, figures):
    import json

    run(cfg)
    captions = Job(parse(cfg)).folder / "figures" / "captions.json"
    before = json.loads(captions.read_text())
    redraw(captions.parents[1])
    assert json.loads(captions.read_text()) == before
    assert set(before) == {"sanity_checks", "strip_1", "strip_2"}


def test_strips_are_found_again_in_every_batch_without_decoding(cfg, figures, monkeypatch):
    cfg.experiment.strip.images = 4  # more than a batch
    run(cfg)
    folder = Job(parse(cfg)).folder
    before = {path.name: path.read_bytes() for path in (folder / "figures").glob("strip_*.png")}
    assert set(before) == {f"strip_{number}.png" for number in (1, 2, 3, 4)}
    (folder / "results.csv").unlink()
    monkeypatch.setattr(cpath, "attribute", lambda *args, **rest: pytest.fail("the maps are there"))
    monkeypatch.setattr(Images, "batch", lambda *args: pytest.fail("the pixels are there"))
    run(cfg)
    assert {path.name: path.read_bytes() for path in (folder / "figures").glob("strip_*.png")} == before


def test_an_image_is_decoded_once(cfg, monkeypatch):
    decoded = []
    inputs = Images.inputs
    monkeypatch.setattr(Images, "inputs", lambda self, where: decoded.append(where) or inputs(self, where))
    cfg.experiment.blocks = None
    cfg.experiment.draws = 1
    run(cfg)
    assert decoded == [slice(0, 3), slice(3, 5)]


@pytest.mark.parametrize("images", [1, 2, 4])
def test_any_number_of_images_makes_a_table(cfg, images):
    cfg.experiment.images = images
    cfg.attribution = {"gradients": {}}
    table = run(cfg)
    curves = table[table.metric == "spearman"]
    assert curves.x.tolist() == ["fc", "stage3", "conv"]
    assert (curves.n == images).all()


def test_blocks_may_have_any_name_and_their_order_counts(cfg):
    cfg.attribution = {"gradients": {}}
    cfg.experiment.blocks = {"a|b": ["fc"], "a/b": ["stage3", "stage2"], "0": "conv"}
    named = run(cfg)
    rows = named[named.metric == "spearman"]
    assert rows.x.tolist() == ["a|b", "a/b", "0"]
    folder = Job(parse(cfg)).folder
    cfg.experiment.blocks = {"0": "conv", "a/b": ["stage3", "stage2"], "a|b": ["fc"]}
    assert Job(parse(cfg)).folder != folder
    assert run(cfg).query("metric == 'spearman'").x.tolist() == ["0", "a/b", "a|b"]


BLOCKS = ["fc", *(f"block{number}" for number in range(16)), "conv1"]


def _published(cfg, blocks=BLOCKS):
    job = Job(parse(cfg))
    return job.config.experiment._published(job, blocks)


PAPER = ["experiment=sanity_checks", "dataset=imagenet", "model=resnet50", "model.weights=IMAGENET1K_V1"]
PREDICTED_ANEW = "experiment.repredict=true"


def test_published_curves_stand_at_our_blocks_in_their_order(configure):
    cfg = configure(*PAPER, PREDICTED_ANEW, small=False)
    cfg.attribution = {"gbp": {}, "sobel": {}}
    rows = _published(cfg)
    assert {row.method for row in rows} == {"gbp"}
    ssim = {row.x: row.value for row in rows if row.metric == "ssim/published"}
    assert list(ssim) == ["original", *BLOCKS]
    assert (ssim["fc"], ssim["conv1"]) == (0.9907, 0.6124)
    assert _published(cfg, BLOCKS[1:]) == []


@pytest.mark.parametrize(
    "override",
    [
        "experiment.blocks=[fc,conv1]",
        "experiment.init=own",
        "experiment.std=0.2",
        "experiment.repredict=false",
        "model.weights=IMAGENET1K_V2",
        "model.weights=DEFAULT",  # of ResNet-50 the second ones
        "model=resnet101",
    ],
)
def test_published_curves_are_not_laid_over_another_experiment(configure, override):
    cfg = configure(*PAPER, PREDICTED_ANEW, override, small=False)
    cfg.attribution = {"gbp": {}}
    assert _published(cfg) == []


def test_published_gradients_of_pathways_are_those_at_70_per_cent(configure):
    cfg = configure(*PAPER, PREDICTED_ANEW, small=False)
    cfg.attribution = {"neuron_mct": {"sparsity": 70}, "neuron_intgrad": {"sparsity": 90}, "gbp": {}}
    assert {row.method for row in _published(cfg)} == {"neuron_mct", "gbp"}


def test_a_checkpoint_is_the_papers_by_its_content(configure, tmp_path, monkeypatch):
    file = tmp_path / "resnet50.pth"
    file.write_bytes(b"weights")
    cfg = configure(*PAPER, PREDICTED_ANEW, "model.weights=null", f"checkpoint={file}", small=False)
    cfg.attribution = {"gbp": {}}
    assert _published(cfg) == []
    monkeypatch.setattr(
        published, "_sha256", lambda _: "0676ba61" + 56 * "0"
    )  # as in the name of torchvision's file
    assert {row.method for row in _published(cfg)} == {"gbp"}


def test_a_dataset_may_say_under_which_name_it_is_published(configure):
    files = ["dataset=cifar10_folder", "dataset.root=x", "dataset.published_as=imagenet"]
    cfg = configure(*PAPER, *files, PREDICTED_ANEW, small=False)
    cfg.attribution = {"gbp": {}, "sobel": {}}
    assert {row.method for row in _published(cfg)} == {"gbp"}


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("experiment.measures=[sim]", "'ssim' or 'hog'; got 'sim'"),
        ("experiment.measures=[ssim,ssim]", "must be different values"),
        ("experiment.init=norm", "must be 'normal' or 'own'"),
        ("experiment.draws=0", "draws must be greater than or equal to 1"),
        ("experiment.std=0", "std must be greater than 0"),
        ("experiment.blocks=5", "blocks must be names of modules"),
        ("experiment.blocks=[]", "blocks .*at least 1 item"),
        ("experiment.blocks=[fc,fc]", "must be different values"),
        ("experiment.strip.blocks=0", "strip.blocks must be greater than or equal to 1"),
    ],
)
def test_bad_settings_are_refused_before_any_training(configure, tmp_path, override, part):
    with pytest.raises(cpath.InputError, match=part):
        run(configure(*SETTINGS, override))
    assert not (tmp_path / "artifacts").exists()


class Scaled(nn.Module):
    """A network with a layer that cannot draw its weights itself."""

    def __init__(self, classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(shape[0], 4, 3), nn.ReLU(), nn.Linear(4, classes)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.relu(self.conv(images) * self.scale).mean((2, 3)))


SCALED = ["model=custom", "model.name=scaled", f"model._target_={Scaled.__module__}.Scaled", "dataset.size=16"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment.blocks=[foo]"], "block 'foo': the model has no parameter in 'foo'"),
        (["experiment.blocks={head:[fc,foo],conv:[conv]}"], "block 'head': the model has no parameter in 'foo'"),
        (["experiment.blocks=[fc,scale]", "experiment.init=own"], "'' .Scaled. .* no reset_parameters"),
        (["experiment.blocks=null", "experiment.init=own"], "'' .Scaled. .* no reset_parameters"),
    ],
)
def test_blocks_that_the_network_does_not_have_are_refused_before_any_training(job, tmp_path, overrides, message):
    made = job("experiment=sanity_checks", *SCALED, *overrides, small=False)
    with pytest.raises(cpath.InputError, match=message):
        made.run()
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "runs").exists()


def test_a_look_at_the_untrained_network_changes_no_result(cfg):
    cfg.attribution = {"gradients": {}}
    table = run(cfg)
    again = Job(parse(cfg))
    trained = again.model_hash
    again.check()
    assert again.untrained is not again.model
    again.experiment.check(again)
    assert fingerprint(again.model, again.config) == trained
    cfg.redo = True
    pd.testing.assert_frame_equal(run(cfg), table)
