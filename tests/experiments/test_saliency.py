from __future__ import annotations

import pandas as pd
import pytest
import torch

import cpath
from cpath.storage import read_tensors
from cpath.viz import sparsity_grid
from experiments import saliency
from experiments.engine.config import parse
from experiments.engine.images import Images
from experiments.engine.job import Job, run
from experiments.engine.measuring import read_per_image
from experiments.metrics import METRICS

SETTINGS = [
    "experiment=saliency",
    "experiment.images=3",
    "sparsity=[0,80,95]",
    "experiment.sparsity_images=1",
]


@pytest.fixture
def cfg(configure, trained):
    cfg = configure(*SETTINGS)
    cfg.attribution = {"neuron_mct": {"sparsity": 90}, "gradcam": {}, "random": {"seed": 0}}
    return cfg


def _maps(cfg, kind: str) -> torch.Tensor:
    """Of all batches, which must be of the job's images in their order."""
    job = Job(parse(cfg))
    parts = [
        read_tensors(folder / "maps.safetensors", "maps", 2)
        for folder in sorted((job.folder / "parts").glob(f"{kind}-0*"))
    ]
    assert [image for _, metadata in parts for image in metadata["images"]] == job.sample(cfg.experiment.images).ids
    return torch.cat([tensors["maps"] for tensors, _ in parts], 1 if kind.startswith("sparsities") else 0)


@pytest.mark.parametrize("batch", [2, 32])
def test_maps_are_those_of_the_library_image_by_image_and_saved(cfg, batch):
    cfg.experiment.batch = batch
    table = run(cfg)
    job = Job(parse(cfg))
    images, model = job.sample(3), job.model
    for index in range(3):
        image = images.batch(slice(index, index + 1))
        for name in ("neuron_mct", "gradcam"):
            expected = cpath.attribute(model, image, name)
            assert torch.allclose(_maps(cfg, f"maps-{name}")[index], expected[0], atol=1e-5)
        over = _maps(cfg, "sparsities-neuron_mct")
        for place, sparsity in enumerate((0, 80, 95)):
            expected = cpath.attribute(model, image, "neuron_mct", sparsity=sparsity)
            assert torch.allclose(over[place, index], expected[0], atol=1e-5)
        assert torch.allclose(over[0, index], cpath.attribute(model, image, "gradients")[0], atol=1e-5)
        with torch.no_grad():
            probability = model(image).softmax(1).max().item()
        row = table[(table.metric == "class_probability") & (table.x == images.ids[index])].iloc[0]
        assert row.value == pytest.approx(probability, rel=1e-4)
    similarity = table[table.metric == "similarity_to_gradient"]
    assert similarity.value.iloc[0] == 1
    assert (similarity.value.iloc[1:] < 1).all()
    assert set(table.metric) <= set(METRICS)
    per_image = read_per_image(job.folder)
    of_80 = per_image[(per_image.metric == "similarity_to_gradient") & (per_image.x == 80)]
    assert of_80.image.tolist() == images.ids
    assert of_80.value.mean() == pytest.approx(similarity.value.iloc[1])


def test_pictures_are_saved_with_captions_and_fine_enough_to_print(cfg, figures):
    import json

    from PIL import Image

    run(cfg)
    figures = Job(parse(cfg)).folder / "figures"
    captions = json.loads((figures / "captions.json").read_text())
    assert list(captions) == ["similarity_to_gradient", "maps", "overlays", "sparsities_1"]
    for name in ("maps", "overlays", "sparsities_1"):
        with Image.open(figures / f"{name}.png") as picture:
            assert min(picture.size) > 400
        assert not (figures / f"{name}.svg").exists()


