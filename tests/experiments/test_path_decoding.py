from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import cpath
from cpath.errors import InputError, UnknownNameError
from cpath.storage import read_tensors
from experiments import path_decoding
from experiments.engine.config import parse
from experiments.engine.job import Job, run
from experiments.engine.measuring import read_per_image
from experiments.path_decoding import _FILE, _FORMAT, _KIND
from tests.rows import row_of

METHODS = {"neuron_mct": {}, "random": {"seed": 0}, "greedy_released": {"rounds": 3}}


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
    return float(row_of(table[table.x_name == "sparsity"], method, metric, sparsity).value)


def _pictures(job: Job, number: int):
    (folder,) = job.folder.glob(f"parts/pictures-{number:05d}-*")
    return read_tensors(folder / _FILE, _KIND, _FORMAT)


def test_the_table_says_what_the_saved_pictures_get_in_every_network(cfg):
    table = run(cfg)
    job = Job(parse(cfg))
    data, model, images = job.data, job.model, job.sample(2)
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(2):
        image = images.batch(slice(number, number + 1))
        tensors, about = _pictures(job, number)
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
            assert _value(table, made, "dead", 80) == 100 * np.isnan(values).mean()
    alive = [method for method in METHODS if not np.isnan(found[method, method]).any()]
    assert alive
    for method in alive:
        own, original = (_value(table, method, f"probability_{which}", 80) for which in ("own", "original"))
        assert own == _value(table, method, f"probability/{method}", 80)
        assert original == _value(table, method, "probability/original", 80)
        others = [_value(table, method, f"probability/{other}", 80) for other in set(METHODS) - {method}]
        assert _value(table, method, "probability_others", 80) == pytest.approx(np.mean(others))


def test_the_pictures_are_of_the_first_images_and_the_numbers_of_all(cfg, monkeypatch):
    drawn = []
    monkeypatch.setattr(path_decoding, "decoding_pictures", lambda decoded: drawn.extend(decoded) or [])
    cfg.experiment.shown = 1
    table = run(cfg)
    assert [one.name for one in drawn] == [str(table[table.x_name == "image"].x.iloc[0])]
    assert row_of(table, "original", "dead", 80).n == 2


def test_a_picture_that_cannot_be_made_is_dead_in_per_cent(cfg, monkeypatch):
    decode = cpath.decode

    def without_the_last_network(model, pathways, *args, **settings):
        made = decode(model, pathways, *args, **settings)
        made.images[2 * len(METHODS)] = math.nan  # original, two sparsities a method, active
        return made

    monkeypatch.setattr(cpath, "decode", without_the_last_network)
    table = run(cfg)
    name = list(METHODS)[-1]
    row = row_of(table, name, "dead", 80)
    assert (row.value, row.n) == (100, 2)
    assert row_of(table, name, "probability_own", 80).n == 0
    assert row_of(table, "original", "dead", 80).value == 0


def test_the_original_network_the_active_subnetwork_and_every_pathway_are_decoded(cfg):
    table = run(cfg)
    _, about = _pictures(Job(parse(cfg)), 0)
    assert [tuple(network) for network in about["networks"]] == [
        ("original", None),
        *((method, sparsity) for method in METHODS for sparsity in (50.0, 80.0)),
        ("active", None),
    ]
    top = table[table.metric == "top_channel"]
    assert len(top) == 4  # two images, two methods that rank
    assert top.x_name.unique().tolist() == ["image"]


def test_the_top_neuron_is_the_best_of_its_site(cfg):
    run(cfg)
    job = Job(parse(cfg))
    _, about = _pictures(job, 0)
    top = about["top"]["neuron_mct"]
    values = cpath.score(job.model, job.sample(2).batch(slice(0, 1)), "neuron_mct").values
    assert top["site"] == [name for name in values if values[name].dim() == 4][-1]
    assert values[top["site"]][0, top["channel"], top["row"], top["column"]] == values[top["site"]].max()


def test_a_job_leaves_pictures_arrays_and_manifest(cfg, figures):
    run(cfg)
    job = Job(parse(cfg))
    assert json.loads((job.folder / "manifest.json").read_text())["images"] == job.sample(2).ids
    names = {path.name for path in (job.folder / "figures").iterdir()}
    assert {"decoded-50.png", "decoded-80.png", "decoded-sweep-1.png", "decoded-sweep-2.png"} <= names
    assert {"top_neurons.png", "speaks_for-50.png", "speaks_for-80.svg", "captions.json"} <= names
    captions = json.loads((job.folder / "figures" / "captions.json").read_text())
    image = job.sample(2).batch(slice(0, 1))
    with torch.no_grad():
        predicted = job.data.classes[int(job.model(image).argmax())]
    true = job.data.classes[int(job.data.test.labels[job.sample(2).indices[0]])]
    assert f"For one image (predicted {predicted}, true {true})," in captions["decoded-sweep-1"]


