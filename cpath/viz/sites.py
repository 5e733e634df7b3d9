"""Pictures of pathways and scores: how much of each site, and where in the input."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from cpath.errors import InputError
from cpath.pathway import Pathway
from cpath.scores import Scores
from cpath.viz.maps import show_image
from cpath.viz.pixels import Scale, pixels_of, site_labels
from cpath.viz.style import SHARES, STYLE, colour_of, label_of, new_figure

_TEXT = 8.5
_WIDEST = 11.0  # inches: at 900 pixels, the column of a notebook, the text is still 9 pixels high
_LETTERS = 26  # of the name of a site
_SHOWN = 16  # inputs that have a dot each
_ROWS = 6  # inputs whose positions and tokens are shown one by one
_HEADING = 14.5  # letters of a section's heading in an inch
_POSITIVE, _NEGATIVE = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class _Section:
    """One part of a figure, with the height that it needs."""

    height: float
    draw: Callable[[SubFigure], None]


def show_pathway(
    pathway: Pathway,
    inputs: Tensor | None = None,
    *,
    normalisation: Scale = None,
    at: Sequence[str] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Draw how much of each site a pathway keeps, and where.

    Bars show the kept share of each site, from input to output: of one input, or the mean with a dot for each
    input. Below them, as far as the network has them: the kept positions of sites with height and width (summed
    over channels), the kept share of each token and site, and of each attention head and site.
    ``pathway[3].show()`` shows the fourth input alone.

    Args:
        pathway: the pathway.
        inputs: images (B, C, H, W) to lay the positions over, as for `show`.
        normalisation: of the inputs, as for `show`.
        at: names of the sites whose positions are shown; several over the depth of the network if None.
        tokens: words of each input, for the names of its tokens.

    Returns:
        The figure.

    Raises:
        InputError: if inputs, sites or tokens do not belong to the pathway.

    Example:
        >>> pathway = cpath.find_pathway(model, images, sparsity=90)
        >>> figure = cpath.viz.show_pathway(pathway)
        >>> figure.get_suptitle()
        'NeuronMCT: 35 of 352 neurons kept (mean of 2 inputs), 90.06 % pruned'
    """
    _check_any(pathway)
    masks = {name: mask.detach().cpu() for name, mask in pathway.masks.items()}
    kept = pathway.flat.sum(1).double().cpu()
    asked, realised = pathway.requested_sparsity, float(pathway.sparsity.mean())
    title = (
        f"{label_of(pathway.method)}: {kept.mean():,.0f} of {pathway.layout.units:,} {pathway.layout.unit}s kept"
        f"{_of_inputs(len(pathway))}, {realised:.2f} % pruned"
        + (f" ({asked:.10g} % asked for)" if asked is not None and abs(asked - realised) > 0.1 else "")
    )
    shares = {name: 100 * mask.flatten(1).float().mean(1).numpy() for name, mask in masks.items()}
    whole = float(100 * kept.mean() / pathway.layout.units)
    label, colour = f"{pathway.layout.unit}s kept (%)", colour_of(pathway.method)
    bars = _Section(_bars_height(shares), lambda part: _bars(part.subplots(), shares, label, colour, whole))
    words = _Words("kept", "% of the channels", "% of the units kept")
    where = _where(masks, 100.0, words, inputs, normalisation, at, tokens)
    return _stacked(title, [bars, *where], _bars_width(shares))


