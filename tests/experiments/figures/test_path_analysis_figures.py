from __future__ import annotations

import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from cpath.viz import colour_of, in_order, label_of, save_drawings
from experiments.figures.curves import spread
from experiments.figures.path_analysis import path_analysis_figures
from experiments.figures.quadrature import quadrature_figures
from experiments.figures.train import training_figures

NAN = float("nan")


def _table(methods, sparsities=(80.0, 90.0), sites=("relu", "fc:relu")):
    rows = []
    for method in methods:
        for x in sparsities:
            at = {"method": method, "x_name": "sparsity", "x": x, "ci_low": 0.1, "ci_high": 0.4}
            metrics = ["dead_share", "response_change", "class_kept"]
            metrics += [f"jaccard/{other}" for other in methods if other != method]
            metrics += [f"site_{kind}/{site}" for site in sites for kind in ("kept", "dead_share")]
            metrics += [f"site_jaccard/{other}/{site}" for other in methods if other != method for site in sites]
            rows += [{**at, "metric": metric, "value": 0.25} for metric in metrics]
    rows.append({"method": "network", "x_name": "", "x": "", "metric": "base_sparsity", "value": 50.0})
    return pd.DataFrame(rows)


def test_path_analysis_draws_every_figure_of_the_paper(tmp_path):
    drawings = path_analysis_figures(_table(["random", "neuron_mct", "neuron_intgrad"]))
    assert [drawing.name for drawing in drawings] == [
        "overlap",
        "dead_share",
        "responses",
        "sites_kept",
        "sites_overlap",
        "sites_dead_share",
    ]
    save_drawings(drawings, tmp_path)
    for drawing in drawings:
        assert drawing.caption.endswith(".")
        with Image.open(tmp_path / f"{drawing.name}.png") as picture:
            assert min(picture.size) > 200
        assert (tmp_path / f"{drawing.name}.svg").read_text().startswith("<?xml")


def test_the_overlap_matrix_shows_the_numbers_of_the_table():
    (figure, *_) = path_analysis_figures(_table(["neuron_mct", "random"], sparsities=(90.0,)))
    texts = [text.get_text() for text in figure.figure.axes[0].texts]
    assert texts == ["1.00", ".25", ".25", "1.00"]
    labels = [label.get_text() for label in figure.figure.axes[0].get_yticklabels()]
    assert labels == ["NeuronMCT", "Random"]


def test_one_method_and_no_sites_draw_what_there_is():
    drawings = path_analysis_figures(_table(["random"], sites=()))
    assert [drawing.name for drawing in drawings] == ["dead_share", "responses"]


def test_methods_keep_their_order_and_colour():
    assert in_order(["mine", "random", "neuron_mct", "neuron_intgrad"]) == [
        "neuron_intgrad",
        "neuron_mct",
        "random",
        "mine",
    ]
    assert label_of("neuron_mct") == "NeuronMCT"
    assert label_of("mine") == "mine"
    assert colour_of("mine") == colour_of("mine")
    assert colour_of("neuron_mct") != colour_of("neuron_intgrad")


def test_error_bars_are_never_negative_and_absent_where_there_is_no_interval():
    rows = pd.DataFrame({"value": [0.5, 0.2, 0.3], "ci_low": [0.4, 0.21, NAN], "ci_high": [0.7, 0.25, NAN]})
    assert spread(rows).round(9).tolist() == [[0.1, 0.0, 0.0], [0.2, 0.05, 0.0]]
    assert spread(rows.iloc[0]).round(9).tolist() == [[0.1], [0.2]]
    residuals = rows.assign(method=["a", "b", "c"], metric="residual", x_name="", x="")
    overlaps = residuals.assign(metric="jaccard_with_reference", x_name="sparsity", x="90")
    # Matplotlib refuses bars of negative length.
    (drawing,) = quadrature_figures(pd.concat([residuals, overlaps]))
    (bars,) = drawing.figure.axes[0].collections
    ends = [tuple(segment[:, 0].round(9)) for segment in bars.get_segments()]
    assert ends == [(0.4, 0.7), (0.2, 0.25), (0.3, 0.3)]


