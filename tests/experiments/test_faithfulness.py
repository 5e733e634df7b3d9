from __future__ import annotations

import pytest
import torch

import cpath
from cpath.evaluation import faithfulness_transfer, other_answer, runner_up
from experiments.engine.measuring import read_per_image
from experiments.faithfulness_controls import random_network
from experiments.figures.faithfulness import faithfulness_figures
from tests.rows import made_row, row_of

SIZES = ["experiment=faithfulness", "experiment.images=5", "experiment.batch=3", "experiment.keep=[1,20,50]"]
SETTINGS = [*SIZES, "experiment.controls.images=0"]
NAMES = ["method=neuron_mct", "+method.greedy_released={rounds: 2}"]


def test_numbers_are_those_of_the_library(job, trained):
    made = job(*SETTINGS, *NAMES)
    table, model = made.run(), made.model
    images = made.sample(5).batch(slice(0, 5))
    scores = cpath.score(model, images)
    found = cpath.faithfulness(model, images, scores, keep=(1, 20, 50))
    for number, share in enumerate((1, 20, 50)):
        for metric in ("sufficiency", "necessity"):
            values = getattr(found, metric)[:, number]
            row = row_of(table, "neuron_mct", metric, share)
            assert (row.value, row.n) == (pytest.approx(values.mean().item(), rel=1e-5), 5)
        kept = row_of(table, "neuron_mct", "units_kept", share)
        assert kept.value == pytest.approx(found.kept[:, number].mean().item())
    for metric in ("cpr", "cmd", "necessity_cpr", "necessity_cmd"):
        values = getattr(found, metric)
        row = row_of(table, "neuron_mct", metric)
        assert row.value == pytest.approx(values.mean().item(), rel=1e-5)
        assert row.ci_low < row.value < row.ci_high
        each = read_per_image(made.folder)
        here = each[(each.method == "neuron_mct") & (each.metric == metric)]
        assert here.image.tolist() == made.sample(5).ids
        assert here.value.tolist() == pytest.approx(values.tolist(), rel=1e-4)
    assert row_of(table, "network", "answer").value == pytest.approx(found.whole.mean().item(), rel=1e-5)
    assert row_of(table, "network", "answer/empty").value == pytest.approx(found.empty.mean().item(), rel=1e-4)
    assert row_of(table, "network", "no_rise").value == 0


def test_random_and_active_units_are_always_beside_and_sets_without_a_rank_are_whole(job, trained):
    made = job(*SETTINGS, *NAMES, "seed=4")
    table, model = made.run(), made.model
    assert set(table.method) == {"network", "neuron_mct", "greedy_released", "random", "active"}
    images = made.sample(5).batch(slice(0, 5))
    random = cpath.faithfulness(model, images, cpath.score(model, images, cpath.methods.Random(seed=4)))
    full = job(*SIZES[:3], "experiment.controls.images=0", *NAMES, "seed=4").run()
    assert row_of(full, "random", "cmd").value == pytest.approx(random.cmd.mean().item(), rel=1e-4)
    active = cpath.score(model, images, "active")
    whole = cpath.faithfulness(model, images, active, keep=(100,))
    for share in (1, 20, 50):  # one set of units, at every size
        assert row_of(table, "active", "sufficiency", share).value == pytest.approx(1, abs=1e-5)
        necessity = row_of(table, "active", "necessity", share).value
        assert necessity == pytest.approx(whole.necessity.mean().item(), rel=1e-4)
        assert row_of(table, "active", "units_kept", share).value == pytest.approx(whole.kept.mean().item())
        searched = cpath.find_pathway(
            model, images, cpath.methods.GreedyReleased(rounds=2), 100 - share, target=whole.target
        )
        kept = row_of(table, "greedy_released", "units_kept", share).value
        assert kept == pytest.approx(100 - searched.sparsity.mean().item())
        with searched.restrict(model), torch.no_grad():
            logits = model(images)
        pair = torch.stack([whole.target, whole.against], 1)
        left = -logits.gather(1, pair).diff(dim=1)[:, 0].double()
        expected = ((left - whole.empty) / (whole.whole - whole.empty)).mean().item()
        assert row_of(table, "greedy_released", "sufficiency", share).value == pytest.approx(expected, rel=1e-4)


