"""The explorer's numbers are the library's, and what cannot be explored is refused before any work."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cpath
from cpath.errors import InputError, SiteError, UnknownNameError
from cpath.viz.explorer import Plan, api
from cpath.viz.explorer.packing import png
from cpath.viz.explorer.places import SiteGrid, pooled
from tests.viz.explorer_page import STOPS, Page, images, network

METHODS = {
    "neuron_mct": cpath.methods.get("neuron_mct"),
    "random": cpath.methods.get("random"),
    "greedy_released": cpath.methods.get("greedy_released", rounds=2),
    "active": cpath.methods.get("active"),
}


@pytest.fixture(scope="module")
def page() -> Page:
    units = ["neuron", "channel"]
    return Page(cpath.explore(network(), images(), METHODS, sparsity=STOPS, unit=units, channels=3).html)


pytestmark = pytest.mark.filterwarnings("ignore::cpath.EmptyPathwayWarning")  # 3 % of 20 channels


@pytest.fixture
def pathway_of():
    """The pathway of a method at a stop of the slider, of all images."""

    def find(name: str, stop: int, unit: str = "neuron") -> cpath.Pathway:
        return cpath.find_pathway(network(), images(), METHODS[name], STOPS[stop], unit=unit)

    return find


def _methods(page: Page, unit: int) -> dict[str, int]:
    return {page.facts["methods"][number]["name"]: number for number in page.facts["units"][unit]["methods"]}


def test_methods_that_know_neurons_only_are_left_out_of_other_units(page):
    assert list(_methods(page, 0)) == ["neuron_mct", "random", "active", "greedy_released"]
    assert list(_methods(page, 1)) == ["neuron_mct", "random", "active"]
    assert [unit["total"] for unit in page.facts["units"]] == [362, 20]


@pytest.mark.parametrize("name", METHODS)
def test_kept_units_and_their_places_are_those_of_the_pathways(page, pathway_of, name):
    for stop in range(len(STOPS)):
        pathway = pathway_of(name, stop)
        for number in range(3):
            arrays = page.arrays(number, 0, _methods(page, 0)[name])
            masks = [mask[number] for mask in pathway.masks.values()]
            assert arrays["kept"].reshape(len(STOPS), 3)[stop].tolist() == [int(mask.sum()) for mask in masks]
            places = np.split(arrays["places"].reshape(len(STOPS), -1)[stop], [64, 64 + 16])
            np.testing.assert_array_equal(places[0].reshape(8, 8), masks[0].sum(0))
            np.testing.assert_array_equal(places[1].reshape(4, 4), masks[1].sum(0))
            assert places[2].tolist() == [int(masks[2].sum())]


@pytest.mark.parametrize("name", METHODS)
def test_classes_are_those_of_the_restricted_network(page, pathway_of, name):
    with torch.no_grad():
        whole = network()(images()).double().softmax(1)
    for stop in range(len(STOPS)):
        with pathway_of(name, stop).restrict(network_ := network()), torch.no_grad():
            restricted = network_(images()).double().softmax(1)
        for number in range(3):
            facts, arrays = page.facts["inputs"][number], page.arrays(number, 0, _methods(page, 0)[name])
            listed = whole[number].argsort(descending=True)[:5]
            assert facts["classes"] == listed.tolist()
            assert facts["predicted"] == facts["target"] == int(listed[0])
            np.testing.assert_allclose(facts["probability"], whole[number, listed], rtol=1e-6)
            of_stop = {key: arrays[key].reshape(len(STOPS), 5)[stop] for key in ("listed", "top", "top_whole")}
            np.testing.assert_allclose(of_stop["listed"], restricted[number, listed], rtol=1e-5)
            assert of_stop["top"].tolist() == restricted[number].argsort(descending=True)[:5].tolist()
            np.testing.assert_allclose(of_stop["top_whole"], whole[number, of_stop["top"].astype(int)], rtol=1e-6)


@pytest.mark.parametrize(("unit", "kind"), [(0, "neuron"), (1, "channel")])
def test_faithfulness_is_that_of_the_library_at_every_stop(page, unit, kind):
    scores = cpath.score(network(), images(), "neuron_mct", unit=kind)
    found = cpath.faithfulness(network(), images(), scores, keep=[100 - stop for stop in reversed(STOPS)])
    for number in range(3):
        arrays = page.arrays(number, unit, _methods(page, unit)["neuron_mct"])
        np.testing.assert_allclose(arrays["sufficiency"][::-1], found.sufficiency[number], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(arrays["necessity"][::-1], found.necessity[number], rtol=1e-4, atol=1e-6)


def test_faithfulness_of_a_set_without_a_rank_is_that_of_the_whole_set(page):
    found = cpath.faithfulness(network(), images(), cpath.score(network(), images(), "active"), keep=[100])
    for number in range(3):
        arrays = page.arrays(number, 0, _methods(page, 0)["active"])
        np.testing.assert_allclose(arrays["necessity"], found.necessity[number].repeat(4), rtol=1e-4)


@pytest.mark.parametrize("unit", [0, 1])
def test_overlaps_are_those_of_the_pathways(page, pathway_of, unit):
    names = list(_methods(page, unit))
    pairs = [(one, two) for place, one in enumerate(names) for two in names[place + 1 :]]
    kind = page.facts["units"][unit]["kind"]
    found = {name: [pathway_of(name, stop, kind) for stop in range(len(STOPS))] for name in names}
    overlaps = {
        (one, two): [first.jaccard(second) for first, second in zip(found[one], found[two], strict=True)]
        for one, two in pairs
    }
    for number in range(3):
        shared = page.arrays(number, unit, "shared")["shared"].reshape(len(pairs), len(STOPS), 3)
        for place, (one, two) in enumerate(pairs):
            kept = [page.arrays(number, unit, _methods(page, unit)[name])["kept"] for name in (one, two)]
            for stop in range(len(STOPS)):
                either = sum(counts.reshape(len(STOPS), 3)[stop].sum() for counts in kept)
                common = shared[place, stop].sum()
                expected = float(overlaps[one, two][stop][number])
                assert (common / (either - common) if either else np.nan) == pytest.approx(expected, nan_ok=True)


def test_the_strongest_channels_have_the_largest_sums_of_scores(page, pathway_of):
    scores = cpath.score(network(), images(), "neuron_mct")
    for number in range(3):
        arrays = page.arrays(number, 0, _methods(page, 0)["neuron_mct"])
        bits = np.split(arrays["channel_places"], [3 * 64, 3 * 64 + 3 * 16])[1].reshape(3, 4, 4)
        sums = scores.values["3"][number].double().sum((1, 2))
        strongest = sums.argsort(descending=True)[:3]
        assert arrays["channels"].reshape(3, 3)[1].tolist() == strongest.tolist()
        share = 100 * sums[strongest] / sums.sum()
        np.testing.assert_allclose(arrays["strength"].reshape(3, 3)[1], share, rtol=1e-5)
        for stop in range(len(STOPS)):
            mask = pathway_of("neuron_mct", stop).masks["3"][number, strongest]
            kept = arrays["channel_kept"].reshape(len(STOPS), 3, 3)[stop, 1]
            assert kept.tolist() == mask.sum((1, 2)).tolist()
            np.testing.assert_array_equal((bits >> stop) & 1, mask)


def test_maps_are_the_magnitudes_of_the_pathway_gradients(page, pathway_of):
    for stop in range(len(STOPS)):
        gradient = cpath.pathway_gradient(network(), images(), pathway_of("neuron_mct", stop))
        size = gradient.abs().amax(1).double()  # of the channel with the largest magnitude
        for number in range(3):
            shown = page.arrays(number, 0, 0)["map"].reshape(len(STOPS), 8, 8)[stop]
            top = float(size[number].quantile(0.99)) or 1.0
            np.testing.assert_allclose(shown, (255 * size[number] / top).clamp(0, 255), atol=0.51)


def test_what_is_empty_is_said_by_the_page_alone(recwarn):
    cpath.explore(network(), images(1), "random", sparsity=99, unit="channel")
    assert not [warning for warning in recwarn if issubclass(warning.category, cpath.EmptyPathwayWarning)]


def test_a_function_of_the_output_has_no_classes_but_the_rest():
    def gap(output: torch.Tensor) -> torch.Tensor:
        return output[:, 1] - output[:, 4]

    page = Page(cpath.explore(network(), images(), "neuron_mct", gap, sparsity=(80, 95)).html)
    scores = cpath.score(network(), images(), target=gap)
    found = cpath.faithfulness(network(), images(), scores, gap, keep=(5, 20))
    arrays = page.arrays(1, 0, 0)
    np.testing.assert_allclose(arrays["sufficiency"][::-1], found.sufficiency[1], rtol=1e-4)
    assert "listed" not in arrays
    assert "classes" not in page.facts["inputs"][0]


def test_parts_of_a_batch_keep_their_targets_and_baselines(monkeypatch):
    with cpath.observe(model := network()) as seen, torch.no_grad():
        model(images().flip(3))
    settings = {"target": torch.tensor([6, 0, 3]), "baseline": seen.activations, "sparsity": [50, 95]}
    whole = Page(cpath.explore(network(), images(), "neuron_mct", **settings).html)
    monkeypatch.setattr(api, "_UNITS_AT_ONCE", 800)  # two images of 362 neurons
    parts = Page(cpath.explore(network(), images(), "neuron_mct", **settings).html)
    assert [facts["target"] for facts in parts.facts["inputs"]] == [6, 0, 3]
    assert all(facts["target"] in facts["classes"] for facts in parts.facts["inputs"])
    scores = cpath.score(network(), images(), target=settings["target"], baseline=seen.activations)
    found = cpath.faithfulness(network(), images(), scores, keep=[5, 50])
    for number in range(3):
        one, two = (page.arrays(number, 0, 0) for page in (whole, parts))
        assert one["kept"].tolist() == two["kept"].tolist()
        np.testing.assert_allclose(two["sufficiency"][::-1], found.sufficiency[number], rtol=1e-3)


# Places


@pytest.mark.parametrize(("rows", "columns", "cells"), [(60, 45, (7, 7)), (7, 7, (7, 7)), (8, 3, (4, 3))])
def test_a_cell_joins_the_places_that_fall_into_it(rows, columns, cells):
    grid = SiteGrid.of("relu", (3, rows, columns), side=7)
    values = np.random.default_rng(0).integers(0, 16, (2, rows, columns)).astype(np.int32)
    assert grid.cells == cells
    sums, bits = np.zeros((2, *cells), int), np.zeros((2, *cells), int)
    for row in range(rows):
        for column in range(columns):
            cell = row * cells[0] // rows, column * cells[1] // columns
            sums[:, *cell] += values[:, row, column]
            bits[:, *cell] |= values[:, row, column]
    np.testing.assert_array_equal(grid.summed(values.reshape(2, -1)), sums)
    np.testing.assert_array_equal(grid.united(values.reshape(2, -1)), bits)
    assert pooled(values, (rows, columns), np.add) is values


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("relu", (6, 5, 4), (6, 5, 4, 0, True)),
        ("gelu", (7, 7, 96), (96, 7, 7, 0, True)),  # channels last
        ("relu", (6, 3, 5, 4), (6, 5, 4, 0, True)),
        ("mlp", (197, 64), (64, 14, 14, 1, True)),  # patches behind a class token
        ("mlp", (12, 64), (64, 1, 12, 0, False)),  # words
        ("block.attn:attention", (8, 197, 64), (8, 14, 14, 1, True)),
        ("fc", (10,), (10, 1, 1, 0, False)),
        ("relu", (6, 1, 1), (6, 1, 1, 0, False)),  # channels as units
    ],
)
def test_channels_and_places_follow_from_the_shape_of_the_units(name, shape, expected):
    grid = SiteGrid.of(name, shape, side=28)
    assert (grid.channels, grid.rows, grid.columns, grid.skipped, grid.over_input) == expected
    values = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    arranged = grid.arranged(values)
    assert arranged.shape[:3] == (2, grid.channels, grid.rows * grid.columns + grid.skipped)
    whole = grid.summed(arranged.sum((1, 3))).sum((1, 2)) + arranged[:, :, : grid.skipped].sum((1, 2, 3))
    np.testing.assert_array_equal(whole, values.reshape(2, -1).sum(1))


def test_pages_of_many_images_have_coarser_positions():
    large = torch.zeros(1, 3, 32, 32)
    model = nn.Sequential(*network()[:4], nn.AdaptiveAvgPool2d(4), *network()[4:])
    sides = [
        Plan.of(model, large, "random", count=count, sparsity=STOPS).units[0].grids[0].cells for count in (1, 3000)
    ]
    assert sides == [(32, 32), (11, 11)]


# The page


def test_pictures_are_those_of_the_images():
    pixels = np.random.default_rng(0).random((9, 7, 3))
    for shown in (pixels, pixels[:, :, :1]):
        read = Image.open(io.BytesIO(base64.b64decode(png(shown).partition(",")[2])))
        np.testing.assert_array_equal(np.asarray(read).reshape(shown.shape), np.rint(255 * shown))


def test_texts_cannot_leave_their_place_in_the_page():
    text = "</script><b>&"
    made = cpath.explore(
        network(), images(1), "random", sparsity=90, names=[text], classes=[text] * 7, true=[2], title=text
    )
    assert "</script><b>" not in made.html
    assert "&lt;/script&gt;&lt;b&gt;&amp;" in made.html
    facts = Page(made.html).facts
    assert facts["inputs"][0]["name"] == facts["classes"][3] == facts["title"] == text
    assert facts["inputs"][0]["true"] == 2


def test_an_explorer_shows_its_size_and_itself_in_a_notebook(tmp_path):
    made = cpath.explore(network(), images(2), ["random"], sparsity=[50, 90])
    assert repr(made).startswith("Explorer(inputs=2, methods=1, 0.")
    assert made._repr_html_().startswith("<iframe ")
    assert "<!doctype" not in made._repr_html_()  # escaped
    assert made.save(tmp_path / "new" / "page.html").read_text(encoding="utf-8") == made.html


# What is refused


@dataclass(frozen=True, kw_only=True)
class Untouched(cpath.Method):
    """Must not run."""

    def contributions(self, probe):
        raise AssertionError("a method ran before the arguments were checked")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"methods": []}, InputError, "name at least one"),
        ({"methods": 3}, InputError, "methods must be names"),
        ({"methods": ["neuron_mct", "neuron_mct"]}, InputError, "'neuron_mct' twice"),
        ({"methods": "neuron_mtc"}, UnknownNameError, "neuron_mtc"),
        ({"methods": "greedy_released", "unit": "channel"}, InputError, "can score channels"),
        ({"sparsity": [90, 50]}, InputError, "must ascend"),
        ({"sparsity": [50, 100]}, InputError, "sparsity"),
        ({"sparsity": []}, InputError, "must ascend"),
        ({"sparsity": "high"}, InputError, "sparsity must be per cents"),
        ({"sparsity": range(50, 67)}, InputError, "at most 16"),
        ({"unit": ["neuron", "neuron"]}, InputError, "different kinds"),
        ({"unit": "head"}, SiteError, "no axis"),
        ({"unit": "pixel"}, UnknownNameError, "pixel"),
        ({"sites": "gelu"}, SiteError, "gelu"),
        ({"channels": 0}, InputError, "channels"),
        ({"max_batch": 0}, InputError, "max_batch"),
        ({"names": ["one"]}, InputError, "a name for each of the 3 inputs"),
        ({"true": [1, 2]}, InputError, "true= must be a class for each of the 3"),
        ({"true": [1, 2, 9], "classes": list("abcdefg")}, InputError, "class 9"),
        ({"classes": "abc"}, InputError, "classes= are names"),
        ({"title": 3}, InputError, "title= must be text"),
        ({"target": 7}, InputError, "7"),
        ({"target": "cat"}, InputError, "target"),
        ({"baseline": {}}, InputError, "holds no site"),
        ({"normalisation": ((0.5,) * 2, (0.5,) * 2)}, InputError, "2 channels"),
        ({"inputs": images()[0]}, InputError, "images"),
        ({"inputs": torch.zeros(2, 3, 8, 8).long()}, InputError, "floats"),
        ({"inputs": torch.full((1, 3, 8, 8), float("nan"))}, InputError, "NaN"),
        ({"inputs": torch.zeros(1, 4, 8, 8)}, InputError, "channels"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused_before_any_method_runs(settings, error, message):
    arguments = {"inputs": images(), "methods": Untouched(), **settings}
    with pytest.raises(error, match=message):
        cpath.explore(network(), arguments.pop("inputs"), arguments.pop("methods"), **arguments)
