from __future__ import annotations

import itertools
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir

import cpath
from cpath.errors import InputError
from experiments import CONF, class_counts
from experiments.class_counts import Division
from experiments.class_pathways import _agreement, _shuffled
from experiments.engine import job as job_module
from experiments.engine.cache import Entry
from experiments.engine.config import parse
from experiments.engine.images import Batch
from experiments.engine.job import Job, run
from experiments.engine.measuring import read_per_image
from experiments.engine.provenance import read_manifest
from experiments.figures.class_pathways import class_pathway_figures
from tests.experiments.conftest import SMALL
from tests.rows import row_of

FEW = [
    "experiment=class_pathways",
    "experiment.counting.images=70",
    "experiment.counting.parts=4",
    "experiment.counting.only_correct=false",
    "experiment.held_out=30",
    "experiment.batch=9",
    "experiment.draws=2",
    "experiment.restricted=2",
    "sparsity=80",
]


@pytest.fixture(scope="module")
def finished(_trained_once, tmp_path_factory):
    """A job and its table, once for all tests."""
    outputs = tmp_path_factory.mktemp("finished")
    shutil.copytree(_trained_once, outputs / "artifacts")
    with initialize_config_dir(str(CONF), version_base="1.3"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_module, "save_drawings", lambda drawings, folder: None)
        settings = [*SMALL, *FEW, "method=neuron_mct", "+method.random={seed: 0}", f"outputs={outputs}"]
        made = Job(parse(compose("config", settings)))
        return made, made.run()


def counted_directly(made: Job, images, method: str) -> cpath.PathwayCounter:
    """All images at once, by the library alone."""
    found = cpath.find_pathway(made.model, images.batch(slice(None)), method, 80)
    counter = cpath.PathwayCounter(10)
    counter.update(found, found.target)
    return counter


def test_results_are_those_of_counting_all_images_at_once(finished):
    made, table = finished
    division = Division.of(made, 70, 30)
    division.check()
    assert not set(division.counted.ids) & set(division.held_out.ids)
    counter = counted_directly(made, division.counted, "neuron_mct")
    pathways, similar = counter.pathway(0.5), counter.similarity(0.5)
    seen = [number for number in range(10) if counter.inputs[number]]
    for number in seen:
        row = row_of(table, "neuron_mct", "class_units", str(number))
        units = 100 * pathways.flat[number].double().mean().item()
        assert (row.value, row.n) == (pytest.approx(units), counter.inputs[number])
    first, last = seen[0], seen[-1]
    row = row_of(table, "neuron_mct", f"class_jaccard/{last}", str(first))
    assert row.value == pytest.approx(similar[first, last].item())
    ones, others = torch.tensor(list(itertools.combinations(seen, 2))).T
    mean = row_of(table, "neuron_mct", "class_jaccard")
    assert (mean.value, mean.n) == (pytest.approx(similar[ones, others].mean().item()), len(ones))
    shared = table[(table.method == "neuron_mct") & (table.metric == "shared_units")]
    assert shared.value.sum() == pytest.approx(100)
    only = (pathways.flat.sum(0) == 1).sum() / pathways.flat.any(0).sum()
    assert row_of(table, "neuron_mct", "shared_units", 1).value == pytest.approx(100 * only.item())
    site = "stage3.0.relu#2"
    by_site = counter.similarity_by_site(0.5)[site][ones, others].nanmean().item()
    assert row_of(table, "neuron_mct", f"site_class_jaccard/{site}").value == pytest.approx(by_site, nan_ok=True)


def test_typicality_and_restricted_networks_are_measured_on_held_out_images(finished):
    made, table = finished
    division = Division.of(made, 70, 30)
    counter = counted_directly(made, division.counted, "neuron_mct")
    images, labels = division.held_out.batch(slice(None)), made.data.test.labels[division.held_out.indices]
    pathway = cpath.find_pathway(made.model, images, "neuron_mct", 80)
    typical = counter.typicality(pathway)
    row = row_of(table, "neuron_mct", "typicality")
    assert (row.value, row.n) == (pytest.approx(typical.nanmean().item()), 30)
    right = pathway.target == labels
    assert row_of(table, "neuron_mct", "typicality/correct").value == pytest.approx(typical[right].mean().item())
    every = torch.stack([counter.typicality(pathway, [number] * 30) for number in range(10)], 1)
    share = 100 * (every.nan_to_num(-1).argmax(1) == pathway.target).double().mean().item()
    assert row_of(table, "neuron_mct", "typical_class").value == pytest.approx(share)
    with torch.no_grad(), counter.pathway(0.5)[1].restrict(made.model):
        said = made.model(images).argmax(1)
    own, other = labels == 1, labels != 1
    for metric, expected, n in (
        ("class_accuracy", (said == 1)[own], own.sum()),
        ("says_class", (said == 1)[other], other.sum()),
        ("other_accuracy", (said == labels)[other], other.sum()),
    ):
        row = row_of(table, "neuron_mct", metric, "1")
        assert (row.value, row.n) == (pytest.approx(100 * expected.double().mean().item()), n)
    assert row_of(table, "network", "class_accuracy").value == pytest.approx(100 * right.double().mean().item())
    assert read_per_image(made.folder).image.nunique() == 30


def test_random_units_beside_are_as_many_at_each_site():
    masks = {"a": torch.rand(1, 5, 4, 4) < 0.3, "b": torch.rand(1, 40) < 0.6}
    pathway = cpath.Pathway.from_masks(masks)
    one, other = _shuffled(pathway, 1), _shuffled(pathway, 2)
    for name, mask in pathway.masks.items():
        assert one.masks[name].sum() == mask.sum()
    assert not torch.equal(one.flat, other.flat)
    assert torch.equal(one.flat, _shuffled(pathway, 1).flat)


