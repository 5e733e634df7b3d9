"""One look for all figures: every method keeps its name, colour, marker and place everywhere."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

# Okabe and Ito's colours and Tol's muted ones, both for the colour-blind, and greys for the baselines. Markers tell
# apart what colours alone do not. The order is that of all figures.
_METHODS: dict[str, tuple[str, str, str]] = {
    "neuron_intgrad": ("NeuronIntGrad", "#0072B2", "o"),
    "neuron_intgrad_star": ("NeuronIntGrad*", "#332288", "*"),
    "neuron_mct": ("NeuronMCT", "#D55E00", "s"),
    "greedy": ("Greedy", "#009E73", "^"),
    "dgr": ("DGR", "#CC79A7", "D"),
    "dgr_random_init": ("DGR (random init)", "#8C4B8C", "d"),
    "learned_ranking": ("Learned ranking", "#CC3311", "H"),
    "gradcam": ("GradCAM", "#117733", "P"),
    "gbp": ("GBP", "#AA4499", "X"),
    "input_intgrad": ("InputIntGrad", "#44AA99", ">"),
    "input_mct": ("InputMCT", "#999933", "v"),
    "gradients": ("Gradients", "#E69F00", "h"),
    "smoothgrad": ("SmoothGrad", "#882255", "p"),
    "random": ("Random", "#8A8A8A", "x"),
    "sobel": ("Sobel edges", "#4D4D4D", "1"),
    "active": ("Active subnetwork", "#3C3C3C", "+"),
    "neuron_intgrad_released": ("NeuronIntGrad (released code)", "#56B4E9", "v"),
    "greedy_released": ("Greedy (released code)", "#7FC97F", "<"),
}
_CRITERIA = {"lerf": "LeRF", "morf": "MoRF", "roar": "ROAR", "kar": "KAR"}
_OTHERS = ("#661100", "#F0E442", "#A6761D", "#1B9E77", "#666666")

DEAD, ACTIVE = "#C9C9C9", "#0072B2"
SHARES = LinearSegmentedColormap.from_list("shares", ["#FFFFFF", "#9ECAE1", "#08306B"])
"""From 0 to 1, of matrices."""

STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "figure.dpi": 150,
    "svg.hashsalt": "cpath",
}


_SHOWN_DPI = 100  # of figures in a notebook, which is as wide as 9 to 11 inches


@dataclass(frozen=True)
class Drawing:
    """A figure, its file name and the sentence that says what to see in it.

    Args:
        name: of the files, without an ending.
        figure: figure of matplotlib.
        caption: one or more sentences.
        picture: true for images and maps, which are written as PNG alone, finer than other figures.

    Example:
        >>> from matplotlib.figure import Figure
        >>> drawing = cpath.viz.Drawing("curve", Figure(), "An empty figure.")
        >>> drawing.picture
        False
    """

    name: str
    figure: Figure
    caption: str
    picture: bool = False
    """True if it shows images and maps: those are written as PNG alone, finer than other figures."""


def label_of(method: str) -> str:
    """Name of a method in figures.

    Args:
        method: registered name of an extraction method or attribution.

    Returns:
        The paper's name; the method's own where the project does not know it.

    Example:
        >>> cpath.viz.label_of("neuron_mct")
        'NeuronMCT'
    """
    return _METHODS[method][0] if method in _METHODS else method


def criterion_label(criterion: str) -> str:
    """Name of an evaluation in figures and reports.

    Args:
        criterion: ``lerf``, ``morf``, ``roar`` or ``kar``, with the fill after a ``_`` unless that is the mean
            colour.

    Returns:
        The label.

    Example:
        >>> cpath.viz.criterion_label("lerf_road")
        'LeRF (ROAD)'
    """
    name, _, fill = criterion.partition("_")
    return _CRITERIA.get(name, name) + (f" ({fill.upper()})" if fill else "")


def colour_of(method: str) -> str:
    """Colour of a method, the same in every figure.

    Args:
        method: registered name of an extraction method or attribution.

    Returns:
        Colour in hexadecimal form; that of a user's own method follows from its name.

    Example:
        >>> cpath.viz.colour_of("neuron_mct")
        '#D55E00'
    """
    if method in _METHODS:
        return _METHODS[method][1]
    return _OTHERS[sum(method.encode()) % len(_OTHERS)]


def marker_of(method: str) -> str:
    """Marker of a method, the same in every figure.

    Args:
        method: registered name of an extraction method or attribution.

    Returns:
        Marker of matplotlib; a point for a user's own method.
    """
    return _METHODS[method][2] if method in _METHODS else "."


def in_order(methods: Iterable[str]) -> list[str]:
    """Sort methods into the order of every figure, users' own ones last.

    Args:
        methods: registered names, in any order; repetitions are dropped.

    Returns:
        The names in order.

    Example:
        >>> cpath.viz.in_order(["random", "mine", "neuron_mct"])
        ['neuron_mct', 'random', 'mine']
    """
    order = list(_METHODS)
    return sorted(set(methods), key=lambda name: (order.index(name) if name in order else len(order), name))


WIDEST = 11.0
"""Inches: a figure of this width, shown 900 pixels wide, has its smallest text (7 points) 8 pixels high."""


def in_rows(panels: int, width: float) -> tuple[int, int]:
    """Arrange panels in rows that are no wider than `WIDEST`.

    Args:
        panels: number of panels.
        width: of one, in inches.

    Returns:
        Number of rows, and of panels in a row.

    Example:
        >>> from cpath.viz.style import in_rows
        >>> in_rows(3, 3.0), in_rows(3, 4.0), in_rows(4, 4.0), in_rows(2, 20.0)
        ((1, 3), (2, 2), (2, 2), (2, 1))
    """
    across = max(1, min(panels, int(WIDEST / width)))
    down = -(-panels // across)
    return down, -(-panels // down)


def new_figure(width: float, height: float) -> Figure:
    """Make an empty figure.

    Args:
        width: in inches.
        height: in inches.

    Returns:
        Figure of matplotlib, whose layout makes room for labels.
    """
    return _Shown(figsize=(width, height), layout="constrained")


class _Shown(Figure):  # type: ignore[misc]  # matplotlib is untyped here
    """Figure that a notebook shows even if nobody imported pyplot, which tells notebooks of figures otherwise."""

    def _repr_png_(self) -> bytes:
        written = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(written, format="png", dpi=_SHOWN_DPI)
        return written.getvalue()


def shared_legend(figure: Figure, axes: Axes) -> None:
    """Add one legend for all panels, under them, in as many columns as fit.

    Two rows are taken from the panels; for further ones the figure grows.

    Args:
        figure: the figure.
        axes: panel whose lines the legend describes.
    """
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        inches = 0.6 + 0.075 * max(map(len, labels))
        columns = max(1, min(len(labels), int(figure.get_figwidth() / inches)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        rows = -(-len(labels) // columns)
        figure.set_figheight(figure.get_figheight() + 0.21 * max(0, rows - 2))


def save_drawings(drawings: Iterable[Drawing], folder: Path) -> None:
    """Write drawings as PNG and, except for pictures, as SVG; their captions into ``captions.json`` beside them.

    Args:
        drawings: figures to write.
        folder: made if it does not exist; files of the same names are replaced.

    Example:
        >>> from matplotlib.figure import Figure
        >>> cpath.viz.save_drawings([cpath.viz.Drawing("curve", Figure(), "An empty figure.")], folder)
        >>> sorted(file.name for file in folder.iterdir())
        ['captions.json', 'curve.png', 'curve.svg']
    """
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    for drawing in drawings:
        with mpl.rc_context(STYLE):
            drawing.figure.savefig(folder / f"{drawing.name}.png", dpi=200 if drawing.picture else 150)
            if not drawing.picture:
                drawing.figure.savefig(folder / f"{drawing.name}.svg", metadata={"Date": None})
        captions[drawing.name] = drawing.caption
    (folder / "captions.json").write_text(json.dumps(captions, indent=2, ensure_ascii=False) + "\n")
