from __future__ import annotations

import pandas as pd
import pytest
import torch

import cpath
from cpath.storage import read_tensors
from experiments import saliency
from experiments.framework.job import job_folder
from experiments.framework.store import ArtifactStore
from experiments.framework.subject import attributions_of, load_data, load_images, trained_model

SETTINGS = [
    "experiment=saliency",
    "experiment.images=3",
    "experiment.sparsities=[0,80,95]",
    "experiment.sparsity_images=1",
]


@pytest.fixture
def cfg(configure, trained):
    cfg = configure(*SETTINGS)
    cfg.attribution = {"neuron_mct": {"sparsity": 90}, "gradcam": {}, "random": {"seed": 0}}
    return cfg


def _maps(cfg, name: str) -> tuple[torch.Tensor, dict]:
    tensors, metadata = read_tensors(job_folder(cfg) / "maps" / f"{name}.safetensors", "maps", 1)
    return tensors["maps"], metadata


def test_maps_are_those_of_the_library_image_by_image_and_saved(cfg):
    table = saliency.run(cfg)
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, ArtifactStore(job_folder(cfg).parents[2] / "artifacts"))
    for index in range(3):
        image = images.batch(slice(index, index + 1))
        for name in ("neuron_mct", "gradcam"):
            maps, metadata = _maps(cfg, name)
            expected = cpath.attribute(model, image, name)
            assert torch.allclose(maps[index], expected[0], atol=1e-5)
            assert metadata["images"] == images.ids
        over, metadata = _maps(cfg, "neuron_mct-sparsities")
        assert metadata["sparsities"] == [0, 80, 95]
        for place, sparsity in enumerate((0, 80, 95)):
            expected = cpath.attribute(model, image, "neuron_mct", sparsity=sparsity)
            assert torch.allclose(over[place, index], expected[0], atol=1e-5)
        assert torch.allclose(over[0, index], cpath.attribute(model, image, "gradients")[0], atol=1e-5)
        with torch.no_grad():
            probability = model(image).softmax(1).max().item()
        row = table[(table.metric == "probability") & (table.x == images.ids[index])].iloc[0]
        assert row.value == pytest.approx(probability, rel=1e-4)
    similarity = table[table.metric == "similarity_to_gradient"]
    assert similarity.value.iloc[0] == 1
    assert (similarity.value.iloc[1:] < 1).all()


def test_pictures_are_saved_with_captions_and_fine_enough_to_print(cfg, figures):
    import json

    from PIL import Image

    saliency.run(cfg)
    figures = job_folder(cfg) / "figures"
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
        saliency.run(cfg)
    resumed = saliency.run(cfg)
    assert calls == ["neuron_mct", "gradcam", "gradcam", "random", "gradients"]
    cfg.redo = True
    pd.testing.assert_frame_equal(resumed, saliency.run(cfg))
    assert calls[5:] == ["neuron_mct", "gradcam", "random", "gradients"]


def test_an_attribution_without_sparsity_alone_shows_what_there_is(cfg, figures):
    cfg.attribution = {"sobel": {}}
    table = saliency.run(cfg)
    assert set(table.metric) == {"probability"}
    assert {path.name for path in (job_folder(cfg) / "figures").glob("*.png")} == {"maps.png", "overlays.png"}


def test_settings_of_an_attribution_reach_it_and_its_method(configure):
    cfg = configure("attribution=neuron_intgrad", "attribution.neuron_intgrad.nodes=3", "seed=4")
    (attribution,) = attributions_of(cfg).values()
    assert attribution.method == cpath.methods.NeuronIntGrad(nodes=3)
    assert attribution.sparsity == 90
    assert attributions_of(configure("attribution=smoothgrad", "seed=4"))["smoothgrad"].seed == 4
    with pytest.raises(cpath.InputError, match="nods"):
        attributions_of(configure("attribution=neuron_intgrad", "+attribution.neuron_intgrad.nods=3"))


def test_attribution_all_names_every_attribution_of_the_paper(configure):
    registered = set(cpath.attribution.names()) - set(cpath.methods.names())
    named = set(attributions_of(configure()))
    assert named == registered | {"neuron_mct", "neuron_intgrad", "random"}


def test_unusable_sparsities_are_refused_before_any_training(configure, tmp_path):
    for sparsities in ("[80,70]", "[100]"):
        with pytest.raises(cpath.InputError):
            saliency.run(configure(*SETTINGS, f"experiment.sparsities={sparsities}"))
    assert not (tmp_path / "artifacts").exists()
