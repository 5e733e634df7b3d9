"""Pictures of images and their saliency maps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from cpath.viz.style import STYLE, Drawing, in_order, label_of, new_figure

_CLIP = 0.99  # a few extreme pixels would leave the rest black
_MAPS = "inferno"
_BLUR = 1 / 50  # of the side: single pixels are too fine to be seen over an image
_HEAT = LinearSegmentedColormap.from_list(
    "heat", [(0.84, 0.37, 0, 0), (0.84, 0.37, 0, 0.55), (0.94, 0.9, 0.26, 0.95)]
)


def magnitude(values: Tensor) -> np.ndarray:
    """Magnitude of a map on a scale from 0 to 1.

    Args:
        values: (H, W).

    Returns:
        (H, W); 1 is the 99th percentile of the magnitudes, because a few pixels exceed all others by far.
    """
    size = values.detach().float().cpu().abs()
    top = torch.quantile(size.flatten(), _CLIP)
    top = top if top > 0 else size.max()
    return np.asarray((size / top.clamp(min=1e-30)).clamp(max=1).numpy())


def show_image(panel: Axes, pixels: np.ndarray) -> None:
    """Show an image in a panel.

    Args:
        panel: axes of matplotlib.
        pixels: (H, W, C) in [0, 1].
    """
    panel.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    _bare(panel)


def show_map(panel: Axes, values: Tensor) -> None:
    """Show the magnitude of a map in a panel; one that is 0 everywhere says so.

    Args:
        panel: axes of matplotlib.
        values: (H, W).
    """
    panel.imshow(magnitude(values), cmap=_MAPS, vmin=0, vmax=1)
    if not values.any():
        panel.text(0.5, 0.5, "zero", transform=panel.transAxes, ha="center", va="center", color="w", fontsize=7)
    _bare(panel)


def show_overlay(panel: Axes, pixels: np.ndarray, values: Tensor) -> None:
    """Show the magnitude of a map, blurred, over the image in grey.

    Args:
        panel: axes of matplotlib.
        pixels: (H, W, C) in [0, 1].
        values: (H, W).
    """
    panel.imshow(0.35 + 0.65 * pixels.mean(-1), cmap="gray", vmin=0, vmax=1)
    blurred = _blurred(torch.from_numpy(magnitude(values)))
    panel.imshow((blurred / blurred.max().clamp(min=1e-30)).numpy(), cmap=_HEAT, vmin=0, vmax=1)
    _bare(panel)


def _blurred(values: Tensor) -> Tensor:
    sigma = max(0.5, _BLUR * min(values.shape))
    reach = min(int(3 * sigma), min(values.shape) - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device="cpu") / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(values)
    padded = F.pad(values[None, None], (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0, 0]


def _bare(panel: Axes) -> None:
    panel.set(xticks=[], yticks=[])
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)


def map_grid(
    pixels: np.ndarray, titles: Sequence[str], maps: Mapping[str, Tensor], *, overlay: bool = False
) -> Drawing:
    """Draw images with their maps: a row for each image, a column for each method.

    Args:
        pixels: (B, H, W, C) images in [0, 1].
        titles: a caption for each image, such as the predicted class.
        maps: (B, H, W) single-channel maps by method.
        overlay: lay the maps over the images.

    Returns:
        The drawing ``maps``, or ``overlays``.

    Example:
        >>> maps = {"random": cpath.attribute(model, images, "random").squeeze(1)}
        >>> pixels = torch.rand(len(images), *images.shape[2:], 3).numpy()
        >>> cpath.viz.map_grid(pixels, ["a class"] * len(images), maps).name
        'maps'
    """
    methods = in_order(maps)
    with mpl.rc_context(STYLE):
        figure = new_figure(1.4 + 0.92 * (1 + len(methods)), 0.4 + 0.95 * len(pixels))
        panels = _touching(figure, len(pixels), 1 + len(methods))
        for number, line in enumerate(panels):
            show_image(line[0], pixels[number])
            _label_row(line[0], _wrapped(titles[number]))
            for panel, method in zip(line[1:], methods, strict=True):
                if overlay:
                    show_overlay(panel, pixels[number], maps[method][number])
                else:
                    show_map(panel, maps[method][number])
        for panel, method in zip(panels[0, 1:], methods, strict=True):
            panel.set_title(label_of(method), fontsize=8)
        caption = (
            "Attributions for the predicted class, blurred a little and laid over the images."
            if overlay
            else "Magnitude of each attribution for the predicted class, scaled to its 99th percentile."
        )
        return Drawing("overlays" if overlay else "maps", figure, caption, picture=True)


def sparsity_grid(
    name: str, pixels: np.ndarray, title: str, maps: Mapping[str, Tensor], sparsities: Sequence[float]
) -> Drawing:
    """Draw the pathway gradients of one image from sparsity to sparsity: rows of maps and of overlays.

    Args:
        name: of the drawing.
        pixels: (H, W, C) image in [0, 1].
        title: caption of the image, such as the predicted class.
        maps: (sparsities, H, W) single-channel maps by method.
        sparsities: per cent of the neurons that are pruned.

    Returns:
        The drawing.

    Example:
        >>> maps = {"neuron_mct": torch.randn(2, 32, 32)}
        >>> cpath.viz.sparsity_grid("one", torch.rand(32, 32, 3).numpy(), "a class", maps, [90, 98]).name
        'one'
    """
    rows = [(method, overlay) for method in in_order(maps) for overlay in (False, True)]
    with mpl.rc_context(STYLE):
        figure = new_figure(1.5 + 1.05 * (1 + len(sparsities)), 0.45 + 1.06 * len(rows))
        panels = _touching(figure, len(rows), 1 + len(sparsities))
        for line, (method, overlay) in zip(panels, rows, strict=True):
            for panel, values in zip(line[1:], maps[method], strict=True):
                if overlay:
                    show_overlay(panel, pixels, values)
                else:
                    show_map(panel, values)
            if overlay:
                line[0].set_axis_off()
            else:
                show_image(line[0], pixels)
                _label_row(line[0], label_of(method))
        for panel, sparsity in zip(panels[0, 1:], sparsities, strict=True):
            panel.set_title(f"{sparsity:.10g} %", fontsize=8)
        panels[0, 0].set_title(_wrapped(title), fontsize=8)
        caption = (
            "Gradient of the restricted network from sparsity to sparsity (per cent of the neurons pruned). 0 % is "
            "the gradient of the whole network; zero: no path from the input to the class is left."
        )
        return Drawing(name, figure, caption, picture=True)


def map_strip(
    name: str, pixels: np.ndarray, title: str, maps: Mapping[str, Tensor], columns: Sequence[str], caption: str
) -> Drawing:
    """Draw several maps of one image by each method: a row for each method.

    Args:
        name: of the drawing.
        pixels: (H, W, C) image in [0, 1].
        title: caption of the image, such as the predicted class.
        maps: (columns, H, W) single-channel maps by method.
        columns: headings of the maps.
        caption: of the drawing.

    Returns:
        The drawing.

    Example:
        >>> maps = {"gradients": torch.randn(2, 32, 32)}
        >>> pixels = torch.rand(32, 32, 3).numpy()
        >>> cpath.viz.map_strip("one", pixels, "a class", maps, ["before", "after"], "Two maps.").name
        'one'
    """
    methods = in_order(maps)
    with mpl.rc_context(STYLE):
        figure = new_figure(1.25 + 0.88 * (1 + len(columns)), 0.45 + 0.9 * len(methods))
        panels = _touching(figure, len(methods), 1 + len(columns))
        for line, method in zip(panels, methods, strict=True):
            for panel, values in zip(line[1:], maps[method], strict=True):
                show_map(panel, values)
            _label_row(line[1], label_of(method))
        for panel, column in zip(panels[0, 1:], columns, strict=True):
            panel.set_title(column, fontsize=7.5)
        for panel in panels[1:, 0]:
            panel.set_axis_off()
        show_image(panels[0, 0], pixels)
        panels[0, 0].set_title(_wrapped(title), fontsize=7.5)
        return Drawing(name, figure, caption, picture=True)


def _touching(figure: Figure, down: int, across: int) -> np.ndarray:
    """(down, across) panels without room between them."""
    return np.asarray(figure.subplots(down, across, squeeze=False, gridspec_kw={"wspace": 0, "hspace": 0}))


def _label_row(panel: Axes, label: str) -> None:
    panel.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)


def _wrapped(title: str) -> str:
    return "\n".join(part for line in title.splitlines() for part in textwrap.wrap(line, 17))
