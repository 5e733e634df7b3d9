from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import cpath
from cpath.storage import read_tensors
from experiments import path_decoding
from experiments.figures.path_decoding import Decoded, Picture, decoding_figures, decoding_pictures
from experiments.framework.job import job_folder
from experiments.framework.store import ArtifactStore
from experiments.framework.subject import load_data, load_images, trained_model

METHODS = {"neuron_mct": {}, "random": {"seed": 0}, "greedy_published": {"rounds": 3}}


@pytest.fixture
def cfg(configure, trained):
    cfg = configure(
        "experiment=path_decoding",
        "sparsity=[50,80]",
        "experiment.images=2",
        "experiment.steps=6",
        "experiment.tries=2",
    )
    cfg.method = METHODS
    return cfg


def _value(table: pd.DataFrame, method: str, metric: str, sparsity: float) -> float:
    rows = table[(table.method == method) & (table.metric == metric) & (table.x_name == "sparsity")]
    (value,) = rows.value[rows.x.astype(float) == sparsity]
    return float(value)


def test_the_table_says_what_the_saved_pictures_get_in_every_network(cfg):
    table = path_decoding.run(cfg)
    data = load_data(cfg)
    images = load_images(cfg, data)
    model = trained_model(cfg, data, ArtifactStore(Path(cfg.outputs) / "artifacts"))
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(2):
        image = images.batch(slice(number, number + 1))
        tensors, about = read_tensors(
            job_folder(cfg) / "images" / f"image-{number:05d}.safetensors", "decodings", 1
        )
        assert torch.allclose(data.normalisation.apply(tensors["input"]), image, atol=1e-6)
        pictures = dict(zip([tuple(network) for network in about["networks"]], tensors["decoded"], strict=True))
        methods = {name: cpath.methods.get(name, **settings) for name, settings in METHODS.items()}
        pathway = {name: cpath.find_pathway(model, image, method, 80) for name, method in methods.items()}
        target = pathway["random"].target
        for made in METHODS:
            seen = data.normalisation.apply(pictures[made, 80.0])[None]
            with torch.no_grad():
                found.setdefault((made, "original"), []).append(model(seen).softmax(1)[0, target].item())
                for network in METHODS:
                    with pathway[network].restrict(model):
                        found.setdefault((made, network), []).append(model(seen).softmax(1)[0, target].item())
    for (made, network), values in found.items():
        if not np.isnan(values).all():
            assert _value(table, made, f"probability/{network}", 80) == pytest.approx(np.nanmean(values), rel=1e-4)
        if network == made:
            assert _value(table, made, "dead", 80) == np.isnan(values).mean()
    alive = [method for method in METHODS if not np.isnan(found[method, method]).any()]
    assert alive
    for method in alive:
        own, original = (_value(table, method, f"probability_{which}", 80) for which in ("own", "original"))
        assert own == _value(table, method, f"probability/{method}", 80)
        assert original == _value(table, method, "probability/original", 80)
        others = [_value(table, method, f"probability/{other}", 80) for other in set(METHODS) - {method}]
        assert _value(table, method, "probability_others", 80) == pytest.approx(np.mean(others))


def test_the_original_network_the_active_subnetwork_and_every_pathway_are_decoded(cfg):
    table = path_decoding.run(cfg)
    _, about = read_tensors(job_folder(cfg) / "images" / "image-00000.safetensors", "decodings", 1)
    assert [tuple(network) for network in about["networks"]] == [
        ("original", None),
        *((method, sparsity) for method in METHODS for sparsity in (50.0, 80.0)),
        ("active", None),
    ]
    top = table[table.metric == "top_channel"]
    assert len(top) == 4  # two images, two methods that rank
    assert top.x_name.unique().tolist() == ["image"]


def test_the_top_neuron_is_the_best_of_its_site(cfg):
    path_decoding.run(cfg)
    data = load_data(cfg)
    image = load_images(cfg, data).batch(slice(0, 1))
    model = trained_model(cfg, data, ArtifactStore(Path(cfg.outputs) / "artifacts"))
    _, about = read_tensors(job_folder(cfg) / "images" / "image-00000.safetensors", "decodings", 1)
    top = about["top"]["neuron_mct"]
    values = cpath.score(model, image, "neuron_mct").values
    assert top["site"] == [name for name in values if values[name].dim() == 4][-1]
    assert values[top["site"]][0, top["channel"], top["row"], top["column"]] == values[top["site"]].max()