def test_any_question_is_measured(job, trained):
    made = job(*SETTINGS, "method=neuron_mct", "unit=channel", "baseline=mean", "target=3")
    table = made.run()
    images = made.sample(5)
    arguments = made.question.arguments(next(images.batches(5)))
    scores = cpath.score(made.model, images.batch(slice(0, 5)), "neuron_mct", **arguments)
    found = cpath.faithfulness(made.model, images.batch(slice(0, 5)), scores, keep=(1, 20, 50))
    assert found.target.tolist() == [3] * 5
    assert row_of(table, "neuron_mct", "cmd").value == pytest.approx(found.cmd.mean().item(), rel=1e-4)


def test_a_function_of_the_output_is_measured(job, trained, users):
    users.write("answers", "def gap(output):\n    return output[:, 2] - output[:, 5]\n")
    made = job(*SETTINGS, "method=neuron_mct", "target=answers.gap")
    table = made.run()
    images = made.sample(5).batch(slice(0, 5))

    def gap(output: torch.Tensor) -> torch.Tensor:
        return output[:, 2] - output[:, 5]

    scores = cpath.score(made.model, images, target=gap)
    found = cpath.faithfulness(made.model, images, scores, gap, keep=(1, 20, 50))
    assert row_of(table, "neuron_mct", "cpr").value == pytest.approx(found.cpr.mean().item(), rel=1e-4)
    assert row_of(table, "network", "answer").value == pytest.approx(
        gap(made.model(images)).mean().item(), rel=1e-4
    )


def test_inputs_without_a_rise_are_counted_and_left_out(job, trained, monkeypatch):
    plain = cpath.faithfulness

    def partly_undefined(*args, **kwargs):
        found = plain(*args, **kwargs)
        found.sufficiency[0] = found.necessity[0] = float("nan")
        return found

    monkeypatch.setattr(cpath, "faithfulness", partly_undefined, raising=False)
    table = job(*SETTINGS, "method=neuron_mct").run()
    assert row_of(table, "network", "no_rise").value == 40  # the first of three and of two
    assert row_of(table, "neuron_mct", "cmd").n == 3


# Controls


def test_controls_are_those_of_the_library_on_the_first_inputs(job, trained):
    made = job(
        *SIZES, "method=neuron_mct", "experiment.controls.images=4", "experiment.controls.copies=[shift,crop]"
    )
    table, model = made.run(), made.model
    images = made.sample(5).batch(slice(0, 4))
    scores, keep = cpath.score(model, images), (1, 20, 50)
    own = cpath.faithfulness(model, images, scores, keep=keep).cmd
    copies = faithfulness_transfer(model, images, scores, keep=keep)
    other = cpath.score(model, images, target=runner_up(model, images))
    network = random_network(made)
    assert not any(
        torch.equal(a, b) for a, b in zip(network.parameters(), model.parameters(), strict=True) if a.dim() > 1
    )
    expected = {
        "shift": copies["shift"].cmd,
        "crop": copies["crop"].cmd,
        "transfer": (copies["shift"].cmd + copies["crop"].cmd) / 2,
        "other_answer": other_answer(model, images, other, keep=keep).cmd,
        "random_weights": cpath.faithfulness(network, images, cpath.score(network, images), keep=keep).cmd,
    }
    found = read_per_image(made.folder)
    for name, values in expected.items():
        row = row_of(table, "neuron_mct", f"cmd/{name}")
        assert (row.value, row.n) == (pytest.approx(values.mean().item(), rel=1e-4), 4)
        each = found[(found.method == "neuron_mct") & (found.metric == f"cmd/{name}")].value
        assert each.tolist()[:4] == pytest.approx(values.tolist(), rel=1e-3)
        assert each.isna().tolist() == [False] * 4 + [True]
    for name in ("transfer", "other_answer"):
        rise = row_of(table, "neuron_mct", f"cmd_rise/{name}")
        assert rise.value == pytest.approx((expected[name] - own).mean().item(), abs=1e-4)
    assert not set(table.metric) & {"cmd/noise", "cmd/compression", "cmd_rise/random_weights"}
    assert {row.method for row in table[table.metric == "cmd/transfer"].itertuples()} == {
        *("neuron_mct", "random", "active"),
    }


