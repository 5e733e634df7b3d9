from __future__ import annotations

import numpy as np
import pytest

import cpath
from cpath.evaluation import sanity_check
from cpath.storage import read_tensors
from experiments import redraw, sanity_checks
from experiments.framework.job import job_folder
from experiments.framework.store import ArtifactStore
from experiments.framework.subject import load_data, load_images, trained_model
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
    data = load_data(cfg)
    model = trained_model(cfg, data, ArtifactStore(job_folder(cfg).parents[2] / "artifacts"))
    return model, load_images(cfg, data)


def test_results_are_the_means_of_what_the_library_says_image_by_image(cfg):
    table = sanity_checks.run(cfg)
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


def test_pictures_show_the_maps_of_the_same_randomised_networks(cfg, figures):
    sanity_checks.run(cfg)
    folder = job_folder(cfg)
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"sanity_checks.png", "sanity_checks.svg", "strip_1.png", "strip_2.png"} <= names
    assert "strip_1.svg" not in names
    maps, metadata = read_tensors(folder / "maps" / "strip.safetensors", "maps", 1)
    assert metadata["columns"] == ["original", "fc", "conv"]
    model, images = _subject(cfg)
    batch = images.batch(slice(0, 2))
    assert maps["gradcam"].shape == (3, 2, 16, 16)
    original = cpath.attribute(model, batch, "gradcam").squeeze(1)
    assert (maps["gradcam"][0] - original).abs().max() < 1e-5
    found = sanity_check(
        model, batch, ["gradients"], blocks=["fc", "stage3", "conv"], draws=1, measures=["spearman"]
    )
    last = cpath.evaluation.Comparison(maps["gradients"][0].unsqueeze(1), ("spearman",))
    similarity = last.to(maps["gradients"][2].unsqueeze(1))["spearman"]
    assert similarity == pytest.approx(found.similarity["gradients"]["spearman"][0, 2], abs=1e-3)


def test_redrawing_keeps_the_pictures_and_their_captions(cfg, figures):
    import json

    sanity_checks.run(cfg)
    captions = job_folder(cfg) / "figures" / "captions.json"
    before = json.loads(captions.read_text())
    assert redraw.main([str(cfg.outputs)]) == 0
    assert json.loads(captions.read_text()) == before
    assert set(before) == {"sanity_checks", "strip_1", "strip_2"}


def test_published_curves_stand_at_our_blocks_in_their_order(configure):
    cfg = configure("experiment=sanity_checks", "dataset=imagenet", "model=resnet50", small=False)
    blocks = ["fc", *(f"block{number}" for number in range(16)), "conv1"]
    rows = sanity_checks._published(cfg, blocks, ["gbp", "sobel"])
    assert {row.method for row in rows} == {"gbp"}
    ssim = {row.x: row.value for row in rows if row.metric == "ssim/published"}
    assert list(ssim) == ["original", *blocks]
    assert (ssim["fc"], ssim["conv1"]) == (0.9907, 0.6124)
    assert sanity_checks._published(cfg, blocks[1:], ["gbp"]) == []


@pytest.mark.parametrize(
    "override",
    ["experiment.blocks=[fc,conv1]", "experiment.init=own", "experiment.std=0.2", "experiment.repredict=true"],
)
def test_published_curves_are_not_laid_over_another_experiment(configure, override):
    blocks = ["fc", *(f"block{number}" for number in range(16)), "conv1"]
    cfg = configure("experiment=sanity_checks", "dataset=imagenet", "model=resnet50", override, small=False)
    assert sanity_checks._published(cfg, blocks, ["gbp"]) == []


def test_a_dataset_may_say_under_which_name_it_is_published(configure):
    files = ["dataset=cifar10_folder", "dataset.root=x", "dataset.published_as=imagenet"]
    cfg = configure("experiment=sanity_checks", "model=resnet50", *files, small=False)
    blocks = ["fc", *(f"block{number}" for number in range(16)), "conv1"]
    assert {row.method for row in sanity_checks._published(cfg, blocks, ["gbp", "sobel"])} == {"gbp"}


@pytest.mark.parametrize(
    ("override", "part"),
    [("experiment.measures=[sim]", "ssim"), ("experiment.init=norm", "normal"), ("experiment.draws=0", "draws")],
)
def test_bad_settings_are_refused_before_any_training(configure, tmp_path, override, part):
    with pytest.raises(cpath.CpathError, match=part):
        sanity_checks.run(configure(*SETTINGS, override))
    assert not (tmp_path / "artifacts").exists()