def show_scores(
    scores: Scores,
    inputs: Tensor | None = None,
    *,
    normalisation: Scale = None,
    at: Sequence[str] | None = None,
    tokens: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Draw how strong each site is in scores, how they are distributed, and where they are.

    Bars show each site's share of the sum of all scores, by sign where the method knows signs; the panel below
    them the distribution of its scores above 0 (5 to 95 % and 25 to 75 % of them, with the median). Positions,
    tokens and heads follow as for `show_pathway`.

    Args:
        scores: the scores.
        inputs: images (B, C, H, W) to lay the positions over, as for `show`.
        normalisation: of the inputs, as for `show`.
        at: names of the sites whose positions are shown; several over the depth of the network if None.
        tokens: words of each input, for the names of its tokens.

    Returns:
        The figure.

    Raises:
        InputError: if inputs, sites or tokens do not belong to the scores.

    Example:
        >>> figure = cpath.viz.show_scores(cpath.score(model, images))
        >>> figure.get_suptitle()
        'NeuronMCT: scores of 352 neurons at 2 sites (mean of 2 inputs)'
    """
    _check_any(scores)
    count = len(scores.layout.shapes)
    title = (
        f"{label_of(scores.method)}: scores of {scores.layout.units:,} {scores.layout.unit}s at {count} "
        f"site{'s' if count > 1 else ''}{_of_inputs(len(scores))}"
    )
    values = {name: value.detach().float().cpu() for name, value in scores.values.items()}
    share = scores.flat.double().sum(1).clamp(min=1e-300).cpu()
    scaled = {name: (value.double() / _like(share, value)).float() for name, value in values.items()}
    strength = {name: 100 * value.flatten(1).sum(1).numpy() for name, value in scaled.items()}
    positive = None
    if scores.negative is not None:
        signed = {name: value.detach().float().cpu() for name, value in scores.signed.items()}
        positive = {
            name: 100 * float((scaled[name] * (signed[name] > 0)).flatten(1).sum(1).mean()) for name in scaled
        }
    colour = colour_of(scores.method)
    bars = _Section(
        _bars_height(values) + 1.7,
        lambda part: _strength_and_distribution(part, strength, positive, values, colour),
    )
    words = _Words("scores", "% of the site's sum", "% of the sum of scores")
    by_site = {
        name: value.float() / value.flatten(1).sum(1).clamp(min=1e-30).view(-1, *[1] * (value.dim() - 1))
        for name, value in scaled.items()
    }
    where = _where(by_site, 100.0, words, inputs, normalisation, at, tokens, totals=scaled)
    return _stacked(title, [bars, *where], _bars_width(values))


def _check_any(found: Pathway | Scores) -> None:
    if len(found) == 0:
        raise InputError(f"there is nothing to show: this {type(found).__name__} is of no input.")


def _of_inputs(count: int) -> str:
    return f" (mean of {count} inputs)" if count > 1 else ""


def _like(values: Tensor, other: Tensor) -> Tensor:
    return values.view(-1, *[1] * (other.dim() - 1))


def _stacked(title: str, sections: Sequence[_Section], width: float) -> Figure:
    with mpl.rc_context(STYLE):
        heights = [section.height for section in sections]
        figure = new_figure(width, sum(heights) + 0.35)
        figure.suptitle(title, fontsize=10)
        parts = np.atleast_1d(figure.subfigures(len(sections), 1, height_ratios=heights))
        for part, section in zip(parts, sections, strict=True):
            section.draw(part)
        return figure


# Bars by site


def _bars_width(sites: Mapping[str, object]) -> float:
    return float(np.clip(1.6 + 0.24 * len(sites), 6.5, _WIDEST))


def _bars_height(sites: Mapping[str, object]) -> float:
    return 2.0 + 0.062 * max(map(len, site_labels(list(sites), _LETTERS)))


def _strength_and_distribution(
    part: SubFigure,
    strength: Mapping[str, np.ndarray],
    positive: Mapping[str, float] | None,
    values: Mapping[str, Tensor],
    colour: str,
) -> None:
    above, below = part.subplots(2, 1, sharex=True)
    _bars(above, strength, "% of the sum of scores", colour, positive=positive)
    _distribution(below, values, colour)
    above.tick_params(labelbottom=False)


def _bars(
    panel: Axes,
    shares: Mapping[str, np.ndarray],
    label: str,
    colour: str,
    whole: float | None = None,
    positive: Mapping[str, float] | None = None,
) -> None:
    means = np.array([values.mean() for values in shares.values()])
    places = np.arange(len(means))
    if positive is None:
        panel.bar(places, means, width=0.75, color=colour, alpha=0.85)
    else:
        above = np.array([positive[name] for name in shares])
        panel.bar(places, above, width=0.75, color=_POSITIVE, label="contributions above 0")
        below = means - above
        panel.bar(places, below, bottom=above, width=0.75, color=_NEGATIVE, label="contributions below 0")
    _add_inputs(panel, shares)
    if whole is not None:
        panel.axhline(whole, color="#3C3C3C", linestyle="--", linewidth=1, label="whole network")
    if len(means) <= 12 and len(next(iter(shares.values()))) == 1:
        for place, mean in zip(places, means, strict=True):
            panel.annotate(
                f"{mean:.3g}", (place, mean), (0, 2), textcoords="offset points", ha="center", fontsize=_TEXT
            )
    panel.set(ylabel=label, ylim=(0, None))
    panel.margins(y=0.12)
    _name_sites(panel, list(shares))
    handles, _ = panel.get_legend_handles_labels()
    if handles:
        panel.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=len(handles), fontsize=_TEXT, borderaxespad=0.2
        )


def _add_inputs(panel: Axes, shares: Mapping[str, np.ndarray]) -> None:
    """Add a dot for each input; the least and the largest value where there are many."""
    values = np.stack(list(shares.values()))  # (sites, B)
    count = values.shape[1]
    if 1 < count <= _SHOWN:
        shifts = np.linspace(-0.25, 0.25, count)
        places = np.arange(len(values))[:, None] + shifts
        panel.plot(places.ravel(), values.ravel(), ".", color="#202020", markersize=3.5, label="one input")
    elif count > _SHOWN:
        low, high = values.min(1), values.max(1)
        panel.vlines(
            np.arange(len(values)), low, high, color="#202020", linewidth=1, label="least to largest input"
        )


def _name_sites(panel: Axes, names: Sequence[str]) -> None:
    every = -(-len(names) // 50)
    shown = range(0, len(names), every)
    labels = [site_labels(names, _LETTERS)[place] for place in shown]
    few = (max(map(len, labels)) + 2) * max(len(labels), 4) < 76  # letters in a row of 5.5 inches
    turned = {} if few else {"rotation": 55, "ha": "right", "rotation_mode": "anchor"}
    panel.set_xticks(list(shown), labels, fontsize=_TEXT, **turned)
    panel.set_xlim(-0.7, max(len(names), 4) - 0.3)
    panel.grid(visible=False, axis="x")


def _distribution(panel: Axes, values: Mapping[str, Tensor], colour: str) -> None:
    found = np.full((len(values), 5), np.nan)
    for place, value in enumerate(values.values()):
        above = value[value > 0]
        if len(above):
            found[place] = np.quantile(above.numpy(), (0.05, 0.25, 0.5, 0.75, 0.95))
    places = np.arange(len(values))
    panel.vlines(places, found[:, 0], found[:, 4], color=colour, linewidth=1.2)
    panel.vlines(places, found[:, 1], found[:, 3], color=colour, linewidth=6, alpha=0.6)
    panel.plot(places, found[:, 2], "_", color="#202020", markersize=8)
    known = found[~np.isnan(found)]
    if known.size and known.max() > 50 * known.min() > 0:
        panel.set_yscale("log")
    panel.set_ylabel("scores above 0")
    _name_sites(panel, list(values))


# Places: positions in an image, tokens, heads


@dataclass(frozen=True)
class _Words:
    what: str
    of_position: str
    of_token: str


def _axes(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Axes of a site's units, without the batch, that are places in the input, or heads."""
    found: dict[str, tuple[int, ...]] = {}
    if len(shape) == 3 and re.search(r":attention(#\d+)?$", name):
        found = {"head": (0,), "token": (1,)}
    elif len(shape) == 3:
        last = shape[0] == shape[1] != shape[2]  # (H, W, C), as in Swin and ConvNeXt
        found = {"position": (0, 1) if last else (1, 2)}
    elif len(shape) == 2:
        found = {"token": (0,)}
    return {kind: axes for kind, axes in found.items() if all(shape[axis] > 1 for axis in axes)}


def _along(values: Tensor, axes: tuple[int, ...], *, total: bool) -> Tensor:
    """Sum or mean over all axes but the batch and the given ones."""
    others = [axis for axis in range(1, values.dim()) if axis - 1 not in axes]
    if not others:
        return values.float()
    return values.float().sum(others) if total else values.float().mean(others)


def _where(
    values: Mapping[str, Tensor],
    scale: float,
    words: _Words,
    inputs: Tensor | None,
    normalisation: Scale,
    at: Sequence[str] | None,
    tokens: Sequence[Sequence[str]] | None,
    totals: Mapping[str, Tensor] | None = None,
) -> list[_Section]:
    """Sections of the places that a network has.

    ``totals`` are what tokens and heads are summed from, if their mean would say little.
    """
    count = len(next(iter(values.values())))
    kinds = {name: _axes(name, tuple(value.shape[1:])) for name, value in values.items()}
    unknown = [name for name in at or () if name not in values]
    if unknown:
        raise InputError(f"at= names '{unknown[0]}', which is no site here: {', '.join(values)}.")
    if tokens is not None and len(tokens) != count:
        raise InputError(f"tokens= has the words of {len(tokens)} inputs, of {count}.")
    sections = []
    spatial = [name for name in at or values if "position" in kinds[name]]
    pixels = None if inputs is None else pixels_of(inputs, normalisation)
    if pixels is not None and len(pixels) != count:
        raise InputError(f"there are {len(pixels)} inputs, but {count} were explained.")
    if spatial:
        width = _bars_width(values)
        chosen = spatial if at else _spread(spatial, max(1, int((width - 0.9) / 1.15) - (pixels is not None)))
        total = totals is not None
        maps = {name: _along(values[name], kinds[name]["position"], total=total) * scale for name in chosen}
        sections.append(_positions_section(maps, pixels, words, width, count))
    for kind in ("token", "head"):
        named = [name for name in values if kind in kinds[name] and len(kinds[name][kind]) == 1]
        if named:
            source, total = (values, False) if totals is None else (totals, True)
            rows = {name: _along(source[name], kinds[name][kind], total=total) * scale for name in named}
            sections.append(_grid_section(kind, rows, words, tokens if kind == "token" else None))
    return sections


def _spread(names: Sequence[str], count: int) -> list[str]:
    """Some of the names, evenly over all, the first and the last among them."""
    if len(names) <= count:
        return list(names)
    return [names[round(place)] for place in np.linspace(0, len(names) - 1, count)]


def _positions_section(
    maps: Mapping[str, Tensor], pixels: np.ndarray | None, words: _Words, width: float, count: int
) -> _Section:
    shown = min(count, _ROWS)
    columns = len(maps) + (pixels is not None)
    side = min((width - 0.6) / columns, 2.0)
    first = next(iter(maps.values()))
    high = side * float(np.clip(first.shape[1] / first.shape[2], 0.4, 2.5))
    return _Section((high + 0.05) * shown + 1.1, lambda part: _positions(part, maps, pixels, words, shown, count))


def _positions(
    part: SubFigure,
    maps: Mapping[str, Tensor],
    pixels: np.ndarray | None,
    words: _Words,
    shown: int,
    count: int,
) -> None:
    columns = len(maps) + (pixels is not None)
    tight = {"wspace": 0.04, "hspace": 0.04}
    panels = part.subplots(shown, columns, squeeze=False, gridspec_kw=tight)
    labels = site_labels(list(maps), 17)
    _headed(
        part,
        f"where in the image: {words.what} at each position, {words.of_position}, each site from 0 to its largest"
        f"{_first(shown, count)}",
    )
    for number, row in enumerate(panels):
        if pixels is not None:
            show_image(row[0], pixels[number])
        for panel, label, values in zip(row[pixels is not None :], labels, maps.values(), strict=True):
            top = float(values[:shown].max())
            _heat(panel, values[number].numpy(), top)
            if number == 0:
                panel.set_title(f"{label}\n≤ {top:.3g} %", fontsize=_TEXT)
    if pixels is not None:
        panels[0, 0].set_title("input", fontsize=_TEXT)


def _first(shown: int, count: int) -> str:
    return f", first {shown} of {count} inputs ([{shown}:] are the others)" if shown < count else ""


def _headed(part: SubFigure, heading: str) -> None:
    """Put a heading over a section, in as many lines as its width needs."""
    width = part.get_figure(root=True).get_figwidth()
    part.suptitle(textwrap.fill(heading, int(_HEADING * width)), fontsize=9)


def _heat(panel: Axes, values: np.ndarray, top: float) -> None:
    panel.imshow(values, cmap="inferno", vmin=0, vmax=max(top, 1e-30), interpolation="nearest")
    panel.set(xticks=[], yticks=[])
    panel.grid(visible=False)
    panel.spines[:].set_visible(False)


def _grid_section(
    kind: str, rows: Mapping[str, Tensor], words: _Words, tokens: Sequence[Sequence[str]] | None
) -> _Section:
    """Heads × sites as a mean over inputs; tokens × sites for each input, as tokens differ between inputs."""
    count = 1 if kind == "head" else min(len(next(iter(rows.values()))), _ROWS)
    named = 0.062 * max((len(word) for words_ in tokens for word in words_), default=0) if tokens else 0
    each = 0.75 + 0.2 * len(rows) + named
    return _Section(each * count + 0.4, lambda part: _grids(part, kind, rows, words, tokens, count))


def _grids(
    part: SubFigure,
    kind: str,
    rows: Mapping[str, Tensor],
    words: _Words,
    tokens: Sequence[Sequence[str]] | None,
    count: int,
) -> None:
    longest = max(value.shape[1] for value in rows.values())
    values = np.full((len(next(iter(rows.values()))), len(rows), longest), np.nan)  # (B, sites, places)
    for place, value in enumerate(rows.values()):
        values[:, place, : value.shape[1]] = value.numpy()
    if kind == "head":
        values = values.mean(0, keepdims=True)
    panels = part.subplots(count, 1, squeeze=False)[:, 0]
    top = max(float(np.nanmax(values[:count])), 1e-30)
    image = None
    for number, panel in enumerate(panels):
        image = panel.imshow(values[number], cmap=SHARES, vmin=0, vmax=top, aspect="auto", interpolation="nearest")
        panel.set_yticks(range(len(rows)), site_labels(list(rows), _LETTERS), fontsize=_TEXT)
        panel.grid(visible=False)
        if tokens is not None:
            panel.set_xticks(range(len(tokens[number])), tokens[number], rotation=60, ha="right", fontsize=_TEXT)
            for tick in panel.get_xticklabels():
                tick.set_rotation_mode("anchor")
        else:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=24))
        panel.set_xlabel(kind if tokens is None else "")
        if count > 1:
            panel.set_title(f"input {number}", fontsize=_TEXT, loc="left")
    inputs = len(next(iter(rows.values())))
    some = f", mean of {inputs} inputs" if kind == "head" else _first(count, inputs)
    _headed(part, f"{kind}s by site: {words.of_token}{some}")
    bar = part.colorbar(image, ax=list(panels), pad=0.01, aspect=max(10, 1.4 * len(rows) * count))
    bar.ax.tick_params(labelsize=_TEXT)
    bar.outline.set_visible(False)