def test_a_stopped_job_continues_after_the_last_finished_image(cfg, monkeypatch):
    render, calls = cpath.decode, []

    def dies_at_the_second(*args, **settings):
        calls.append(len(args[1]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(*args, **settings)

    monkeypatch.setattr(cpath, "decode", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    resumed = run(cfg)
    assert len(calls) == 3
    cfg.redo = True
    pd.testing.assert_frame_equal(resumed, run(cfg))


def test_settings_reach_the_renderer(job, monkeypatch, trained):
    made = job(
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
    table = made.run()
    assert set(table[table.x_name == "sparsity"].x.astype(float)) == {98}  # as published
    assert (seen["steps"], seen["learning_rate"], seen["parametrisation"], seen["seed"]) == (3, 0.2, "fourier", 0)
    assert len(seen["transforms"]) == 1
    _, about = _pictures(made, 0)
    assert about["top"]["neuron_mct"]["site"] == "stage2.0.relu"


def test_pictures_of_neurons_may_be_made_in_another_way(cfg):
    cfg.experiment.images, cfg.experiment.site = 1, "relu"  # where no channel is dead on noise
    run(cfg)
    usual, _ = _pictures(Job(parse(cfg)), 0)
    cfg.experiment.size = 12
    cfg.experiment.neurons = {"parametrisation": "fourier", "transforms": "standard"}
    run(cfg)
    job = Job(parse(cfg))
    tensors, about = _pictures(job, 0)
    assert tensors["decoded"].shape == usual["decoded"].shape == (len(about["networks"]), *job.data.shape)
    (site, channel), *_ = about["channels"]
    expected = cpath.decode(
        job.model,
        None,
        cpath.decoding.Channel(site, channel),
        shape=job.data.shape,
        normalisation=job.data.normalisation,
        parametrisation="fourier",
        transforms=cpath.decoding.standard_transforms(),
        steps=6,
        tries=2,
        size=12,
    )
    assert not expected.no_gradient.any()
    assert torch.allclose(tensors["neurons"][:1], expected.images, atol=1e-4)
    assert tensors["neurons"].shape == usual["neurons"].shape
    assert (tensors["neurons"] - usual["neurons"]).abs().nan_to_num().max() > 0.01


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment.steps=0", "experiment.steps must be greater than or equal to 1"),
        ("experiment.learning_rate=0", "experiment.learning_rate must be greater than 0"),
        ("experiment.learning_rate=.nan", "experiment.learning_rate must be"),
        ("experiment.tries=1.5", "experiment.tries must be a valid integer"),
        ("experiment.together=0", "experiment.together must be greater than or equal to 1"),
        ("experiment.images=0", "experiment.images must be greater than or equal to 1"),
        ("experiment.transforms=[{d: 2}]", r"experiment.transforms\[0\] must name a function or class"),
        ("experiment.transforms=[{_target_: absent.thing}]", "experiment.transforms: absent.thing cannot be made"),
        ("experiment.neurons.transforms=[{_target_: absent.thing}]", "absent.thing cannot be made"),
        ("experiment.neurons.transforms=standard", "experiment.size: Lucent's standard transforms change the size"),
        ("experiment.neurons.transforms=normal", "experiment.neurons.transforms must be a valid list"),
        ("experiment.size=0", "experiment.size must be greater than or equal to 1"),
    ],
)
def test_an_unusable_setting_is_refused_before_any_work(job, tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        job("experiment=path_decoding", override).run()
    assert not (tmp_path / "artifacts").exists()


def test_a_site_that_the_network_does_not_have_is_refused_before_any_training(job, tmp_path):
    with pytest.raises(cpath.SiteError, match=r"the model has no site 'foo'\. Its sites: .*stage2\.0\.relu"):
        job("experiment=path_decoding", "experiment.site=foo").run()
    assert not (tmp_path / "artifacts").exists()
    assert not (tmp_path / "runs").exists()


def test_an_unknown_parametrisation_names_those_there_are(job):
    with pytest.raises(UnknownNameError, match=r"'furier'.*fourier"):
        job("experiment=path_decoding", "experiment.parametrisation=furier")


def test_sparsities_that_differ_little_have_rows_and_pictures_of_their_own(configure, trained, figures):
    cfg = configure(
        "experiment=path_decoding",
        "sparsity=[90.00001,90.00002,99.99999]",
        "experiment.images=1",
        "experiment.steps=1",
        "experiment.tries=1",
    )
    cfg.method = {"random": {}}
    table, job = run(cfg), Job(parse(cfg))
    for sparsity in (90.00001, 90.00002, 99.99999):
        assert row_of(table, "random", "dead", sparsity).n == 1
        assert (job.folder / "figures" / f"decoded-{sparsity}.png").exists()
        assert (job.folder / "figures" / f"speaks_for-{sparsity}.svg").exists()
    assert set(read_per_image(job.folder).image) == set(job.sample(1).ids)


class OddNames(nn.Module):
    """A network whose sites are called ``a|b`` and ``a/b``."""

    def __init__(self, classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(shape[0], 4, 3), nn.Conv2d(4, 4, 3)
        self.add_module("a|b", nn.ReLU())
        self.add_module("a/b", nn.ReLU())
        self.last = nn.Linear(4, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = self.get_submodule("a|b")(self.first(images))
        return self.last(self.get_submodule("a/b")(self.second(seen)).mean((2, 3)))


def test_sites_may_have_any_name(configure, figures):
    cfg = configure(
        "experiment=path_decoding",
        "model=custom",
        f"model._target_={__name__}.OddNames",
        "model.name=odd",
        "dataset.size=16",
        "recipe.epochs=1",
        "sparsity=50",
        "experiment.images=1",
        "experiment.steps=1",
        "experiment.site='a|b'",
        small=False,
    )
    cfg.method = {"neuron_mct": {}}
    table, job = run(cfg), Job(parse(cfg))
    _, about = _pictures(job, 0)
    assert about["top"]["neuron_mct"]["site"] == "a|b"
    channel = table[table.metric == "top_channel"].value.item()
    assert channel == about["top"]["neuron_mct"]["channel"]


def test_sites_without_height_and_width_are_refused_before_training(job):
    with pytest.raises(cpath.SiteError, match="no convolutional site"):
        job("experiment=path_decoding", "method=random", "sites=fc").check()
