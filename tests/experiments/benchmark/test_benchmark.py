from __future__ import annotations

import shutil
import subprocess
import time
from importlib.util import find_spec

import pytest
from hydra.errors import CompactHydraException

from cpath.errors import InputError, UnknownNameError
from experiments import CONF
from experiments.benchmark import benchmark
from experiments.benchmark.benchmark import Benchmark
from experiments.benchmark.timing import FLOOR, Case, Rival
from experiments.engine.choices import explained
from experiments.engine.job import run

TINY = [
    "experiment=benchmark",
    "experiment.models=[squeezenet1_0]",
    "experiment.batch=2",
    "experiment.size=32",
    "experiment.repeats=1",
    "experiment.nodes=2",
    "experiment.greedy_rounds=2",
    "experiment.dgr_iterations=2",
    "experiment.learned_steps=2",
    "experiment.threshold=[2,100000]",
    "experiment.training=[32,16,1]",
    "experiment.classes=[3,1,2]",
    "experiment.transformer=vit_b_32",
    "experiment.texts=[2,4,2]",
    "experiment.batches=[1,2]",
    "experiment.sites=[2,4]",
    "experiment.pathways=[1,2]",
]


def test_ratios_are_of_medians_and_every_row_has_its_limit_and_memory(configure):
    table = run(configure(*TINY, "experiment.cases=[threshold,neuron_mct,greedy,classes,scaling_sites]"))
    assert set(table.metric) <= {metric.name for metric in Benchmark.metrics}
    ratios = table[table.metric.str.startswith("ratio_to_")]
    assert set(ratios.method) >= {"threshold", "neuron_mct", "greedy", "pathways of classes"}
    assert len(ratios[ratios.x_name == "sites"]) == 4
    seconds = table[table.metric == "seconds"].set_index(["method", "x_name", "x"]).value
    ratio = ratios[(ratios.method == "neuron_mct") & (ratios.metric == "ratio_to_floor")].value.item()
    assert seconds.index.is_unique
    at, passes = ("model", "squeezenet1_0"), "forward and input-only backward (beside neuron_mct)"
    assert ratio == pytest.approx(seconds["neuron_mct", *at] / seconds[passes, *at])
    assert (table[table.metric == "limit_to_floor"].value >= 1).all()
    assert (table[table.metric == "peak_megabytes"].value >= 0).all()


