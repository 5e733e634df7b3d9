"""Pictures of images and their saliency maps."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from torch import Tensor

from cpath.viz.style import STYLE, Drawing, in_order, label_of, new_figure

_CLIP = 0.99  # a few extreme pixels would leave the rest black
_MAPS = "inferno"
_BLUR = 1 / 50  # of the side: single pixels are too fine to be seen over an image
_HEAT = LinearSegmentedColormap.from_list(
    "heat", [(0.84, 0.37, 0, 0), (0.84, 0.37, 0, 0.55), (0.94, 0.9, 0.26, 0.95)]
)


@dataclass(frozen=True, eq=False)
class Maps:
    """Images with their single-channel maps, to be shown."""

    pixels: np.ndarray
    """(B, H, W, C) in [0, 1]"""
    titles: Sequence[str]
    """What the network sees in each image."""
    values: Mapping[str, Tensor]
    """(B, H, W) by method; by sparsity, for `sparsity_grid`, (S, H, W) by method."""


def magnitude(values: Tensor) -> np.ndarray:
    """|map| (H, W) scaled to [0, 1]: 1 is its 99th percentile, because a few pixels exceed all others by far."""
    size = values.detach().float().cpu().abs()
    top = torch.quantile(size.flatten(), _CLIP)
    top = top if top > 0 else size.max()
    return (size / top.clamp(min=1e-30)).clamp(max=1).numpy()


def show_image(panel: Axes, pixels: np.ndarray) -> None:
    """An image (H, W, C) in [0, 1]."""
    panel.imshow(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels, cmap="gray", vmin=0, vmax=1)
    _bare(panel)


def show_map(panel: Axes, values: Tensor) -> None:
    """Magnitude of a map (H, W)."""
    panel.imshow(magnitude(values), cmap=_MAPS, vmin=0, vmax=1)
    if not values.any():
        panel.text(0.5, 0.5, "zero", transform=panel.transAxes, ha="center", va="center", color="w", fontsize=7)
    _bare(panel)


def show_overlay(panel: Axes, pixels: np.ndarray, values: Tensor) -> None:
    """Magnitude of a map (H, W), blurred, over the grey image."""
    panel.imshow(0.35 + 0.65 * pixels.mean(-1), cmap="gray", vmin=0, vmax=1)
    blurred = _blurred(torch.from_numpy(magnitude(values)))
    panel.imshow((blurred / blurred.max().clamp(min=1e-30)).numpy(), cmap=_HEAT, vmin=0, vmax=1)
    _bare(panel)


def _blurred(values: Tensor) -> Tensor:
    sigma = max(0.5, _BLUR * min(values.shape))
    reach = min(int(3 * sigma), min(values.shape) - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(values)
    padded = F.pad(values[None, None], (reach, reach, reach, reach), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0, 0]


def _bare(panel: Axes) -> None:
    panel.set(xticks=[], yticks=[])
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)


def map_grid(maps: Maps, overlay: bool = False) -> Drawing:
    """A row an image, a column a method; with ``overlay`` the maps lie over the images."""
    methods, images = in_order(maps.values), len(maps.pixels)
    with mpl.rc_context(STYLE):
        figure = new_figure(1.5 + 1.05 * (1 + len(methods)), 0.4 + 1.08 * images)
        panels = figure.subplots(images, 1 + len(methods), squeeze=False, gridspec_kw={"wspace": 0, "hspace": 0})
        for number, line in enumerate(panels):
            _first_column(line[0], maps, number)
            for panel, method in zip(line[1:], methods, strict=True):
                if overlay:
                    show_overlay(panel, maps.pixels[number], maps.values[method][number])
                else:
                    show_map(panel, maps.values[method][number])
        for panel, method in zip(panels[0, 1:], methods, strict=True):
            panel.set_title(label_of(method), fontsize=8)
        caption = (
            "Attributions for the predicted class, blurred a little and laid over the images."
            if overlay
            else "Magnitude of each attribution for the predicted class, scaled to its 99th percentile."
        )
        return Drawing("overlays" if overlay else "maps", figure, caption, picture=True)


def _first_column(panel: Axes, maps: Maps, number: int) -> None:
    show_image(panel, maps.pixels[number])
    panel.set_ylabel(_wrapped(maps.titles[number]), rotation=0, ha="right", va="center", fontsize=8)


def _wrapped(title: str) -> str:
    return "\n".join(part for line in title.splitlines() for part in textwrap.wrap(line, 17))


def sparsity_grid(name: str, maps: Maps, sparsities: Sequence[float]) -> Drawing:
    """One image, its pathway gradients from sparsity to sparsity: a row a method, maps and overlays."""
    methods = in_order(maps.values)
    rows = [(method, overlay) for method in methods for overlay in (False, True)]
    with mpl.rc_context(STYLE):
        figure = new_figure(1.5 + 1.05 * (1 + len(sparsities)), 0.45 + 1.06 * len(rows))
        panels = figure.subplots(
            len(rows), 1 + len(sparsities), squeeze=False, gridspec_kw={"wspace": 0, "hspace": 0}
        )
        for line, (method, overlay) in zip(panels, rows, strict=True):
            for panel, values in zip(line[1:], maps.values[method], strict=True):
                if overlay:
                    show_overlay(panel, maps.pixels[0], values)
                else:
                    show_map(panel, values)
            if overlay:
                line[0].set_axis_off()
            else:
                show_image(line[0], maps.pixels[0])
                line[0].set_ylabel(label_of(method), rotation=0, ha="right", va="center", fontsize=8)
        for panel, sparsity in zip(panels[0, 1:], sparsities, strict=True):
            panel.set_title(f"{sparsity:g} %", fontsize=8)
        panels[0, 0].set_title(_wrapped(maps.titles[0]), fontsize=8)
        caption = (
            "Gradient of the restricted network from sparsity to sparsity (per cent of the neurons pruned). 0 % is "
            "the gradient of the whole network; zero: no path from the input to the class is left."
        )
        return Drawing(name, figure, caption, picture=True)
