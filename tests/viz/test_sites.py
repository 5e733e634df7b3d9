from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

import cpath
from cpath.layout import SiteLayout
from tests import zoo


def _masks(count: int = 2) -> dict[str, torch.Tensor]:
    """Two spatial sites, of which the first keeps one position in half of its channels, and a flat one."""
    first = torch.zeros(count, 4, 6, 6, dtype=torch.bool)
    first[:, :2, 2, 5] = True
    flat = torch.zeros(count, 8, dtype=torch.bool)
    flat[0, :6] = True
    return {"layer1.relu": first, "layer2.relu": first[:, :, :3, 3:], "fc.relu": flat}


def _heights(figure: Figure) -> list[float]:
    return [bar.get_height() for bar in figure.get_axes()[0].patches]


def _titles(figure: Figure) -> list[str]:
    return [panel.get_title() for panel in figure.get_axes()]


def _shown_labels(axis: Axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    pairs = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
    return [label for place, label in pairs if low <= place <= high]


def _whole_texts(figure: Figure) -> None:
    """Assert that no text leaves the page and none is smaller than 8 pixels at 900 pixels of width."""
    figure.draw_without_rendering()
    page = figure.bbox
    texts = [text for part in [figure, *figure.subfigs] for text in part.texts]
    for panel in figure.get_axes():
        ticks = [*_shown_labels(panel.xaxis), *_shown_labels(panel.yaxis)]
        texts += [panel.title, panel.xaxis.label, panel.yaxis.label, *panel.texts, *ticks]
    for text in texts:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            assert page.x0 - 1 <= box.x0, text
            assert box.x1 <= page.x1 + 1, text
            assert page.y0 - 1 <= box.y0, text
            assert box.y1 <= page.y1 + 1, text
            assert text.get_fontsize() / 72 * 900 / figure.get_figwidth() >= 8, text


def test_bars_are_the_kept_shares_with_a_dot_for_each_input():
    pathway = cpath.Pathway.from_masks(_masks(), method="greedy", requested_sparsity=90)
    figure = pathway.show()
    np.testing.assert_allclose(_heights(figure), [100 * 2 / 144, 100 * 2 / 36, 100 * 3 / 8], rtol=1e-5)
    dots, whole = figure.get_axes()[0].lines
    np.testing.assert_allclose(dots.get_ydata()[-2:], [75, 0])
    np.testing.assert_allclose(whole.get_ydata(), 100 * 7 / 188)
    assert (
        figure.get_suptitle() == "Greedy: 7 of 188 neurons kept (mean of 2 inputs), 96.28 % pruned (90 % asked for)"
    )
    labels = [label.get_text() for label in figure.get_axes()[0].get_xticklabels()]
    assert labels == ["layer1.relu", "layer2.relu", "fc.relu"]


def test_one_input_has_its_numbers_over_the_bars():
    figure = cpath.Pathway.from_masks(_masks())[1].show()
    assert [text.get_text() for text in figure.get_axes()[0].texts] == ["1.39", "5.56", "0"]
    assert "mean of" not in figure.get_suptitle()


def test_kept_positions_are_summed_over_channels_and_lie_beside_the_input():
    pixels = torch.rand(2, 3, 6, 6)
    figure = cpath.Pathway.from_masks(_masks()).show(pixels)
    assert _titles(figure)[1:4] == ["input", "layer1.relu\n≤ 50 %", "layer2.relu\n≤ 50 %"]
    shown = figure.get_axes()[2].images[0].get_array()
    assert np.argwhere(shown > 0).tolist() == [[2, 5]]
    assert shown.max() == 50
    np.testing.assert_allclose(figure.get_axes()[1].images[0].get_array(), pixels[0].permute(1, 2, 0))
    assert len(figure.get_axes()) == 1 + 2 * 3


def test_channels_of_the_last_axis_are_told_by_height_and_width():
    mask = torch.zeros(1, 5, 5, 8, dtype=torch.bool)
    mask[0, 1, 2] = True
    shown = cpath.Pathway.from_masks({"features.1:gelu": mask}).show().get_axes()[1].images[0].get_array()
    assert shown.shape == (5, 5)
    assert shown[1, 2] == 100


def test_named_sites_alone_are_shown_in_the_image():
    pathway = cpath.Pathway.from_masks(_masks(1))
    assert _titles(pathway.show(at=["layer2.relu"]))[1:] == ["layer2.relu\n≤ 50 %"]
    with pytest.raises(cpath.InputError, match=r"'layer9', which is no site here: layer1\.relu"):
        pathway.show(at=["layer9"])
    with pytest.raises(cpath.InputError, match="there are 3 inputs, but 1 were explained"):
        pathway.show(torch.rand(3, 3, 6, 6))


def _heads() -> cpath.Pathway:
    masks = {}
    for layer in range(3):
        masks[f"blocks.{layer}.attn:attention"] = torch.zeros(2, 4, 1, 1, dtype=torch.bool)
    masks["blocks.0.attn:attention"][:, 1] = True
    masks["blocks.2.attn:attention"][0, 3] = True
    return cpath.Pathway.from_masks(masks, unit="head", sites=["attention"])


def test_heads_are_a_grid_of_layers_and_heads_as_a_mean_over_inputs():
    figure = _heads().show()
    grid = figure.get_axes()[1]
    expected = np.zeros((3, 4))
    expected[0, 1], expected[2, 3] = 100, 50
    np.testing.assert_allclose(grid.images[0].get_array(), expected)
    assert [label.get_text() for label in grid.get_yticklabels()] == [f"…{n}.attn:attention" for n in range(3)]
    _whole_texts(figure)


def test_tokens_are_a_grid_for_each_input_with_its_words():
    mask = torch.zeros(2, 3, 1, dtype=torch.bool)
    mask[0, 1] = mask[1, 2] = True
    pathway = cpath.Pathway.from_masks({"mlp.0": mask, "mlp.1": ~mask}, unit="token", sites=["gelu"])
    words = [["a", "good", "cat"], ["no", "bad", "dog"]]
    figure = pathway.show(tokens=words)
    first, second = figure.get_axes()[1:3]
    np.testing.assert_allclose(first.images[0].get_array(), [[0, 100, 0], [100, 0, 100]])
    np.testing.assert_allclose(second.images[0].get_array(), [[0, 0, 100], [100, 100, 0]])
    assert [label.get_text() for label in second.get_xticklabels()] == words[1]
    with pytest.raises(cpath.InputError, match="the words of 1 inputs, of 2"):
        pathway.show(tokens=words[:1])


@pytest.mark.parametrize(("sites", "count"), [(1, 1), (1, 16), (2, 3), (50, 4), (130, 1)])
def test_any_number_of_sites_and_inputs_is_legible(sites, count):
    masks = {f"features.block{n}.relu_of_some_length": torch.rand(count, 2, 4, 4) > 0.5 for n in range(sites)}
    figure = cpath.Pathway.from_masks(masks).show(torch.rand(count, 3, 8, 8))
    _whole_texts(figure)
    assert len(_heights(figure)) == sites
    figure.draw_without_rendering()
    labels = [label for label in figure.get_axes()[0].get_xticklabels() if label.get_text()]
    places = [label.get_window_extent().x1 for label in labels]
    # Turned labels stand at least a letter's height apart.
    assert all(right - left > 8.5 / 72 * figure.dpi for left, right in itertools.pairwise(places))


def _scores(negative: bool = True) -> cpath.Scores:
    layout = SiteLayout({"a.relu": (2, 2, 2), "b.relu": (4,)})
    flat = torch.tensor([[1.0, 0, 0, 1, 0, 0, 0, 0, 3, 1, 0, 2]])
    signs = torch.zeros(1, 12, dtype=torch.bool)
    signs[0, 8] = True
    from cpath.bits import pack_bits

    return cpath.Scores(flat, layout, "neuron_mct", None, negative=pack_bits(signs) if negative else None)


def test_strength_of_scores_is_a_share_of_their_sum_by_sign():
    figure = _scores().show()
    np.testing.assert_allclose(_heights(figure), [25, 37.5, 0, 37.5])  # above 0 of both sites, then below 0
    assert [bar.get_y() for bar in figure.get_axes()[0].patches[2:]] == [25, 37.5]
    legend = [text.get_text() for text in figure.get_axes()[0].get_legend().get_texts()]
    assert legend == ["contributions above 0", "contributions below 0"]
    np.testing.assert_allclose(_heights(_scores(negative=False).show()), [25, 75])


def test_distribution_is_that_of_the_scores_above_zero():
    medians = _scores().show().get_axes()[1].lines[0].get_ydata()
    np.testing.assert_allclose(medians, [1, 2])


def test_positions_of_scores_are_shares_of_their_site():
    shown = _scores().show().get_axes()[2].images[0].get_array()
    np.testing.assert_allclose(shown, [[50, 0], [0, 50]])


def test_scores_of_zero_are_shown_too():
    scores = cpath.Scores(torch.zeros(1, 4), SiteLayout({"a": (4,)}), "active", None)
    assert _heights(scores.show()) == [0]


def test_nothing_is_refused_in_a_sentence():
    scores = cpath.score(zoo.make("vgg"), zoo.images(2))
    for found in (scores, scores.pathway(90)):
        with pytest.raises(cpath.InputError, match="of no input"):
            found[:0].show()


def test_many_inputs_are_shown_in_part_under_a_heading_of_several_lines():
    pathway = cpath.Pathway.from_masks(_masks(20), method="greedy")
    figure = pathway.show()
    assert len(figure.get_axes()) == 1 + 2 * 6
    heading = figure.subfigs[1].get_suptitle()
    assert heading.count("\n") == 1
    assert "first 6 of 20 inputs ([6:] are the others)" in heading.replace("\n", " ")
    _whole_texts(figure)