def test_more_images_agree_more_and_random_units_hardly(finished):
    _, table = finished
    rows = table[(table.metric == "class_stability")].assign(x=lambda frame: frame.x.astype(float))
    mine = rows[rows.method == "neuron_mct"].sort_values("x")
    assert mine.x.tolist() == [18, 36]
    assert mine.value.is_monotonic_increasing
    assert (mine.n == 2).all()


def test_figures_show_what_was_measured(finished):
    _, table = finished
    names = [drawing.name for drawing in class_pathway_figures(table)]
    assert names == ["similarity", "depth", "stability", "restricted"]
    similarity = class_pathway_figures(table)[0].figure
    shown = [panel for panel in similarity.axes if panel.images]
    order = [label.get_text() for label in shown[0].get_xticklabels()]
    pair = table[(table.method == "neuron_mct") & table.metric.str.startswith("class_jaccard/")].iloc[0]
    other = pair.metric.removeprefix("class_jaccard/")
    cell = shown[0].images[0].get_array()[order.index(pair.x), order.index(other)]
    assert cell == pytest.approx(pair.value)


def test_a_stopped_count_continues_behind_its_last_finished_part(configure, trained, monkeypatch):
    made, part_of = [], Job.part
    cfg = configure(*FEW, "method=neuron_mct")

    @contextmanager
    def dying_at_the_third(job: Job, batch: Batch, kind: str, *code: object) -> Iterator[Entry]:
        with part_of(job, batch, kind, *code) as part:
            if part.missing and kind == "counts":
                made.append(len(batch))
                if len(made) == 3:
                    raise KeyboardInterrupt
            yield part

    monkeypatch.setattr(Job, "part", dying_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(cfg)
    resumed = run(cfg)
    assert made == [18, 18, 18, 18, 16]  # the third again
    pd.testing.assert_frame_equal(resumed, run(configure(*FEW, "method=neuron_mct", "redo=true")))


@pytest.mark.slow
def test_a_killed_count_continues_behind_its_last_finished_part(configure, trained):
    settings = [*FEW, "method=neuron_mct", "experiment.counting.parts=35", "experiment.counting.images=700"]
    cfg = configure(*settings)
    folder = Job(parse(cfg)).folder
    command = [sys.executable, "-m", "experiments", *SMALL, *settings, f"outputs={trained}"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 240
    while len(finished := sorted(folder.glob("parts/counts-*/*.safetensors"))) < 4:
        assert process.poll() is None, "the job ended before it was killed"
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert read_manifest(folder)["status"] == "running"
    before = {file: file.stat().st_mtime_ns for file in finished[:-1]}
    table = run(cfg)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    pd.testing.assert_frame_equal(table, run(configure(*settings, "redo=true")))


def test_only_correctly_classified_images_are_counted_unless_asked_for(job, trained, monkeypatch):
    made = job(*FEW, "method=neuron_mct", "experiment.restricted=0")
    wrong = torch.zeros(10)
    wrong[3] = 1e4  # the network says 3 to everything
    with torch.no_grad():
        made.model.fc.bias.copy_(wrong)
    table = made.run()
    rows = table[(table.metric == "class_units") & (table.method == "neuron_mct")]
    assert rows.x.tolist() == ["3"]
    assert rows.n.tolist() == [70]
    again = job(*FEW, "method=neuron_mct", "experiment.restricted=0", "experiment.counting.only_correct=true")
    with torch.no_grad():
        again.model.fc.bias.copy_(wrong)
    labels = made.data.train.labels[Division.of(made, 70, 30).counted.indices]
    rows = again.run()
    assert rows[rows.metric == "class_units"].n.tolist() == [int((labels == 3).sum())]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["target=3"], "target must be predicted or label, not 3"),
        (["target=torch.sum"], r"target must be predicted or label, not torch\.sum"),
        (["experiment.counting.images=9"], r"class '\d' has none of the 9 images that are counted"),
        (["experiment.counting.images=9000000"], "9000000 images asked for, the split has"),
        (["experiment.frequency=1"], r"experiment\.frequency must be less than 1"),
        (["experiment.counting.parts=0"], r"experiment\.counting\.parts must be greater than or equal to 1"),
        (["baseline=mean"], "baseline=mean: experiment=class_pathways works with baseline=zero only"),
    ],
)
def test_what_cannot_be_counted_is_refused_before_any_work(job, overrides, message):
    with pytest.raises(InputError, match=message):
        job(*FEW, *overrides, "method=random").run()


def test_labels_that_are_no_classes_are_refused(job):
    made = job(*FEW, "method=random")
    made.data.train.labels[Division.of(made, 70, 30).counted.indices[0]] = 10
    with pytest.raises(InputError, match="labels from 0 to 10, and 10 classes"):
        made.run()


def test_without_training_images_the_others_are_counted(job, monkeypatch):
    made = job(*FEW, "method=random")
    object.__setattr__(made.data, "train", None)
    division = Division.of(made, None, 30)
    assert len(division.counted) + len(division.held_out) == len(made.data.test)
    assert not set(division.counted.ids) & set(division.held_out.ids)
    with pytest.raises(InputError, match=r"say experiment\.held_out=N"):
        Division.of(made, None, None)
    with pytest.raises(InputError, match="more than the 360 of dataset 'digits'"):
        Division.of(made, 340, 30)


def test_a_part_without_a_correct_image_has_no_counter(tmp_path):
    counts = class_counts.Counts([tmp_path], [3], 4, torch.device("cpu"))
    assert str(counts.total(("neuron_mct", 90.0))) == "PathwayCounter(classes=4, inputs=0)"
    empty = cpath.PathwayCounter(2)
    assert math.isnan(_agreement(empty, empty, 0.5))
