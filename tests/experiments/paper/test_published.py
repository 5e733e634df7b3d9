"""The paper's numbers: which stand beside which of ours."""

from __future__ import annotations

import pytest

from cpath.viz import save_drawings
from experiments.engine.config import parse
from experiments.engine.table import Row
from experiments.figures.path_analysis import path_analysis_figures
from experiments.paper.published import SWAPPED_LABELS, _all, published, published_pathways
from experiments.paper.report import Section
from tests.experiments.paper.test_report import _stage

PATHWAYS = ["experiment=path_analysis", "dataset=imagenet", "model=vgg16"]
METHODS = ("neuron_intgrad", "neuron_mct", "greedy_released", "greedy", "dgr", "dgr_random_init", "random")


@pytest.fixture
def config(configure):
    return lambda *overrides: parse(configure(*overrides, small=False))


def _by_pair(rows: list[Row]) -> dict[tuple[str, str], float]:
    return {(row.method, row.metric): row.value for row in rows}


def test_overlaps_stand_at_the_methods_that_they_are_of(config):
    found = _by_pair(published_pathways(config(*PATHWAYS), METHODS, [80, 90]))
    for method in ("neuron_intgrad", "neuron_mct", "dgr"):  # two sets of a tenth: 0.01 / 0.19
        assert found[method, "jaccard/random/published"] == pytest.approx(0.1 / 1.9, abs=1e-4)
    assert found["neuron_mct", "jaccard/dgr/published"] == pytest.approx(0.2959)  # printed as NeuronIntGrad
    assert found["neuron_intgrad", "jaccard/dgr/published"] == pytest.approx(0.2984)
    assert found["neuron_mct", "jaccard/greedy_released/published"] == pytest.approx(0.0668)  # printed as Random
    assert found["greedy_released", "jaccard/random/published"] == pytest.approx(0.0974)
    assert found["random", "dead_share/published"] == 59.51
    assert found["greedy_released", "dead_share/published"] == 68.78
    assert len(found) == 2 * 15 + 6
    for (method, metric), value in found.items():
        if metric.startswith("jaccard/"):
            other = metric.split("/")[1]
            assert found[other, f"jaccard/{method}/published"] == value
    assert not any("greedy" in {method, *metric.split("/")} for method, metric in found), (
        "the released one is published"
    )


def test_what_is_meant_exchanges_two_pairs_of_labels():
    rows = _all()[lambda frame: frame.experiment == "path_analysis"]
    swapped = {"NeuronIntGrad": "NeuronMCT", "NeuronMCT": "NeuronIntGrad", "Greedy": "Random", "Random": "Greedy"}
    overlaps = rows[rows.metric.str.startswith("jaccard_percent/")]
    assert len(overlaps) == 15
    for row in overlaps.itertuples():
        printed = row.method, row.metric.split("/")[1]
        assert row.meant == " with ".join(swapped.get(name, name) for name in printed)
    shares = rows[rows.metric == "dead_share_percent"].set_index("method").meant
    assert shares[shares != ""].to_dict() == {"NeuronIntGrad": "NeuronMCT", "NeuronMCT": "NeuronIntGrad"}


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=vgg19"],
        ["model=vgg16_bn"],
        ["model=resnet50", "model.name=vgg16"],
        ["model=vgg16", "dataset.name=mine"],
        ["model=vgg16", "model.weights=null"],
        ["model=vgg16", "model.weights=IMAGENET1K_FEATURES"],
        ["model=vgg16", "+model.dropout=0.1"],
    ],
)
def test_another_network_or_dataset_has_no_published_number(config, overrides):
    assert published_pathways(config(*PATHWAYS, *overrides), METHODS, [90]) == []


def test_another_sparsity_or_method_has_no_published_number(config):
    assert published_pathways(config(*PATHWAYS), METHODS, [80, 99]) == []
    two = published_pathways(config(*PATHWAYS), ["neuron_mct", "random"], [90])
    assert {(row.method, row.metric) for row in two} == {
        ("neuron_mct", "jaccard/random/published"),
        ("random", "jaccard/neuron_mct/published"),
        ("neuron_mct", "dead_share/published"),
        ("random", "dead_share/published"),
    }


def test_sites_of_another_kind_have_no_published_number(job):
    made = job(*PATHWAYS, small=False)
    assert made.config.experiment._published(made)
    made = job(*PATHWAYS, "sites=[gelu]", small=False)
    assert made.config.experiment._published(made) == []


def test_released_greedy_has_published_numbers_where_it_was_called_as_for_the_paper(job):
    def greedy(*overrides):
        made = job(*PATHWAYS, *overrides, small=False)
        return [row for row in made.config.experiment._published(made) if row.method == "greedy_released"]

    as_called = [
        "+method.greedy_released._target_=experiments.paper.greedy.GreedyAsCalled",
        "method.greedy_released.rounds=99",
        "method.greedy_released.sparsity=99",
        "method.greedy_released.round_zero=true",
    ]
    assert {row.metric for row in greedy(*as_called)} >= {"dead_share/published", "jaccard/random/published"}
    assert greedy() == []
    assert greedy(*as_called, "method.greedy_released.rounds=10") == []
    assert greedy(*as_called[1:]) == []


@pytest.mark.parametrize("experiment", ["lerf", "roar", "sanity_checks", "path_analysis"])
def test_the_narrow_network_never_has_a_published_number(config, experiment):
    for dataset in ("cifar10", "imagenet", "birdsnap"):
        narrow = config("model=resnet8_narrow", "model.name=resnet8", "model.width=64", f"dataset.name={dataset}")
        assert published(experiment, narrow).empty


def test_figure_and_report_show_them_beside_ours(configure, config, tmp_path):
    methods = ("neuron_intgrad", "neuron_mct", "random")
    rows = [
        Row(one, f"jaccard/{other}", 0.5, "sparsity", x, 0.4, 0.6, 9)
        for x in (80.0, 90.0)
        for one in methods
        for other in methods
        if one != other
    ]
    rows += [Row(method, "dead_share", 12.0, "sparsity", x, 11, 13, 9) for x in (80.0, 90.0) for method in methods]
    rows += published_pathways(config(*PATHWAYS), methods, [80, 90])
    stage = _stage(configure(*PATHWAYS, small=False), tmp_path / "job", rows)
    drawings = {drawing.name: drawing for drawing in path_analysis_figures(stage.table)}
    caption = drawings["published"].caption
    assert caption.startswith("Dead shares and overlaps beside the published ones, 90 % pruned.")
    assert SWAPPED_LABELS in caption
    shares, pairs = drawings["published"].figure.axes
    assert [label.get_text() for label in pairs.get_yticklabels()] == [
        "NeuronIntGrad and NeuronMCT",
        "NeuronIntGrad and Random",
        "NeuronMCT and Random",
    ]
    dots = [list(line.get_xdata()) for line in shares.lines]
    assert dots == [[12.0], [12.0], [12.0], [0.0], [0.0], [59.51]]
    assert len(drawings["overlap"].figure.axes) == 3  # two sparsities and a colour bar
    save_drawings([drawings["published"]], tmp_path)
    dead, overlap = Section(stage).published
    assert [cell["published"] for row in dead["rows"] for cell in row["cells"]] == ["0", "0", "59.5"]
    assert (overlap["x_name"], overlap["columns"]) == (
        "sparsity 90, with",
        ["NeuronIntGrad", "NeuronMCT", "Random"],
    )
    assert [(cell["value"], cell["published"]) for cell in overlap["rows"][0]["cells"]] == [
        ("–", ""),
        ("0.5", "0.659"),
        ("0.5", "0.0526"),
    ]
