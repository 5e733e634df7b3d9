"""The benchmark: that it measures what it says, and that what it is held against computes the same."""

from __future__ import annotations

import shutil
import subprocess
import time

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cpath
from cpath.data import crop_and_flip
from cpath.errors import UnknownNameError
from cpath.models import resnet8, torchvision_model
from experiments import CONF, benchmark
from experiments.figures.benchmark import benchmark_figures
from experiments.framework import bare
from experiments.framework.timing import CAPTUM, FLOOR, NAIVE, Case, Rival, measure

CPU = torch.device("cpu")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return torchvision_model("squeezenet1_0", 10).eval().double()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_every_case_is_measured_against_its_rivals(configure):
    cfg = configure(
        "experiment=benchmark",
        "experiment.models=[squeezenet1_0]",
        "experiment.batch=2",
        "experiment.size=32",
        "experiment.repeats=1",
        "experiment.nodes=2",
        "experiment.greedy_rounds=2",
        "experiment.dgr_iterations=2",
        "experiment.threshold=[2,100000]",
        "experiment.training=[32,16,1]",
        "experiment.batches=[1,2]",
        "experiment.sites=[2,4]",
        "experiment.sparsities=[1,2]",
    )
    table = benchmark.run(cfg)
    ratios = table[table.metric.str.startswith("ratio_to_")]
    measured = ratios.groupby("method").metric.unique().map(sorted).to_dict()
    assert measured["neuron_mct"] == ["ratio_to_floor", "ratio_to_naive"]
    assert measured["neuron_intgrad"] == ["ratio_to_captum", "ratio_to_naive"]
    for method in ("threshold", "greedy", "dgr", "degradation", "training_step"):
        assert measured[method] == ["ratio_to_floor"]
    for method in ("attributions", "gradients", "input_mct", "input_intgrad", "gbp", "gradcam"):
        assert measured[method] == ["ratio_to_captum"]
    assert len(ratios[ratios.x_name == "images"]) == 2
    assert len(ratios[ratios.x_name == "sites"]) == 4
    assert len(ratios[ratios.x_name == "sparsities"]) == 2
    seconds = table[table.metric == "seconds"].set_index(["method", "x_name", "x"]).value
    ratio = ratios[(ratios.method == "neuron_mct") & (ratios.metric == "ratio_to_floor")].value.item()
    assert seconds.index.is_unique
    at, passes = ("model", "squeezenet1_0"), "forward and input-only backward (beside neuron_mct)"
    assert ratio == pytest.approx(seconds["neuron_mct", *at] / seconds[passes, *at])
    assert (table[table.metric == "limit_to_floor"].value > 1).all()
    assert (table[table.metric == "peak_megabytes"].value >= 0).all()


def test_an_unknown_case_names_those_there_are(configure):
    with pytest.raises(UnknownNameError, match=r"unknown case .gready.*greedy"):
        benchmark.run(configure("experiment=benchmark", "experiment.cases=[gready]"))


def test_a_stopped_benchmark_goes_on_behind_its_last_finished_case(configure, monkeypatch):
    begun = []

    def one(name: str, fails: bool = False):
        def cases(cfg, device):
            begun.append(name)
            if fails:
                raise KeyboardInterrupt
            yield Case(name, "here", _sleep(0.01), {FLOOR: Rival("a nap", _sleep(0.01))})

        return cases

    cfg = configure("experiment=benchmark", "experiment.cases=[first,second]", "experiment.repeats=1")
    monkeypatch.setattr(benchmark, "_CASES", {"first": one("first"), "second": one("second", fails=True)})
    with pytest.raises(KeyboardInterrupt):
        benchmark.run(cfg)
    monkeypatch.setattr(benchmark, "_CASES", {"first": one("first"), "second": one("second")})
    table = benchmark.run(cfg)
    assert begun == ["first", "second", "second"]
    assert set(table[table.metric == "ratio_to_floor"].method) == {"first", "second"}
    assert (table[table.metric == "ratio_to_floor"].dataset == "noise").all()


def _sleep(seconds: float):
    return lambda: time.sleep(seconds)