def test_a_stopped_job_does_not_explain_twice(cfg, monkeypatch):
    attribute, calls = cpath.attribute, []

    def dies_at_the_second(model, images, attribution, *args, **rest):
        calls.append(attribution.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return attribute(model, images, attribution, *args, **rest)

    monkeypatch.setattr(cpath, "attribute", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    resumed = run(cfg)
    assert calls == ["neuron_mct", "gradcam", "gradcam", "random", "gradients"]
    cfg.redo = True
    pd.testing.assert_frame_equal(resumed, run(cfg))
    assert calls[5:] == ["neuron_mct", "gradcam", "random", "gradients"]


def test_an_attribution_without_sparsity_alone_shows_what_there_is(cfg, figures):
    cfg.attribution = {"sobel": {}}
    table = run(cfg)
    assert set(table.metric) == {"class_probability"}
    assert {path.name for path in (Job(parse(cfg)).folder / "figures").glob("*.png")} == {
        "maps.png",
        "overlays.png",
    }


@pytest.mark.parametrize("images", [1, 2, 3])
def test_any_number_of_images_makes_a_table_and_pictures(cfg, figures, images):
    cfg.experiment.images, cfg.experiment.batch, cfg.experiment.sparsity_images = images, 2, 3
    table = run(cfg)
    assert (table.metric == "class_probability").sum() == images
    assert (table[table.metric == "similarity_to_gradient"].n <= images).all()
    names = {path.stem for path in (Job(parse(cfg)).folder / "figures").glob("sparsities_*.png")}
    assert names == {f"sparsities_{number + 1}" for number in range(images)}


def test_sparsities_with_many_digits_stay_apart_in_table_and_pictures(cfg, figures, monkeypatch):
    drawn = []
    monkeypatch.setattr(saliency, "sparsity_grid", lambda *args: drawn.append(args) or sparsity_grid(*args))
    cfg.sparsity = [90.00001, 90.00002, 99.99999]
    table = run(cfg)
    rows = table[table.metric == "similarity_to_gradient"]
    assert rows.x.astype(float).tolist() == [90.00001, 90.00002, 99.99999]
    panels = sparsity_grid(*drawn[0]).figure.axes
    assert [panel.get_title() for panel in panels[1:4]] == ["90.00001 %", "90.00002 %", "99.99999 %"]


def test_attributions_may_have_any_name(cfg):
    cfg.attribution = {
        name: {"_target_": "cpath.attribution.get", "name": "neuron_mct", "sparsity": sparsity}
        for name, sparsity in (("a|b", 80), ("a/b", 90))
    }
    table = run(cfg)
    rows = table[table.metric == "similarity_to_gradient"]
    assert sorted(rows.method) == ["a/b"] * 3 + ["a|b"] * 3
    # Their own sparsity is that of the maps alone.
    assert rows[rows.method == "a|b"].value.tolist() == rows[rows.method == "a/b"].value.tolist()


def test_an_image_is_decoded_once(cfg, monkeypatch):
    decoded = []
    inputs = Images.inputs
    monkeypatch.setattr(Images, "inputs", lambda self, where: decoded.append(where) or inputs(self, where))
    cfg.experiment.batch = 2
    run(cfg)
    assert decoded == [slice(0, 2), slice(2, 3)]


def test_settings_of_an_attribution_reach_it_and_its_method(job):
    (attribution,) = job(
        "attribution=neuron_intgrad", "attribution.neuron_intgrad.nodes=3", "seed=4"
    ).attributions.values()
    assert attribution.method == cpath.methods.NeuronIntGrad(nodes=3)
    assert attribution.sparsity == 90
    assert job("attribution=smoothgrad", "seed=4").attributions["smoothgrad"].seed == 4
    with pytest.raises(cpath.InputError, match="nods"):
        job("experiment=saliency", "attribution=neuron_intgrad", "+attribution.neuron_intgrad.nods=3").check()


def test_attribution_all_names_every_attribution_of_the_paper(job):
    registered = set(cpath.attribution.names()) - set(cpath.methods.names())
    assert set(job().attributions) == registered | {"neuron_mct", "neuron_intgrad", "random"}


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("sparsity=[80,70]", "must ascend"),
        ("sparsity=[100]", "100"),
        ("experiment.sparsity_images=-1", "greater than or equal to 0"),
        ("+experiment.sparsities=[80]", "called 'sparsity' "),
    ],
)
def test_bad_settings_are_refused_before_any_training(configure, tmp_path, override, part):
    with pytest.raises(cpath.InputError, match=part):
        run(configure(*SETTINGS, override))
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("attribution", ["gradcam", "neuron_intgrad_star"])
def test_a_site_that_the_network_does_not_have_is_refused_before_any_training(job, tmp_path, attribution):
    made = job("experiment=saliency", f"attribution={attribution}", f"attribution.{attribution}.site=foo")
    with pytest.raises(cpath.SiteError, match=r"the model has no site 'foo'\. Its sites: .*stage2\.0\.relu"):
        made.run()
    assert not (tmp_path / "artifacts").exists()