def test_controls_without_a_meaning_are_left_out(job, trained, users):
    users.write("answers", "def gap(output):\n    return output[:, 2] - output[:, 5]\n")
    shown = "experiment.controls.copies=[]"
    for target, controls in (("answers.gap", {"cmd/random_weights"}), ("3", {"cmd/random_weights"})):
        table = job(*SIZES, "method=neuron_mct", f"target={target}", shown).run()
        assert {metric for metric in table.metric if "/" in metric} == {*controls, "answer/empty"}
    off = ["experiment.controls.other_answer=false", "experiment.controls.random_weights=false"]
    table = job(*SIZES, "method=neuron_mct", shown, *off).run()
    assert {metric for metric in table.metric if "/" in metric} == {"answer/empty"}


def test_units_without_a_rank_and_searches_for_one_size_have_controls(job, trained):
    made = job(*SIZES, "method.greedy_released.rounds=2", "method=greedy_released")
    table, model = made.run(), made.model
    images = made.sample(5).batch(slice(0, 5))
    one, other = model(images).argmax(1), runner_up(model, images)
    distances = []
    for share in (1, 20, 50):
        method = cpath.methods.GreedyReleased(rounds=2).at(100 - share)
        scores = cpath.score(model, images, method, other)
        distances.append(other_answer(model, images, scores, keep=(100,)).cmd)
    value = row_of(table, "greedy_released", "cmd/other_answer").value
    assert value == pytest.approx(torch.stack(distances).mean().item(), rel=1e-4)
    assert not torch.equal(one, other)


def test_figures_show_every_method_once_in_each_panel(job, trained, figures):
    made = job(*SIZES, *NAMES)
    curves, numbers, controls = faithfulness_figures(made.run())
    assert [panel.get_title() for panel in controls.figure.axes] == ["Transfer", "Another answer"]
    for panel in controls.figure.axes:
        assert len(panel.containers) == 4
    for panel in curves.figure.axes:
        assert sum(len(line.get_xdata()) == 3 for line in panel.lines) == 4
        assert [label.get_text() for label in panel.get_xticklabels()] == ["1", "20", "50"]
    names = [label.get_text() for label in numbers.figure.axes[0].get_yticklabels()]
    assert names == ["NeuronMCT", "Random", "Active subnetwork", "Greedy (released code)"]
    files = {path.name for path in (made.folder / "figures").iterdir()}
    assert {"faithfulness.png", "faithfulness_numbers.svg"} <= files


def test_curves_that_leave_the_figure_are_named():
    import pandas as pd

    rows = [
        made_row(method, metric, value * factor, "keep", share)
        for method, factor in (("dgr", 9.0), ("random", 0.1))
        for metric in ("sufficiency", "necessity")
        for share, value in ((1.0, 0.5), (10.0, 1.0))
    ]
    rows += [made_row("dgr", metric, 4.5) for metric in ("cmd", "necessity_cmd")]
    curves, numbers = faithfulness_figures(pd.DataFrame(rows))
    assert curves.caption.endswith("Beyond the range that is shown: DGR.")
    low, high = curves.figure.axes[0].get_ylim()
    assert -1.2 < low < 0.1 < 1 < high < 2.7
    assert numbers.figure.axes[0].get_xlim()[1] > 4.5
