"""Figures of path decoding: what was made, beside for whom it speaks."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cpath.viz.style import SHARES, STYLE, Drawing, in_order, label_of, new_figure

_NAMES = {"input": "Input image", "original": "Original network"}
_TEXT = 9  # points, as everywhere: legible at the smallest size that a report shows a figure in
_UNRESTRICTED = ("original", "active")  # of no sparsity; shown before the pathways


class Network(NamedTuple):
    """A network by the method of its pathway."""

    method: str
    """Name of the method; ``original`` for the unrestricted network."""
    sparsity: float | None
    """Per cent; None for the original network and the active subnetwork."""


@dataclass(frozen=True, eq=False)
class Picture:
    """An image to show, and the probabilities that it gets."""

    pixels: np.ndarray | None
    """(H, W, C) in [0, 1]; None where there is none."""
    own: float = float("nan")
    """Probability of the class in the network that the image was made in."""
    original: float = float("nan")
    """Probability of the class in the original network."""
    label: str = ""
    """Text under the picture in place of the probabilities."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """The pictures of one input image."""

    name: str
    """Name of the image in the dataset."""
    label: str
    """Predicted and true class, in two lines."""
    source: Picture
    """The image itself."""
    networks: Mapping[Network, Picture]
    """Picture made in each network."""
    neurons: Mapping[str, Picture]
    """The channel of the top neuron by method."""


def decoding_pictures(images: Sequence[Decoded]) -> list[Drawing]:
    """Draw the pictures of several images.

    Args:
        images: with pictures of the same networks each.

    Returns:
        A figure of all networks for each sparsity, one from sparsity to sparsity for each image if there are
        several, and one of the channels of top neurons.
    """
    if not images:
        return []
    sparsities = sorted({sparsity for _, sparsity in images[0].networks if sparsity is not None})
    with mpl.rc_context(STYLE):
        drawings = [_by_network(images, sparsity) for sparsity in sparsities]
        if len(sparsities) > 1:
            drawings += [_sweep(image, number, sparsities) for number, image in enumerate(images, 1)]
        if any(image.neurons for image in images):
            drawings.append(_top_neurons(images))
        return drawings


def decoding_figures(table: pd.DataFrame) -> list[Drawing]:
    """Draw how every network responds to the pictures made in every network.

    Args:
        table: tidy table of a path decoding.

    Returns:
        A figure for each sparsity.
    """
    rows = table[(table.x_name == "sparsity") & table.metric.str.contains("/")]
    if rows.empty:
        return []
    parts = rows.metric.str.split("/", n=1)
    rows = rows.assign(x=rows.x.astype(float), kind=parts.str[0], network=parts.str[1])
    with mpl.rc_context(STYLE):
        return [_matrices(part, float(sparsity)) for sparsity, part in rows.groupby("x")]


def _digits(sparsity: float) -> str:
    """All digits of a sparsity: 98, 99.99999."""
    return repr(float(sparsity)).removesuffix(".0")


def _name(network: str, width: int = 14) -> str:
    return "\n".join(textwrap.wrap(_NAMES.get(network, label_of(network)), width))


def _ordered(networks: Mapping[str, object] | Sequence[str]) -> list[str]:
    """The original network and the active subnetwork first, then the methods in the order of every figure."""
    return [name for name in _UNRESTRICTED if name in networks] + [
        name for name in in_order(networks) if name not in ("input", *_UNRESTRICTED)
    ]


def _by_network(images: Sequence[Decoded], sparsity: float) -> Drawing:
    lines = []
    for image in images:
        here = {method: picture for (method, s), picture in image.networks.items() if s in (None, sparsity)}
        lines.append({"input": image.source, **{name: here[name] for name in _ordered(here)}})
    figure = _grid(lines, [image.label for image in images])
    caption = (
        "The input image, then the image that maximises the response to its class: in the original network, in "
        f"the active subnetwork, and in the pathway of each method with {_digits(sparsity)} % of the neurons "
        "pruned. Below each picture, the probability of the class in the network that it was made in (own) and in "
        "the original one."
    )
    return Drawing(f"decoded-{_digits(sparsity)}", figure, caption, picture=True)


def _sweep(image: Decoded, number: int, sparsities: Sequence[float]) -> Drawing:
    lines = []
    for sparsity in sparsities:
        here = {method: picture for (method, s), picture in image.networks.items() if s == sparsity}
        lines.append({name: here[name] for name in _ordered(here)})
    figure = _grid(lines, [f"{_digits(sparsity)} %\npruned" for sparsity in sparsities])
    caption = (
        f"For one image ({', '.join(image.label.splitlines())}), the picture that maximises the response in each "
        "pathway, from sparsity to sparsity. Below each picture, the class's probability in that pathway (own) "
        "and in the original network."
    )
    return Drawing(f"decoded-sweep-{number}", figure, caption, picture=True)


def _top_neurons(images: Sequence[Decoded]) -> Drawing:
    methods = _ordered(list(dict.fromkeys(method for image in images for method in image.neurons)))
    lines = [
        {"input": Picture(image.source.pixels, label=" ")}
        | {method: image.neurons.get(method, Picture(None, label=" ")) for method in methods}
        for image in images
    ]
    figure = _grid(lines, [image.label for image in images])
    caption = (
        "The neuron of the last convolutional site that each method scores highest for the image, visualised as "
        "its channel: the picture maximises that channel's mean in the original network. Methods that name the "
        "same channel share its picture."
    )
    return Drawing("top_neurons", figure, caption, picture=True)


def _grid(lines: Sequence[Mapping[str, Picture]], labels: Sequence[str]) -> Figure:
    columns = list(lines[0])
    figure = new_figure(1.0 + 1.08 * len(columns), 0.5 + 1.54 * len(lines))
    panels = figure.subplots(len(lines), len(columns), squeeze=False)
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.06, wspace=0, hspace=0)
    for line, row, label in zip(lines, panels, labels, strict=True):
        for name, panel in zip(columns, row, strict=True):
            _show(panel, line[name], name)
        row[0].set_ylabel(
            "\n".join(part for piece in label.splitlines() for part in textwrap.wrap(piece, 13)),
            rotation=0,
            ha="right",
            va="center",
        )
    for name, panel in zip(columns, panels[0], strict=True):
        panel.set_title(_name(name), fontsize=_TEXT)
    return figure


def _show(panel: Axes, picture: Picture, name: str) -> None:
    if picture.pixels is None:
        panel.set_facecolor("#F2F2F2")
        panel.text(0.5, 0.5, "no gradient", ha="center", va="center", fontsize=_TEXT, transform=panel.transAxes)
        panel.set_box_aspect(1)
    else:
        pixels = picture.pixels
        panel.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    panel.set(xticks=[], yticks=[])
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)
    panel.set_xlabel(picture.label or _answers(picture, name), fontsize=_TEXT, labelpad=3)


def _answers(picture: Picture, name: str) -> str:
    if name in ("input", "original"):
        return f"original {_short(picture.original)}"
    return f"own {_short(picture.own)}\noriginal {_short(picture.original)}"


def _short(value: float) -> str:
    """A probability in few characters; – where there is none."""
    return "–" if np.isnan(value) else f"{value:.2f}" if value >= 0.005 else "< .01"


def _matrices(rows: pd.DataFrame, sparsity: float) -> Drawing:
    networks = _ordered(rows.network.unique().tolist())
    pictures = (["input"] if "input" in set(rows.method) else []) + _ordered(rows.method.unique().tolist())
    width = min(2.6 + 1.08 * len(networks), 14.0)  # of a wider one, the text would be too small on a page
    figure = new_figure(width, 1.7 + 0.33 * len(pictures))
    left, right = figure.subplots(1, 2, sharey=True)
    for panel, kind, title in ((left, "probability", "probability"), (right, "response", "response (logit)")):
        values = rows[rows.kind == kind].pivot(index="method", columns="network", values="value")
        matrix = values.reindex(index=pictures, columns=networks).to_numpy(dtype=float)
        shades = matrix if kind == "probability" else _shares_of_range(matrix)
        panel.imshow(shades, vmin=0, vmax=1, cmap=SHARES, aspect="auto")
        for i, j in np.ndindex(matrix.shape):
            colour = "w" if shades[i, j] > 0.55 else "k"
            panel.text(j, i, _cell(matrix[i, j], kind), ha="center", va="center", fontsize=_TEXT, color=colour)
        panel.set_xticks(range(len(networks)), [_name(n, 30) for n in networks], rotation=45, ha="right")
        for tick in panel.get_xticklabels():
            tick.set_rotation_mode("anchor")
        panel.set_yticks(range(len(pictures)), [_name(picture, 30) for picture in pictures])
        panel.set_title(title)
        panel.grid(visible=False)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        panel.set_xlabel("seen by")
    left.set_ylabel("picture made in")
    caption = (
        f"Whose pathway does the picture speak for? What each picture (row; pathways at {_digits(sparsity)} %) "
        "gets for its class in each network (column), mean over the images that could be made. Responses are "
        "shaded from the smallest to the largest of their column."
    )
    return Drawing(f"speaks_for-{_digits(sparsity)}", figure, caption)


def _shares_of_range(matrix: np.ndarray) -> np.ndarray:
    """Scale each column from its smallest value to its largest: networks of different size do not compare.

    A column that hardly varies stays white: its network tells no picture from another.
    """
    low, high = np.nanmin(matrix, axis=0), np.nanmax(matrix, axis=0)
    varies = high - low > 0.1 * np.maximum(np.abs(high), np.abs(low))
    shares: np.ndarray = np.where(varies, (matrix - low) / np.where(varies, high - low, 1), 0)
    return shares


def _cell(value: float, kind: str) -> str:
    if np.isnan(value):
        return "–"
    if kind == "probability":
        return f"{value:.2f}".removeprefix("0") if round(value, 2) < 1 else "1.0"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 1 else 2
    return f"{value:z.{digits}f}".replace("-", "−")
