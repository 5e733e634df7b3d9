"""Saliency maps over their inputs, in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from cpath.attribution.reduction import single_channel
from cpath.errors import InputError, described
from cpath.pathway import Pathway
from cpath.scores import Scores
from cpath.viz.maps import show_image, show_map, show_overlay
from cpath.viz.pixels import Labels, Scale, captions, pixels_of, resized, wrapped
from cpath.viz.style import STYLE, in_order, label_of, new_figure

_SIDE = 1.2  # inches, of a panel
_CAPTION = 1.25  # inches, of the words beside an input
_WIDEST = 11.5  # inches: at 900 pixels, the column of a notebook, the text is still 9 pixels high
_ACROSS = 8  # panels beside an input
_TEXT = 8.5


def show(
    maps: Tensor | Mapping[str, Tensor],
    inputs: Tensor,
    *,
    normalisation: Scale = None,
    predicted: Labels = None,
    true: Labels = None,
    classes: Sequence[str] | None = None,
    overlay: bool | None = None,
) -> Figure:
    """Draw saliency maps beside and over their inputs.

    The magnitude of a map is shown, scaled to its 99th percentile; of several channels that of the largest.

    Args:
        maps: maps (B, C, H, W) or (B, H, W) as `attribute` and `pathway_gradient` give them, or several by the name
            of their method. Those of another size than the inputs are resized.
        inputs: images (B, C, H, W): normalised floats with ``normalisation``, floats in [0, 1], or whole numbers
            from 0 to 255.
        normalisation: the inputs' `cpath.data.Normalisation`, or its (mean, std). Floats outside [0, 1] without it
            are stretched to their range.
        predicted: predicted class (B,) for the captions, numbers or names.
        true: true class (B,), likewise.
        classes: names of the classes, by number.
        overlay: True lays the maps over the inputs, False shows them alone. None does both for one method, and the
            former for several.

    Returns:
        The figure, which a notebook shows and `Figure.savefig` writes. matplotlib's own state is left alone.

    Raises:
        InputError: if maps, inputs or classes do not fit one another.

    Example:
        >>> maps = {name: cpath.attribute(model, images, name) for name in ("gradients", "input_mct")}
        >>> figure = cpath.show(maps, images, normalisation=((0.5,) * 3, (0.25,) * 3), predicted=[3, 1])
        >>> [panel.get_title() for panel in figure.get_axes()[:3]]
        ['input', 'InputMCT', 'Gradients']
    """
    pixels = pixels_of(inputs, normalisation)
    columns = _columns(maps, pixels, overlay)
    texts = captions(len(pixels), predicted, true, classes)
    with mpl.rc_context(STYLE):
        return _drawn(pixels, columns, texts)


@dataclass(frozen=True, eq=False)
class _Column:
    """Maps of a method, as a column of panels."""

    title: str
    maps: Tensor
    over: bool

    def draw(self, panel: Axes, pixels: np.ndarray, number: int) -> None:
        if self.over:
            show_overlay(panel, pixels, self.maps[number])
        else:
            show_map(panel, self.maps[number])


def _columns(maps: Tensor | Mapping[str, Tensor], pixels: np.ndarray, overlay: bool | None) -> list[_Column]:
    named = {str(name): one for name, one in maps.items()} if isinstance(maps, Mapping) else {"map": maps}
    if not named:
        raise InputError("there is no map to show.")
    columns = []
    both = overlay is None and len(named) == 1
    for name in in_order(named):
        values = _single(name, named[name], pixels)
        if both or overlay is False:
            columns.append(_Column(label_of(name), values, over=False))
        if both or overlay is not False:
            columns.append(_Column("over the input" if both else label_of(name), values, over=True))
    return columns


def _single(name: str, maps: object, pixels: np.ndarray) -> Tensor:
    if isinstance(maps, Pathway | Scores):
        kind = type(maps).__name__
        raise InputError(
            f"maps '{name}' must be a tensor, not a cpath.{kind}: {kind.lower()}.show(inputs) draws those, and "
            "cpath.pathway_gradient(model, inputs, pathway) makes a map of a pathway."
        )
    if not isinstance(maps, Tensor) or maps.dim() not in (3, 4) or 0 in maps.shape:
        raise InputError(f"maps '{name}' must be a tensor (B, C, H, W) or (B, H, W), not {described(maps)}.")
    if len(maps) != len(pixels):
        raise InputError(f"there are {len(maps)} maps '{name}' for {len(pixels)} inputs.")
    if maps.is_complex():
        raise InputError(f"maps '{name}' must hold real numbers, not {maps.dtype}.")
    maps = maps if maps.is_floating_point() else maps.float()
    one = single_channel(maps).squeeze(1) if maps.dim() == 4 else maps
    return resized(one.detach().cpu(), *pixels.shape[1:3])


def _drawn(pixels: np.ndarray, columns: Sequence[_Column], texts: Sequence[str]) -> Figure:
    beside = min(len(columns), _ACROSS)
    lines = -(-len(columns) // beside)  # of panels for each input
    block = _SIDE * (1 + beside) + (_CAPTION if any(texts) else 0)
    blocks = max(1, min(int(_WIDEST / block), -(-len(pixels) // 3)))
    rows = -(-len(pixels) // blocks)
    high = _SIDE * float(np.clip(pixels.shape[1] / pixels.shape[2], 0.4, 2.5))
    titles = rows if lines > 1 else 1
    figure = new_figure(block * blocks, (high + 0.04) * rows * lines + 0.32 * lines * titles)
    for number, part in enumerate(np.atleast_1d(figure.subfigures(1, blocks, wspace=0.01))):
        images = range(number * rows, min((number + 1) * rows, len(pixels)))
        _draw_block(part, images, rows, lines, pixels, columns, texts)
    return figure


def _draw_block(
    part: SubFigure,
    images: range,
    rows: int,
    lines: int,
    pixels: np.ndarray,
    columns: Sequence[_Column],
    texts: Sequence[str],
) -> None:
    beside = -(-len(columns) // lines)
    tight = {"wspace": 0, "hspace": 0}
    panels = part.subplots(rows * lines, 1 + beside, squeeze=False, gridspec_kw=tight)
    for panel in panels.ravel():
        panel.set_axis_off()
    for place, number in enumerate(images):
        first = panels[place * lines, 0]
        first.set_axis_on()
        show_image(first, pixels[number])
        first.set_ylabel(wrapped(texts[number], 18), rotation=0, ha="right", va="center", fontsize=_TEXT)
        for where, column in enumerate(columns):
            panel = panels[place * lines + where // beside, 1 + where % beside]
            panel.set_axis_on()
            column.draw(panel, pixels[number], number)
            if place == 0 or lines > 1:
                panel.set_title(wrapped(column.title, 16), fontsize=_TEXT)
        if place == 0:
            first.set_title("input", fontsize=_TEXT)