def test_a_job_leaves_pictures_arrays_and_manifest(cfg, figures):
    path_decoding.run(cfg)
    folder = job_folder(cfg)
    assert len(json.loads((folder / "manifest.json").read_text())["images"]) == 2
    names = {path.name for path in (folder / "figures").iterdir()}
    assert {"decoded-50.png", "decoded-80.png", "decoded-sweep-1.png", "decoded-sweep-2.png"} <= names
    assert {"top_neurons.png", "speaks_for-50.png", "speaks_for-80.svg", "captions.json"} <= names


def test_a_stopped_job_goes_on_behind_the_last_finished_image(cfg, monkeypatch):
    render, calls = cpath.decode, []

    def dies_at_the_second(*args, **settings):
        calls.append(len(args[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(*args, **settings)

    monkeypatch.setattr(cpath, "decode", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        path_decoding.run(cfg)
    resumed = path_decoding.run(cfg)
    assert len(calls) == 3
    cfg.redo = True
    pd.testing.assert_frame_equal(resumed, path_decoding.run(cfg))


def test_settings_reach_the_renderer(configure, monkeypatch, trained):
    cfg = configure(
        "experiment=path_decoding",
        "method=neuron_mct",
        "experiment.images=1",
        "experiment.steps=3",
        "experiment.learning_rate=0.2",
        "experiment.parametrisation=fourier",
        "experiment.transforms=[{_target_: lucent.optvis.transform.jitter, d: 2}]",
        "experiment.site=stage2.0.relu",
    )
    render, seen = cpath.decode, {}
    monkeypatch.setattr(cpath, "decode", lambda *args, **rest: seen.update(rest) or render(*args, **rest))
    table = path_decoding.run(cfg)
    assert set(table[table.x_name == "sparsity"].x.astype(float)) == {98}  # as published
    assert (seen["steps"], seen["learning_rate"], seen["parametrisation"], seen["seed"]) == (3, 0.2, "fourier", 0)
    assert len(seen["transforms"]) == 1
    _, about = read_tensors(job_folder(cfg) / "images" / "image-00000.safetensors", "decodings", 1)
    assert about["top"]["neuron_mct"]["site"] == "stage2.0.relu"


def _decoded(methods, sparsities, dead=()):
    pixels = np.full((8, 8, 1), 0.5)
    networks = {("original", None): Picture(pixels, 1.0, 1.0), ("active", None): Picture(pixels, 0.9, 0.8)}
    for method in methods:
        for sparsity in sparsities:
            networks[method, sparsity] = Picture(None if method in dead else pixels, 0.7, 0.001)
    neurons = {method: Picture(pixels, label="site\nchannel 3") for method in methods if method not in dead}
    return Decoded("image", "a class with a rather long name", Picture(pixels, 0.9, 0.9), networks, neurons)


def test_figures_name_columns_in_order_and_show_what_could_not_be_made():
    drawings = decoding_pictures([_decoded(["random", "neuron_mct"], [90.0, 98.0], dead=["random"])] * 2)
    assert [drawing.name for drawing in drawings] == [
        "decoded-90",
        "decoded-98",
        "decoded-sweep-1",
        "decoded-sweep-2",
        "top_neurons",
    ]
    panels = drawings[0].figure.axes
    assert [panel.get_title().replace("\n", " ") for panel in panels[:5]] == [
        "Input image",
        "Original network",
        "Active subnetwork",
        "NeuronMCT",
        "Random",
    ]
    assert panels[3].get_xlabel() == "own 0.70\noriginal < .01"
    assert not panels[4].images
    assert panels[4].texts[0].get_text() == "no gradient"
    assert all(drawing.picture and drawing.caption.endswith(".") for drawing in drawings)
    assert decoding_pictures([]) == []


def test_the_matrices_show_the_numbers_of_the_table():
    rows = [
        {"method": made, "x_name": "sparsity", "x": "98.0", "metric": f"{kind}/{network}", "value": value}
        for kind, values in {
            "probability": {"original": 0.25, "neuron_mct": 0.999},
            "response": {"original": -0.01, "neuron_mct": 123.4},
        }.items()
        for made in ("input", "original", "neuron_mct")
        for network, value in values.items()
    ]
    (drawing,) = decoding_figures(pd.DataFrame(rows))
    left, right = drawing.figure.axes
    assert [text.get_text() for text in left.texts] == [".25", "1.0"] * 3
    assert [text.get_text() for text in right.texts] == ["−0.01", "123"] * 3
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "Input image",
        "Original network",
        "NeuronMCT",
    ]
    assert decoding_figures(pd.DataFrame(rows)[:0]) == []
