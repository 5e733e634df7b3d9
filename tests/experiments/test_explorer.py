"""The explorer's job: its table and page hold the library's numbers, and it goes on where it stopped."""

from __future__ import annotations

import numpy as np
import pytest

import cpath
from cpath.errors import CpathError
from experiments import explorer
from experiments.explorer import PAGE
from tests.rows import row_of
from tests.viz.explorer_page import Page

SETTINGS = ["experiment=explorer", "experiment.images=3", "experiment.batch=2", "sparsity=[60,95]"]
METHODS = "method=[neuron_mct,random]"


def test_table_and_page_hold_the_numbers_of_the_library(job, trained):
    made = job(*SETTINGS, METHODS, "+method.greedy_released={rounds: 2}")
    table, model = made.run(), made.model
    images = made.sample(3).batch(slice(0, 3))
    scores = cpath.score(model, images)
    found = cpath.faithfulness(model, images, scores, keep=(5, 40))
    for number, keep in enumerate((5, 40)):
        for metric in ("sufficiency", "necessity"):
            expected = getattr(found, metric)[:, number].mean().item()
            assert row_of(table, "neuron_mct", metric, keep).value == pytest.approx(expected, rel=1e-4)
        pathway = scores.pathway(100 - keep)
        kept = 100 - pathway.sparsity.mean().item()
        assert row_of(table, "neuron_mct", "units_kept", keep).value == pytest.approx(kept)
        with pathway.restrict(model):
            same = (model(images).argmax(1) == scores.target).double().mean().item()
        assert row_of(table, "neuron_mct", "class_kept", keep).value == pytest.approx(100 * same)
    channels = cpath.score(model, images, unit="channel").pathway(60)
    kept = 100 - channels.sparsity.mean().item()
    assert row_of(table, "neuron_mct", "units_kept/channel", 40).value == pytest.approx(kept)
    assert "units_kept/channel" not in set(table[table.method == "greedy_released"].metric)

    page = Page((made.folder / PAGE).read_text(encoding="utf-8"))
    assert [unit["kind"] for unit in page.facts["units"]] == ["neuron", "channel"]
    assert page.facts["units"][1]["methods"] == [0, 1]
    labels = made.data.test.labels[made.sample(3).indices].tolist()
    assert [one["true"] for one in page.facts["inputs"]] == labels
    assert [one["target"] for one in page.facts["inputs"]] == scores.target.tolist()
    for number in range(3):  # two batches, one page
        places = page.arrays(number, 0, 0)["kept"].reshape(2, -1)[1]
        assert places.tolist() == [int(mask[number].sum()) for mask in scores.pathway(95).masks.values()]


def test_any_question_is_explored(job, trained):
    made = job(
        *SETTINGS, "method=neuron_mct", "unit=channel", "baseline=mean", "target=3", "experiment.more_units=[]"
    )
    table = made.run()
    images = made.sample(3)
    arguments = made.question.arguments(next(images.batches(3)))
    scores = cpath.score(made.model, images.batch(slice(0, 3)), "neuron_mct", **arguments)
    found = cpath.faithfulness(made.model, images.batch(slice(0, 3)), scores, keep=(5, 40))
    expected = found.sufficiency[:, 1].mean().item()
    assert row_of(table, "neuron_mct", "sufficiency", 40).value == pytest.approx(expected, rel=1e-4)
    page = Page((made.folder / PAGE).read_text(encoding="utf-8"))
    assert [one["target"] for one in page.facts["inputs"]] == [3, 3, 3]
    assert [unit["kind"] for unit in page.facts["units"]] == ["channel"]


def test_a_stopped_job_goes_on_after_the_last_batch(job, trained, monkeypatch):
    plain, examined = explorer.examine, []

    def stopping(model, images, *rest):
        if len(examined) == 1:
            raise KeyboardInterrupt
        examined.append(len(images))
        return plain(model, images, *rest)

    monkeypatch.setattr(explorer, "examine", stopping)
    with pytest.raises(KeyboardInterrupt):
        job(*SETTINGS, METHODS, "experiment.more_units=[]").run()
    monkeypatch.setattr(explorer, "examine", lambda model, images, *rest: plain(model, images, *rest))
    again = job(*SETTINGS, METHODS, "experiment.more_units=[]")
    seen = []
    monkeypatch.setattr(
        explorer, "examine", lambda model, images, *rest: seen.append(len(images)) or plain(model, images, *rest)
    )
    table = again.run()
    assert (examined, seen) == ([2], [1])
    assert np.isfinite(row_of(table, "random", "sufficiency", 40).value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sparsity=[95,60]", "must ascend"),
        ("sparsity=[50,100]", "sparsity"),
        ("experiment.more_units=[pixel]", "more_units"),
        ("experiment.channels=0", "channels"),
        ("sparsity=[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "16"),
        ("dataset=topics", "about images"),
    ],
)
def test_settings_that_cannot_work_are_refused(job, setting, message):
    with pytest.raises(CpathError, match=message):
        job(*SETTINGS, METHODS, setting, small=not setting.startswith("dataset")).run()
