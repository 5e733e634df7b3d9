from __future__ import annotations

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from sklearn.metrics import roc_auc_score

import cpath
from cpath.errors import InputError, MissingPackageError
from experiments import CONF, attacks
from experiments import detection as module
from experiments.attacks import Attacker
from experiments.class_counts import Division
from experiments.engine import job as job_module
from experiments.engine.config import parse
from experiments.engine.job import Job
from experiments.engine.measuring import read_per_image
from experiments.figures.detection import detection_figures
from experiments.foreign import foreign_data
from tests.experiments.conftest import SMALL
from tests.rows import row_of

FEW = [
    "experiment=detection",
    "experiment.counting.images=70",
    "experiment.counting.parts=2",
    "experiment.counting.only_correct=false",
    "experiment.held_out=40",
    "experiment.batch=16",
    "experiment.foreign.images=20",
    "experiment.foreign.names=[noise,textures]",
    "experiment.attacks.names=[]",
]


class Sign(Attacker):
    """The attack of one step, without the toolbox."""

    def __init__(self, network, normalisation, *_, epsilon, **__):
        self.network, self.normalisation, self.epsilon = network, normalisation, epsilon

    def attack(self, name, images, target):
        images = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(self.network(images), target)
        (slope,) = torch.autograd.grad(loss, images)
        pixels = self.normalisation.invert(images.detach()) + self.epsilon * slope.sign()
        return self.normalisation.apply(pixels.clamp(0, 1))


@pytest.fixture(scope="module")
def finished(_trained_once, tmp_path_factory):
    """A job and its table, once for all tests."""
    outputs = tmp_path_factory.mktemp("finished")
    shutil.copytree(_trained_once, outputs / "artifacts")
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "save_drawings", lambda drawings, folder: None)
        patch.setattr(module, "Attacker", Sign)
        patch.setattr(module, "toolbox", lambda: None)
        more = ["experiment.attacks.names=[fgsm]", "experiment.attacks.images=30", "experiment.attacks.epsilon=0.3"]
        settings = [*SMALL, *FEW, *more, "sparsity=[80,90]", "method=neuron_mct", f"outputs={outputs}"]
        made = Job(parse(compose("config", settings)))
        return made, made.run()


def test_rates_are_those_of_scores_that_the_library_gives(finished):
    made, table = finished
    division = Division.of(made, 70, 40)
    counted = cpath.find_pathway(made.model, division.counted.batch(slice(None)), sparsity=90)
    counter = cpath.PathwayCounter(10)
    counter.update(counted, counted.target)

    def strange(images):
        pathway = cpath.find_pathway(made.model, images, sparsity=90)
        overlap = pathway.jaccard(counter.pathway(0.5)[pathway.target])
        return (1 - counter.typicality(pathway)).numpy(), (1 - overlap).numpy(), pathway.target

    images, labels = division.held_out.batch(slice(None)), made.data.test.labels[division.held_out.indices]
    clean, distant, target = strange(images)
    wrong = (target != labels).numpy()
    assert 2 < wrong.sum() < 38
    row = row_of(table, "neuron_mct", "auroc/misclassified/typicality", 90)
    assert (row.value, row.n) == (pytest.approx(roc_auc_score(wrong, clean)), wrong.sum())
    assert row.ci_low < row.value < row.ci_high
    row = row_of(table, "neuron_mct", "auroc/misclassified/jaccard", 90)
    assert row.value == pytest.approx(roc_auc_score(wrong, distant))
    assert row_of(table, "network", "test_accuracy").value == pytest.approx(100 * (1 - wrong.mean()))
    logits = made.model(images).detach().double()
    for score, values in (
        ("probability", -logits.softmax(1).max(1).values),
        ("energy", -logits.exp().sum(1).log()),
        ("entropy", torch.distributions.Categorical(logits=logits).entropy()),
    ):
        found = row_of(table, "network", f"auroc/misclassified/{score}").value
        assert found == pytest.approx(roc_auc_score(wrong, values.numpy()))
    foreign = foreign_data("textures", made.data, 20, 0, None).test.batch(torch.arange(20))
    strangers, _, _ = strange(foreign)
    row = row_of(table, "neuron_mct", "auroc/textures/typicality", 90)
    strangers = strangers[~np.isnan(strangers)]  # of those whose predicted class was never counted
    both = np.r_[np.ones(len(strangers)), np.zeros(40)]
    expected = roc_auc_score(both, np.r_[strangers, clean])
    assert (row.value, row.n) == (pytest.approx(expected), len(strangers))


def test_only_attacks_that_change_the_class_of_a_correct_image_are_to_be_found(finished):
    made, table = finished
    division = Division.of(made, 70, 40)
    images, labels = division.held_out.batch(slice(0, 30)), made.data.test.labels[division.held_out.indices[:30]]
    before = made.model(images).argmax(1)
    changed = Sign(made.model, made.data.normalisation, epsilon=0.3).attack("fgsm", images, before)
    after = made.model(changed).argmax(1)
    right = before == labels
    row = row_of(table, "network", "attack_success/fgsm")
    share = (after != before)[right].double().mean().item()
    assert (row.value, row.n) == (pytest.approx(100 * share), right.sum())
    assert row_of(table, "neuron_mct", "auroc/fgsm/typicality", 80).n == (right & (after != before)).sum()


