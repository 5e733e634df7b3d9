"""The demo: what it finds, and the page that it leaves."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import cpath
from experiments import demo
from experiments.demo import SPARSITIES, STOPS, find, gallery, photographs
from tests.viz.explorer_page import Page

NAMES = ["first", "a <b> & c"]


def _network() -> nn.Module:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU6(), nn.Conv2d(4, 6, 3, stride=2), nn.ReLU6()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)).eval()


@pytest.fixture
def findings() -> demo.Findings:
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    return find(_network(), images, ["a", "b", "c", "d", "<e>"])


def test_classes_and_shares_are_those_of_the_network(findings):
    model, images = _network(), findings.images
    with torch.no_grad():
        probability, target = model(images).softmax(1).max(1)
    assert findings.predicted == [["a", "b", "c", "d", "<e>"][int(label)] for label in target]
    torch.testing.assert_close(findings.probability, probability)
    assert set(findings.kept) == {(method, s) for method in ("neuron_mct", "random") for s in SPARSITIES}
    pathway = cpath.find_pathway(model, images, "random", 90, target, sites=["relu6"])
    with pathway.restrict(model), torch.no_grad():
        same = (model(images).argmax(1) == target).double().mean()
    assert findings.kept["random", 90.0] == 100 * float(same)
    assert findings.pathway.requested_sparsity == 95


def test_the_gallery_is_one_page_with_every_picture_and_number(findings):
    page = gallery(NAMES, findings)
    assert len(re.findall(r'<img [^>]*src="data:image/png;base64,', page)) == 3
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert "a &lt;b&gt; &amp; c: predicted" in page
    assert "a <b> & c" not in page
    cells = re.findall(r"<td>(\d+) %</td>", page)
    expected = [f"{findings.kept[method, s]:.0f}" for method in ("neuron_mct", "random") for s in SPARSITIES]
    assert cells == expected


def test_photographs_are_prepared_as_the_network_takes_them():
    names, images = photographs()
    assert names == ["chelsea", "coffee", "rocket", "astronaut", "flower", "china"]
    assert images.shape == (6, 3, 224, 224)
    assert (images.amin(), images.amax()) == (-1, 1)


def test_the_command_prints_what_it_found_and_leaves_both_pages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cpath.models, "efficientnet_lite0", lambda weights: _network())
    monkeypatch.setattr(demo, "photographs", lambda: (NAMES, torch.randn(2, 3, 12, 12)))
    assert demo.main([str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "Share of the photographs that keep their class" in said
    assert "99 % pruned" in said
    assert (tmp_path / "out" / "gallery.html").read_text().startswith("<!doctype html>")
    facts = Page((tmp_path / "out" / "explorer.html").read_text(encoding="utf-8")).facts
    assert [one["name"] for one in facts["inputs"]] == NAMES
    assert [method["name"] for method in facts["methods"]] == ["neuron_mct", "random"]
    assert (facts["sparsity"], [unit["kind"] for unit in facts["units"]]) == (list(STOPS), ["neuron", "channel"])
    assert facts["classes"][281:283] == ["tabby", "tiger cat"]