def test_training_curves_come_from_the_table():
    rows = [
        {"method": "training", "x_name": "epoch", "x": epoch, "metric": metric, "value": value}
        for epoch in (1, 2)
        for metric, value in (("loss", 1 / epoch), ("val_loss", 2 / epoch), ("val_accuracy", 40 * epoch))
    ]
    rows.append({"method": "training", "x_name": "", "x": "", "metric": "test_accuracy", "value": 81.0})
    (drawing,) = training_figures(pd.DataFrame(rows))
    lines = drawing.figure.axes[1].lines
    assert lines[0].get_ydata().tolist() == [40, 80]
    assert training_figures(pd.DataFrame(rows[-1:])) == []


def _figure(drawings, name):
    return next(drawing.figure for drawing in drawings if drawing.name == name)


def _panels(figure):
    return [panel for panel in figure.axes if panel.get_visible() and panel.get_label() != "<colorbar>"]


METHODS = ["neuron_intgrad", "neuron_mct", "greedy", "dgr", "dgr_random_init", "random", "active"]
RELEASED = ["neuron_intgrad_released", "greedy_released"]


@pytest.mark.parametrize(
    ("sparsities", "methods", "sites"),
    [
        ((90.0,), ["neuron_mct"], 1),
        ((90.0,), METHODS + RELEASED, 24),
        ((80.0, 90.0, 99.0), METHODS + RELEASED, 1),
        ((80.0, 90.0, 99.0), ["neuron_mct"], 24),
        ((50.0, 80.0, 90.0, 95.0, 99.0), ["neuron_mct"], 1),
        ((50.0, 80.0, 90.0, 95.0, 99.0), METHODS + RELEASED, 24),
    ],
)
def test_no_number_of_sparsities_methods_or_sites_cramps_a_figure(sparsities, methods, sites):
    names = [f"layer{number}.0.relu" for number in range(sites)]
    for drawing in path_analysis_figures(_table(methods, sparsities, names)):
        figure = drawing.figure
        figure.draw_without_rendering()
        page, panels = figure.bbox, _panels(figure)
        assert len(panels) >= 1
        for panel in panels:
            width, height = panel.get_window_extent().size / figure.dpi
            assert width > 1.2, drawing.name
            assert height > min(1.2, 0.22 * len(methods)), drawing.name
            for label in (panel.xaxis.label, panel.yaxis.label, panel.title):
                box = label.get_window_extent()
                if label.get_text():
                    assert page.x0 <= box.x0 <= box.x1 <= page.x1, label
                    assert page.y0 <= box.y0 <= box.y1 <= page.y1, label
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert page.y0 <= box.y0, drawing.name
            assert not any(box.overlaps(panel.get_window_extent()) for panel in panels)
        smallest = min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text().strip())
        assert smallest / 72 * 900 / figure.get_figwidth() >= 8, drawing.name


def test_one_sparsity_has_a_row_with_a_dot_and_its_number_for_each_method():
    drawings = path_analysis_figures(_table(["random", "neuron_mct"], sparsities=(90.0,)))
    figure = _figure(drawings, "responses")
    left, right = figure.axes
    assert figure.get_suptitle() == "90 % pruned"
    assert [label.get_text() for label in left.get_yticklabels()] == ["NeuronMCT", "Random"]
    for panel in (left, right):
        assert [container[0].get_xydata().tolist() for container in panel.containers] == [[[0.25, 0]], [[0.25, 1]]]
        assert [text.get_text() for text in panel.texts] == ["0.25", "0.25"]
        (segment,) = panel.containers[0][2][0].get_segments()
        assert segment[:, 0].round(9).tolist() == [0.1, 0.4]
    assert (left.get_xlabel(), right.get_xlabel()) == ("(p′ − p) / p", "class kept (% of images)")
    assert figure.legends == []


def test_several_sparsities_have_a_curve_for_each_method():
    left, right = _figure(path_analysis_figures(_table(["random", "neuron_mct"])), "responses").axes
    for panel in (left, right):
        assert panel.get_lines()[0].get_xdata().tolist() == [80, 90]
        assert panel.get_lines()[0].get_label() == "NeuronMCT"


def test_a_response_without_classes_has_one_panel():
    table = _table(["random"], sparsities=(90.0,))
    figure = _figure(path_analysis_figures(table[table.metric != "class_kept"]), "responses")
    assert [panel.get_visible() for panel in figure.axes] == [True, False]


def test_panels_are_in_rows_no_wider_than_a_page():
    figure = _figure(path_analysis_figures(_table(METHODS + RELEASED, (80.0, 90.0, 99.0))), "overlap")
    titles = [panel.get_title() for panel in _panels(figure)]
    assert titles == ["80 % pruned", "90 % pruned", "99 % pruned"]
    assert figure.get_figwidth() <= 11