def test_times_are_medians_less_the_start_and_for_as_much_work():
    case = Case(
        "sleep",
        "here",
        _sleep(0.3),
        {NAIVE: Rival("a nap", _sleep(0.05), times=4)},
        start=_sleep(0.1),
        limits={NAIVE: 2},
    )
    rows = {(row.method, row.metric): row.value for row in measure(case, 3, CPU)}
    # Never less than it slept; how much more is the machine's business.
    ours, theirs = rows["sleep", "seconds"], rows["a nap (beside sleep)", "seconds"]
    assert ours > 0.15
    assert theirs >= 4 * 0.05
    assert rows["sleep", "ratio_to_naive"] == pytest.approx(ours / theirs)
    assert rows["sleep", "processor_ratio_to_naive"] != pytest.approx(ours / theirs)
    assert rows["sleep", "limit_to_naive"] == 2


def test_memory_is_that_of_the_work():
    case = Case("memory", "here", lambda: torch.ones(25_000_000).sum(), {})
    found = {row.metric: row.value for row in measure(case, 1, CPU)}
    assert found["peak_megabytes"] == pytest.approx(100, rel=0.5)


def test_the_naive_loop_finds_the_same_pathways(model, images):
    expected = cpath.find_pathway(model, images, "neuron_mct", 90)
    assert torch.equal(torch.stack(bare.naive_mct(model, images, 90.0)), expected.flat)
    model.zero_grad(set_to_none=True)


def test_the_naive_loop_integrates_the_same(model, images):
    method = cpath.methods.NeuronIntGrad(nodes=3, rule="midpoint", residual=False)
    expected = cpath.score(model, images[:1], method)
    found = bare.naive_intgrad(model, images[0], 3)
    for ours, theirs in zip(expected.values.values(), found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", ["gradients", "input_mct", "gbp"])
def test_captum_is_called_for_the_same_maps(model, images, name):
    torch.testing.assert_close(
        bare.captum_attributions(model, images)[name](), cpath.attribute(model, images, name), rtol=1e-6, atol=1e-9
    )


def test_bare_steps_train(monkeypatch):
    pixels = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(64) % 2
    pixels[labels == 1] //= 4
    model = resnet8(2)

    def loss() -> float:
        with torch.no_grad():
            return F.cross_entropy(model.eval()((pixels.float() / 255 - 0.5) / 0.25), labels).item()

    before = loss()
    bare.training_steps(model, pixels, labels, lambda images, draws: crop_and_flip(images, draws, flip=True), 8, 16)
    assert loss() < 0.5 * before


def test_a_gated_pass_leaves_no_hook(model, images):
    bare.gated_forward_backward(model, images)
    assert not any(module._forward_hooks for module in model.modules())


def _table(*rows: tuple[str, str, str, str, float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": what,
                "x_name": at,
                "x": x,
                "metric": metric,
                "value": value,
                "ci_low": value,
                "ci_high": value,
            }
            for what, at, x, metric, value in rows
        ]
    )


def test_ratios_and_limits_are_drawn_where_they_belong():
    table = _table(
        ("greedy", "model", "vgg16", f"ratio_to_{FLOOR}", 1.1),
        ("greedy", "model", "vgg16", f"limit_to_{FLOOR}", 1.15),
        ("gbp", "model", "vgg16", f"ratio_to_{CAPTUM}", 0.5),
    )
    (drawing,) = benchmark_figures(table)
    (panel,) = drawing.figure.axes
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["greedy / vgg16", "gbp / vgg16"]
    points = {c.get_label(): c[0].get_xydata().tolist() for c in panel.containers}
    assert points == {"the passes it must contain": [[1.1, 0]], "Captum": [[0.5, 1]]}
    (limit,) = [line for line in panel.lines if line.get_color() == "#D55E00"]
    assert list(limit.get_xdata()) == [1.15, 1.15]
    assert benchmark_figures(table[:0].reindex(columns=table.columns)) == []


def test_times_are_drawn_over_what_grows():
    table = _table(
        *(("neuron_mct, net", "images", str(x), "seconds", 2.0 * x) for x in (1, 2)),
        *(("passes", "images", str(x), "seconds", 1.0 * x) for x in (1, 2)),
        *(("neuron_mct, net", "images", str(x), f"ratio_to_{FLOOR}", 2.0) for x in (1, 2)),
    )
    (drawing,) = benchmark_figures(table)
    ours, floor = drawing.figure.axes[0].lines
    assert (ours.get_ydata().tolist(), ours.get_linestyle()) == ([2, 4], "-")
    assert (floor.get_ydata().tolist(), floor.get_linestyle()) == ([1, 2], "--")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_bench_measures_anew():
    done = subprocess.run(["make", "-n", "bench"], cwd=CONF.parent, capture_output=True, text=True, check=True)
    assert "experiment=benchmark redo=true" in done.stdout