@pytest.mark.slow
def test_every_case_is_measured_against_its_rivals(configure):
    table = run(configure(*TINY))
    ratios = table[table.metric.str.startswith("ratio_to_")]
    measured = ratios.groupby("method").metric.unique().map(sorted).to_dict()
    assert measured["neuron_mct"] == ["ratio_to_floor", "ratio_to_naive"]
    assert measured["neuron_intgrad"] == ["ratio_to_captum", "ratio_to_naive"]
    for method in ("threshold", "greedy", "dgr", "learned_ranking", "faithfulness", "degradation"):
        assert measured[method] == ["ratio_to_floor"]
    for method in ("training_step", "stacked_cells", "pathways of classes"):
        assert measured[method] == ["ratio_to_floor"]
    for method in ("neuron_mct of heads", "neuron_intgrad to a tolerance"):
        assert measured[method] == ["ratio_to_floor"]
    for method in ("neuron_mct", "greedy", "dgr"):
        assert measured[f"{method} of channels"] == ["ratio_to_floor"]
    for method in ("neuron_intgrad with residual", "neuron_intgrad with residual, one image"):
        assert measured[method] == ["ratio_to_captum"]
    if find_spec("transformers") is not None:
        assert measured["neuron_intgrad of text"] == ["ratio_to_naive"]
    for method in ("attributions", "gradients", "input_mct", "input_intgrad", "gbp", "gradcam"):
        assert measured[method] == ["ratio_to_captum"]
    assert len(ratios[ratios.x_name == "images"]) == 2
    assert len(ratios[ratios.x_name == "sites"]) == 4
    assert len(ratios[ratios.x_name == "pathways"]) == 2
    assert (table[table.metric.isin(["limit_to_captum", "limit_to_naive"])].value < 1.25).all()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment.cases=[gready]", r"unknown case .*'gready'.*Did you mean greedy"),
        ("experiment.models=[resnet51]", r"unknown torchvision model 'resnet51'.*resnet50"),
        ("experiment.transformer=vit_b_61", r"unknown torchvision model 'vit_b_61'.*vit_b_16"),
        ("experiment.slow_models=[squeezenet]", r"unknown torchvision model 'squeezenet'.*squeezenet1_0"),
    ],
)
def test_an_unknown_name_is_refused_with_those_there_are(job, override, message):
    with pytest.raises(UnknownNameError, match=message):
        job("experiment=benchmark", override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("experiment.repeats=0", "experiment.repeats must be greater than or equal to 1; got 0"),
        ("experiment.repeats=1.5", "experiment.repeats must be a valid integer"),
        ("experiment.batch=0", "experiment.batch must be greater than or equal to 1"),
        ("experiment.size=-1", "experiment.size must be greater than or equal to 1"),
        ("experiment.nodes=true", "experiment.nodes must be a valid integer"),
        ("experiment.greedy_rounds=0", "experiment.greedy_rounds must be greater than or equal to 1"),
        ("experiment.dgr_iterations=null", "experiment.dgr_iterations must be a valid integer"),
        (
            "experiment.threshold=[2]",
            r"experiment.threshold must be 2 whole numbers, \[images, neurons\]; got \[2\]",
        ),
        ("experiment.threshold=8", "experiment.threshold must be 2 whole numbers"),
        ("experiment.threshold=[2,0]", r"experiment.threshold\[1\] must be greater than or equal to 1"),
        ("experiment.training=[32,16]", r"experiment.training must be 3 whole numbers, \[images, batch, epochs\]"),
        ("experiment.training=[32,16,a]", r"experiment.training\[2\] must be a valid integer"),
        ("experiment.batches=[]", "experiment.batches must have at least 1 item"),
        ("experiment.batches=[0]", r"experiment.batches\[0\] must be greater than or equal to 1"),
        ("experiment.batches=[2,2]", "experiment.batches must be different values"),
        ("experiment.sites=3", "experiment.sites must be a valid list"),
        ("experiment.pathways=[1.5]", r"experiment.pathways\[0\] must be a valid integer"),
        ("experiment.cases=[]", "experiment.cases must have at least 1 item"),
        ("experiment.cases=[greedy,greedy]", "experiment.cases must be different values"),
        ("experiment.models=[]", "experiment.models must have at least 1 item"),
        ("experiment.models=[1]", r"experiment.models\[0\] must be a valid string"),
        ("experiment.size=8", r"experiment.size: \w+ cannot take images of 8 × 8 pixels"),
        ("experiment.models=[mobilenet_v2]", "experiment.models: mobilenet_v2 has no ReLU"),
        ("experiment.texts=[2,4]", r"experiment.texts must be 3 whole numbers, \[texts, tokens, layers\]"),
        (
            "experiment.transformer=resnet50",
            "experiment.transformer: resnet50 cannot be made for images of 224 × 224",
        ),
        ("experiment.size=100", "experiment.transformer: vit_b_16 cannot be made for images of 100 × 100"),
    ],
)
def test_an_unusable_setting_is_refused_before_any_work(job, tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        job("experiment=benchmark", override).run()
    assert list(tmp_path.iterdir()) == []


def test_the_earlier_name_of_pathways_is_told(configure):
    with pytest.raises(CompactHydraException) as error:
        configure("experiment=benchmark", "experiment.sparsities=[1,2]")
    assert "of a benchmark, 'experiment.pathways' now" in explained(error.value)


def _naps(name: str, begun: list[str], stopped: bool = False):
    def cases(setup):
        begun.append(name)
        if stopped:
            raise KeyboardInterrupt
        yield Case(name, "here", lambda: time.sleep(0.01), {FLOOR: Rival("a nap", lambda: time.sleep(0.01))})

    return cases


def test_a_stopped_benchmark_continues_after_its_last_finished_case(job, monkeypatch):
    begun: list[str] = []
    settings = "experiment=benchmark", "experiment.cases=[first,second]", "experiment.repeats=1"
    naps = {"first": _naps("first", begun), "second": _naps("second", begun, stopped=True)}
    monkeypatch.setattr(benchmark, "CASES", naps)
    with pytest.raises(KeyboardInterrupt):
        job(*settings).run()
    naps["second"] = _naps("second", begun)
    table = job(*settings).run()
    assert begun == ["first", "second", "second"]
    assert set(table[table.metric == "ratio_to_floor"].method) == {"first", "second"}
    assert (table[table.metric == "ratio_to_floor"].dataset == "noise").all()
    job(*settings, "redo=true").run()
    assert begun == ["first", "second", "second", "first", "second"]


def test_a_case_whose_package_is_not_installed_is_left_out_and_said(job, monkeypatch):
    begun: list[str] = []
    monkeypatch.setattr(benchmark, "CASES", {name: _naps(name, begun) for name in ("first", "second")})
    monkeypatch.setattr(benchmark, "NEEDS", {"second": "a_package_that_nobody_has"})
    with pytest.warns(UserWarning, match=r"'second' is left out: it needs a_package.* \(pip install a_package"):
        table = job("experiment=benchmark", "experiment.cases=[first,second]", "experiment.repeats=1").run()
    assert begun == ["first"]
    assert set(table[table.metric == "ratio_to_floor"].method) == {"first"}


def test_another_machine_has_a_benchmark_of_its_own(job):
    keys = {job("experiment=benchmark", *more).key.name for more in ([], ["threads=1"], ["device=cpu"])}
    assert len(keys) == 3


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_bench_measures_anew():
    done = subprocess.run(["make", "-n", "bench"], cwd=CONF.parent, capture_output=True, text=True, check=True)
    assert "experiment=benchmark redo=true" in done.stdout