def test_every_kind_score_site_and_sparsity_has_its_number(finished):
    made, table = finished
    kinds = ("misclassified", "fgsm", "noise", "textures")
    for kind in kinds:
        for name in ("auroc", "fpr95"):
            for score in ("probability", "energy", "entropy"):
                assert row_of(table, "network", f"{name}/{kind}/{score}").n > 0
            for sparsity in (80, 90):
                assert row_of(table, "neuron_mct", f"{name}/{kind}/typicality", sparsity).n > 0
    sites = table[table.metric.str.startswith("site_auroc/noise/") & (table.x == "90.0")]
    assert len(sites) == 7
    assert sites.value.between(0, 1).all()
    by_input = read_per_image(made.folder)
    assert by_input.image.str.partition(":")[0].value_counts(sort=False).index.tolist() == [
        *("clean", "noise", "textures", "fgsm")
    ]
    assert by_input.image.nunique() == 40 + 20 + 20 + 30
    drawn = [drawing.name for drawing in detection_figures(table)]
    assert drawn == ["auroc", "fpr95", "over_sparsity", "depth"]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(attacks.ATTACKS))
def test_an_attack_changes_the_class_within_its_bound_and_nothing_else(job, trained, name):
    pytest.importorskip("art")
    made = job("method=random")
    images = made.sample(6).batch(slice(None))
    target = made.model(images).argmax(1)
    before = {key: value.clone() for key, value in made.model.state_dict().items()}
    state = torch.get_rng_state()
    attacker = Attacker(made.model, made.data.normalisation, made.data.shape, 10, epsilon=0.25, steps=8, seed=0)
    changed = attacker.attack(name, images, target)
    pixels = [made.data.normalisation.invert(some) for some in (images, changed)]
    assert 0 < (pixels[0] - pixels[1]).abs().max() <= 0.25 + 1e-5
    assert (made.model(changed).argmax(1) != target).double().mean() >= 0.5
    assert torch.equal(attacker.attack(name, images, target), changed)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in made.model.state_dict().items())
    assert all(parameter.grad is None for parameter in made.model.parameters())


@pytest.mark.parametrize("kind", ["noise", "textures", "photographs"])
def test_foreign_inputs_have_the_datasets_size_and_are_drawn_by_the_seed(job, kind):
    data = job("method=random").data
    one, again, other = (foreign_data(kind, data, 9, seed, None).test for seed in (0, 0, 1))
    images = one.batch(torch.arange(9))
    assert images.shape == (9, *data.shape)
    assert torch.equal(images, again.batch(torch.arange(9)))
    assert not torch.equal(images, other.batch(torch.arange(9)))
    pixels = data.normalisation.invert(images)
    assert (pixels >= -1e-6).all()
    assert (pixels <= 1 + 1e-6).all()
    assert (pixels.flatten(1).std(1) > 0).all()


def test_a_folder_of_ones_own_is_read_whatever_sizes_its_images_have(job, tmp_path):
    for number in range(3):
        Image.new("RGB", (20 + number, 31), (80 * number, 0, 0)).save(tmp_path / f"{number}.png")
    data = job("method=random", "dataset.channels=3").data
    images = foreign_data("folder", data, 3, 0, tmp_path).test.batch(torch.arange(3))
    red = (255 * data.normalisation.invert(images))[:, 0].mean((1, 2))
    assert sorted(red.round().int().tolist()) == [0, 80, 160]
    with pytest.raises(InputError, match="has 3 images, of which 4 are asked for"):
        foreign_data("folder", data, 4, 0, tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["experiment.foreign.names=[digits]"], "digits are the dataset's own"),
        (["experiment.foreign.names=[clouds]"], r"experiment\.foreign\.names\[0\] must be 'noise' or"),
        (["experiment.foreign.names=[folder]"], "must be a folder of images, not None"),
        (["experiment.attacks.names=[cw]"], r"experiment\.attacks\.names\[0\] must be 'fgsm' or"),
        (["experiment.attacks.epsilon=8"], r"experiment\.attacks\.epsilon must be less than or equal to 1"),
        (["target=label"], "target=label: experiment=detection works with target=predicted only"),
        (["experiment.counting.images=9"], r"class '\d' has none of the 9 images"),
    ],
)
def test_what_cannot_be_detected_is_refused_before_any_work(job, overrides, message):
    with pytest.raises(InputError, match=message):
        job(*FEW, *overrides, "method=random").run()


def test_attacks_without_their_package_are_refused_before_any_work(job, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "art", None)
    monkeypatch.delitem(__import__("sys").modules, "art.attacks.evasion", raising=False)
    with pytest.raises(MissingPackageError, match="needs art, which is not installed: pip install"):
        job(*FEW, "experiment.attacks.names=[pgd]", "method=random").run()


def test_nothing_to_find_has_no_rows(caplog):
    from cpath.analysis import detection
    from experiments.engine.table import Measure

    assert module._detected("fgsm", [Measure("a", "suspicion/energy")], np.zeros((0, 1)), np.zeros((3, 1))) == []
    assert "nothing is found of 'fgsm': there are 0, and 3 others" in caplog.text
    assert math.isnan(detection(np.zeros((0, 1)), np.zeros((3, 1))).auroc.mean[0])


def test_figures_of_one_sparsity_have_none_over_it(finished):
    _, table = finished
    only: pd.DataFrame = table[~table.x.isin(["80.0"])]
    assert [drawing.name for drawing in detection_figures(only)] == ["auroc", "fpr95", "depth"]
    assert detection_figures(table[table.metric == "test_accuracy"]) == []
