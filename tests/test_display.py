"""Objects show their sizes at a prompt and in a notebook, and never the values of tensors."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

import cpath
from cpath.display import Shown, bars, summary
from cpath.inputs import Inputs
from tests import zoo

SCALE = cpath.data.Normalisation(mean=(0.5,), std=(0.25,))


def _model() -> nn.Module:
    return zoo.make("vgg")


def _observation(model: nn.Module, images: Tensor) -> object:
    with cpath.observe(model) as seen, torch.no_grad():
        model(images)
    return seen


def _counter(model: nn.Module, images: Tensor) -> cpath.PathwayCounter:
    counter = cpath.PathwayCounter(4)
    counter.update(cpath.find_pathway(model, images), [1] * len(images))
    return counter


def _split() -> cpath.data.TensorSplit:
    return cpath.data.TensorSplit(torch.rand(60, 1, 8, 8), torch.arange(60) % 3, list(map(str, range(60))), SCALE)


MADE: dict[str, Callable[[nn.Module, Tensor], object]] = {
    "Pathway": lambda model, images: cpath.find_pathway(model, images),
    "Scores": lambda model, images: cpath.score(model, images, "neuron_intgrad"),
    "Observation": _observation,
    "Record": lambda model, images: cpath.Probe(model, images).record(),
    "Contributions": lambda model, images: cpath.Contributions({"relu": images}),
    "Inputs": lambda model, images: Inputs.of({"pixels": images}),
    "Faithfulness": lambda model, images: cpath.faithfulness(
        model, images, cpath.score(model, images), keep=[10, 50], beside=["random"]
    ),
    "PathwayCounter": lambda model, images: _counter(model, images),
    "Units": lambda model, images: cpath.Units("channel"),
    "NeuronIntGrad": lambda model, images: cpath.methods.NeuronIntGrad(nodes=5),
    "GradCAM": lambda model, images: cpath.attribution.GradCAM(),
    "Degradation": lambda model, images: cpath.evaluation.degrade(model, images, torch.rand(3, 1, 8, 8)),
    "Interval": lambda model, images: cpath.analysis.bootstrap_mean(torch.rand(9, 40).numpy()),
    "Decoding": lambda model, images: cpath.Decoding(images, torch.zeros(3).bool(), torch.zeros(3)),
    "SanityCheck": lambda model, images: cpath.evaluation.SanityCheck(
        {"random": {"ssim": torch.rand(2, 3, 3).numpy()}}, {"random": {}}, ("fc",), torch.arange(3)
    ),
    "Normalisation": lambda model, images: SCALE,
    "TensorSplit": lambda model, images: _split(),
    "ImageData": lambda model, images: cpath.data.ImageData("mine", ("a",) * 900, (1, 8, 8), SCALE, _split()),
    "InputSplit": lambda model, images: cpath.data.InputSplit(images, torch.arange(3)),
    "InputData": lambda model, images: cpath.data.InputData(
        "mine", ("a",) * 900, cpath.data.InputSplit(images, torch.arange(3))
    ),
}


@pytest.mark.parametrize("name", MADE)
def test_every_object_shows_itself_in_few_words_without_values(name: str, images: Tensor) -> None:
    made = MADE[name](_model(), images)
    line, html = repr(made), made._repr_html_()  # type: ignore[attr-defined]
    assert line.startswith(f"{name}(")
    assert "\n" not in line
    assert len(line) < 600
    assert "tensor(" not in line + html
    assert "array(" not in line + html
    ElementTree.fromstring(html)  # well-formed, with every name escaped
    assert name in html
    assert not re.search(r"(src|href|url)\s*[=(]", html)  # asks no host for anything


def _rows(html: str) -> dict[str, str]:
    table = ElementTree.fromstring(html).find("table")
    assert table is not None
    return {row[0].text or "": row[1].text or "" for row in table}


def test_a_pathway_shows_both_sparsities_and_the_kept_share_of_each_site() -> None:
    masks = {"a<b>": torch.tensor([[True, False, False, False]] * 2), "fc": torch.tensor([[True] * 4, [False] * 4])}
    pathway = cpath.Pathway.from_masks(masks, method="greedy", requested_sparsity=60, target=torch.tensor([3, 7]))
    html = pathway._repr_html_()
    assert _rows(html) == {
        "inputs": "2",
        "sparsity": "37.50 to 87.50 % realised, 60 % asked for",
        "neurons kept": "3 of 8 (mean over the inputs)",
        "target class": "3, 7",
        "baseline": "zero",
        "sites": "relu",
    }
    drawing = ElementTree.fromstring(html)
    titles = [bar[0].text for bar in drawing.iter("rect")]
    assert titles == ["a<b>: 25 %", "fc: 50 %"]
    heights = [float(bar.attrib["height"]) for bar in drawing.iter("rect")]
    assert heights == [24, 48]
    cells = [[cell.text for cell in row] for row in drawing.find("details/table") or []]
    assert cells == [["site", "neurons", "kept (%)"], ["a<b>", "4", "25.00"], ["fc", "4", "50.00"]]


def test_scores_show_the_share_of_each_site_and_the_residual(images: Tensor) -> None:
    scores = cpath.score(_model(), images, "neuron_intgrad")
    html = scores._repr_html_()
    rows = _rows(html)
    assert rows["signs"] == "known: see .signed"
    assert rows["neurons"] == f"{scores.layout.units:,}"
    residual = torch.stack(list((scores.residual or {}).values())).double().nanmedian()
    assert rows["residual"] == f"{float(residual):.2g} (median over sites and inputs)"
    shares = [
        float(row[2].text or "") for row in list(ElementTree.fromstring(html).find("details/table") or [])[1:]
    ]
    assert sum(shares) == pytest.approx(100, abs=0.02)
    assert "residual" not in _rows(cpath.score(_model(), images, "random")._repr_html_())


def test_a_faithfulness_shows_its_means_and_its_curve() -> None:
    values = torch.tensor([[0.25, 0.75], [0.75, 1.25], [torch.nan, torch.nan]])
    found = _faithfulness(values)
    assert _rows(found._repr_html_()) == {
        "inputs": "3",
        "without faithfulness": "1, whose answer does not rise: left out",
        "greedy": "CPR 0.75, CMD 0.38, necessity: CPR 0.75, CMD 0.38",
        "random": "CPR 0.75, CMD 0.38",
    }
    table = ElementTree.fromstring(found._repr_html_()).findall("table")[1]
    cells = [[cell.text for cell in row] for row in table]
    assert cells == [
        ["best units (%)", "sufficiency", "necessity"],
        ["10", "0.50", "0.50"],
        ["50", "1.00", "1.00"],
    ]


def _faithfulness(values: Tensor) -> cpath.Faithfulness:
    ones = torch.ones(len(values))
    random = cpath.Faithfulness(values, torch.tensor([10, 50.0]), values, ones, ones, None, None, "random")
    return replace(random, method="greedy", losses=values, beside=(random,))


def test_a_counter_shows_what_it_has_seen_of_each_class() -> None:
    counter = cpath.PathwayCounter(3)
    assert _rows(counter._repr_html_())["pathways"] == "none yet: update it with pathways"
    masks = {"a": torch.tensor([[True, False]] * 2), "fc": torch.tensor([[True, True]] * 2)}
    counter.update(cpath.Pathway.from_masks(masks, method="greedy"), [0, 2])
    html = counter._repr_html_()
    assert _rows(html) == {"classes": "3", "inputs": "2", "neurons": "4", "inputs by class": "(1, 0, 1)"}
    assert [bar[0].text for bar in ElementTree.fromstring(html).iter("rect")] == ["a: 50 %", "fc: 100 %"]


def test_what_was_observed_shows_the_active_share() -> None:
    seen = cpath.sites.Observation({"relu": torch.tensor([[0.0, 1, 2, 3]])})
    drawing = ElementTree.fromstring(seen._repr_html_())
    assert [bar[0].text for bar in drawing.iter("rect")] == ["relu: 75 %"]
    assert "run the model inside the block" in cpath.sites.Observation()._repr_html_()


def test_no_matplotlib_is_needed(monkeypatch: pytest.MonkeyPatch, images: Tensor) -> None:
    for module in [name for name in sys.modules if name.startswith(("matplotlib", "cpath.viz"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "<svg" in cpath.find_pathway(_model(), images)._repr_html_()


def test_bars_of_nothing_and_of_undefined_shares_are_flat() -> None:
    for values in ({"a": 0.0}, {"a": float("nan")}):
        (bar,) = ElementTree.fromstring(f"<div>{bars(values, 'none')}</div>").iter("rect")
        assert float(bar.attrib["height"]) == 0


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.tensor(2.0), "2"),
        (torch.ones(1), "(1,) float32"),
        ((torch.ones(2), 3), "((2,) float32, 3)"),
        (nn.Linear(2, 2), "Linear"),
        ("x" * 200, "'" + "x" * 88 + "…"),
        ({}, "{}"),
    ],
)
def test_summaries(value: object, told: str) -> None:
    assert summary(value) == told


def test_a_class_without_facts_has_its_name() -> None:
    assert repr(Shown()) == "Shown()"


def test_a_pathway_of_no_input_shows_itself() -> None:
    pathway = cpath.find_pathway(_model(), zoo.images(2), sparsity=50)
    assert "of no input, 50 % asked for" in pathway[:0]._repr_html_()
