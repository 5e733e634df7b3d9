"""One look for all figures: every method keeps its name, colour, marker and place everywhere."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Drawing:
    """A figure, its file name and the sentence on what to see in it."""

    name: str
    figure: Figure
    caption: str
    picture: bool = False
    """Whether it shows images and maps: those are written as PNG alone, finer than other figures."""


def label_of(method: str) -> str:
    """How figures name a method."""
    return _METHODS[method][0] if method in _METHODS else method


def criterion_label(criterion: str) -> str:
    """How figures and reports name what orders the methods: ``lerf``, ``lerf_road``, ``roar``, …."""
    name, _, fill = criterion.partition("_")
    return _CRITERIA.get(name, name) + (f" ({fill.upper()})" if fill else "")


def colour_of(method: str) -> str:
    """The method's colour in every figure; a user's own method gets one that its name decides."""
    if method in _METHODS:
        return _METHODS[method][1]
    return _OTHERS[sum(method.encode()) % len(_OTHERS)]


def marker_of(method: str) -> str:
    """The method's marker in every figure."""
    return _METHODS[method][2] if method in _METHODS else "."


def in_order(methods: Iterable[str]) -> list[str]:
    """Methods in the order of every figure, users' own ones last."""
    order = list(_METHODS)
    return sorted(set(methods), key=lambda name: (order.index(name) if name in order else len(order), name))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def shared_legend(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, under them, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        inches = 0.6 + 0.075 * max(map(len, labels))
        columns = max(1, min(len(labels), int(figure.get_figwidth() / inches)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def save_drawings(drawings: Iterable[Drawing], folder: Path) -> None:
    """Writes every drawing as PNG and, unless it is a picture, SVG into ``folder``; the captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    captions = {}
    for drawing in drawings:
        with mpl.rc_context(STYLE):
            drawing.figure.savefig(folder / f"{drawing.name}.png", dpi=200 if drawing.picture else 150)
            if not drawing.picture:
                drawing.figure.savefig(folder / f"{drawing.name}.svg", metadata={"Date": None})
        captions[drawing.name] = drawing.caption
    (folder / "captions.json").write_text(json.dumps(captions, indent=2, ensure_ascii=False) + "\n")
