"""Objects as a notebook and a prompt show them: sizes and a small picture, never the values of tensors.

The pictures are drawn as SVG here, so that an object shows itself where matplotlib is not installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from cpath.analysis.classes import PathwayCounter
    from cpath.evaluation.faithfulness import Faithfulness
    from cpath.pathway import Pathway
    from cpath.scores import Scores

_LETTERS = 90  # of a value; longer ones are cut
_SITES = 60  # in a table; a page with more is long
_BLUE = "#0072B2"
# Both themes of a notebook: the text has its colour, lines and cells a grey that shows on black and on white.
_TABLE = "border-collapse:collapse;font-size:13px;margin:4px 0"
_CELL = "text-align:left;padding:1px 14px 1px 0;border:0;background:none"
_NUMBER = "text-align:right;padding:1px 14px 1px 0;border:0;background:none"


class Shown:
    """Base class of objects that show their sizes: at a prompt in a line, in a notebook as a small table.

    A dataclass shows its fields. Other classes say in `_facts` what there is to show.
    """

    def _facts(self) -> Mapping[str, object]:
        """Get what there is to show, by name."""
        fields: dict[str, object] = getattr(type(self), "__dataclass_fields__", {})
        return {name: getattr(self, name) for name in fields}

    def __repr__(self) -> str:
        facts = ", ".join(f"{name}={summary(value)}" for name, value in self._facts().items())
        return f"{type(self).__name__}({facts})"

    def _repr_html_(self) -> str:
        return page(type(self).__name__, {name: summary(value) for name, value in self._facts().items()})


def summary(value: object) -> str:
    """Describe a value in a line, tensors by their shape and type.

    Args:
        value: Anything.

    Returns:
        The description.

    Example:
        >>> from cpath.display import summary
        >>> summary(torch.zeros(2, 3)), summary({"relu1": torch.zeros(2), "relu2": torch.zeros(2)})
        ('(2, 3) float32', '2 by name: relu1 (2,), relu2 (2,)')
        >>> summary(0.5), summary("relu"), summary(tuple(range(100)))
        ('0.5', "'relu'", '100 values')
    """
    if isinstance(value, Tensor | np.ndarray):
        return f"{value.item():.6g}" if value.ndim == 0 else f"{tuple(value.shape)} {_kind(value)}"
    if isinstance(value, nn.Module):
        return type(value).__name__
    if isinstance(value, Mapping) and len(value) > 0:
        return _cut(f"{len(value)} by name: {', '.join(f'{key}{_shape_of(one)}' for key, one in value.items())}")
    if isinstance(value, tuple | list):
        if len(value) > _LETTERS // 2:
            return f"{len(value)} values"
        listed = f"({', '.join(map(summary, value))}{',' if len(value) == 1 else ''})"
        return listed if len(listed) <= _LETTERS else f"{len(value)} values"
    return _cut(repr(value))


def _shape_of(value: object) -> str:
    return f" {tuple(value.shape)}" if isinstance(value, Tensor | np.ndarray) else ""


def _kind(value: Tensor | np.ndarray[Any, Any]) -> str:
    return str(value.dtype).removeprefix("torch.")


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"


def page(title: str, facts: Mapping[str, str], *more: str) -> str:
    """Write the HTML of an object.

    Args:
        title: Heading, plain text.
        facts: Descriptions by name, plain text.
        more: Further HTML below them.

    Returns:
        HTML that needs nothing from elsewhere.
    """
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL};opacity:.7">{escape(name)}</td>'
        f'<td style="{_CELL}">{escape(text)}</td></tr>'
        for name, text in facts.items()
    )
    table = f'<table style="{_TABLE}">{rows}</table>' if rows else ""
    return f'<div><strong style="font-size:14px">{escape(title)}</strong>{table}{"".join(more)}</div>'


def bars(values: Mapping[str, float], caption: str, unit: str = " %") -> str:
    """Draw a bar for each site, from input to output.

    Args:
        values: Non-negative value by site.
        caption: Words below the bars, plain text.
        unit: Unit of the values.

    Returns:
        An SVG picture with its caption; the name and value of a bar appear under the pointer.
    """
    top = max((value for value in values.values() if value == value), default=0) or 1.0
    step = min(24.0, 480 / max(len(values), 1))
    drawn = "".join(
        f'<rect x="{step * place:.1f}" y="{50 - height:.1f}" width="{0.8 * step:.1f}" height="{height:.1f}">'
        f"<title>{escape(name)}: {value:.3g}{escape(unit)}</title></rect>"
        for place, (name, value) in enumerate(values.items())
        for height in (48 * (0.0 if value != value else value) / top,)
    )
    width = step * len(values)
    line = f'<line x1="0" y1="50" x2="{width:.1f}" y2="50" stroke="currentColor" stroke-opacity=".5"/>'
    return (
        f'<svg width="{width:.0f}" height="51" viewBox="0 0 {width:.1f} 51" fill="{_BLUE}" role="img" '
        f'aria-label="{escape(caption)}" style="display:block;margin-top:4px">{drawn}{line}</svg>'
        f'<div style="font-size:12px;opacity:.7">{escape(caption)}, at most {top:.3g}{escape(unit)}</div>'
    )


def site_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table of the sites that opens at a click.

    Args:
        headings: Of the columns, the site's name first.
        rows: Cells, plain text.

    Returns:
        HTML.
    """
    cells = list(rows)
    head = "".join(f'<th style="{_CELL}">{escape(text)}</th>' for text in headings)
    body = "".join(
        '<tr style="background:none">'
        + "".join(f'<td style="{_NUMBER if n else _CELL}">{escape(text)}</td>' for n, text in enumerate(row))
        + "</tr>"
        for row in cells[:_SITES]
    )
    rest = f"<div>… and {len(cells) - _SITES} more</div>" if len(cells) > _SITES else ""
    return (
        f'<details style="font-size:13px"><summary>{len(cells)} site{"s" if len(cells) != 1 else ""}</summary>'
        f'<table style="{_TABLE}"><tr style="background:none">{head}</tr>{body}</table>{rest}</details>'
    )


def pathway_html(pathway: Pathway) -> str:
    """Write the HTML of a pathway.

    Args:
        pathway: The pathway.

    Returns:
        HTML: its sizes, the sparsity that was asked for and the realised one, and the kept share of each site.
    """
    unit, kept = pathway.layout.unit, pathway.flat.sum(1).double()
    realised = "of no input"
    if len(pathway):
        low, high = float(pathway.sparsity.min()), float(pathway.sparsity.max())
        realised = f"{low:.2f} %" if high - low < 0.005 else f"{low:.2f} to {high:.2f} %"
        realised += " realised"
    asked = pathway.requested_sparsity
    facts = {
        "inputs": str(len(pathway)),
        "sparsity": realised + ("" if asked is None else f", {asked:.10g} % asked for"),
        f"{unit}s kept": f"{float(kept.mean()) if len(kept) else 0:,.0f} of {pathway.layout.units:,}"
        + (" (mean over the inputs)" if len(pathway) > 1 else ""),
        **_of_both(pathway),
    }
    shares = {name: 100 * float(mask.double().mean()) for name, mask in pathway.masks.items()}
    rows = ((name, _units_of(pathway, name), f"{share:.2f}") for name, share in shares.items())
    table = site_table(("site", f"{unit}s", "kept (%)"), rows)
    picture = bars(shares, f"{unit}s kept by site, from input to output")
    return page(f"Pathway: {pathway.method}", facts, picture, table)


def scores_html(scores: Scores) -> str:
    """Write the HTML of scores.

    Args:
        scores: The scores.

    Returns:
        HTML: their sizes, and each site's share of their sum.
    """
    facts = {
        "inputs": str(len(scores)),
        f"{scores.layout.unit}s": f"{scores.layout.units:,}",
        "signs": "unknown" if scores.negative is None else "known: see .signed",
        **_of_both(scores),
    }
    if scores.residual is not None:
        found = torch.stack([value.double() for value in scores.residual.values()])
        facts["residual"] = f"{float(found.nanmedian()):.2g} (median over sites and inputs)"
    total = float(scores.flat.double().sum()) or 1.0
    shares = {name: 100 * float(value.double().sum()) / total for name, value in scores.values.items()}
    rows = ((name, _units_of(scores, name), f"{share:.2f}") for name, share in shares.items())
    table = site_table(("site", f"{scores.layout.unit}s", "of the sum (%)"), rows)
    picture = bars(shares, "share of the sum of scores by site, from input to output")
    return page(f"Scores: {scores.method}", facts, picture, table)


def faithfulness_html(found: Faithfulness) -> str:
    """Write the HTML of a faithfulness.

    Args:
        found: The faithfulness.

    Returns:
        HTML: means over the inputs, those of methods beside it too, and the curve as a table.
    """
    facts = {"inputs": str(len(found))}
    if len(found) and bool(found.undefined.any()):
        facts["without faithfulness"] = f"{int(found.undefined.sum())}, whose answer does not rise: left out"
    for one in (found, *found.beside):
        numbers = [f"CPR {_mean(one.cpr)}", f"CMD {_mean(one.cmd)}"]
        if one.losses is not None:
            numbers.append(f"necessity: CPR {_mean(one.necessity_cpr)}, CMD {_mean(one.necessity_cmd)}")
        facts[one.method] = ", ".join(numbers)
    columns = {"best units (%)": [f"{float(size):.10g}" for size in found.keep]}
    columns["sufficiency"] = [_mean(column) for column in found.sufficiency.T]
    if found.losses is not None:
        columns["necessity"] = [_mean(column) for column in found.losses.T]
    head = "".join(f'<th style="{_NUMBER}">{escape(name)}</th>' for name in columns)
    body = "".join(
        '<tr style="background:none">' + "".join(f'<td style="{_NUMBER}">{cell}</td>' for cell in row) + "</tr>"
        for row in zip(*columns.values(), strict=True)
    )
    table = f'<table style="{_TABLE}"><tr style="background:none">{head}</tr>{body}</table>'
    return page(f"Faithfulness: {found.method}", facts, table)


def _mean(values: Tensor) -> str:
    """Mean of the values that are there, to two places."""
    return f"{float(values.double().nanmean()):.2f}" if len(values) else "–"


def counter_html(counter: PathwayCounter) -> str:
    """Write the HTML of a counter of pathways.

    Args:
        counter: The counter.

    Returns:
        HTML: its sizes, how many inputs of each class it has seen, and how often a unit of each site is kept.
    """
    seen = counter.inputs
    facts = {"classes": str(counter.classes), "inputs": str(int(seen.sum()))}
    if not int(seen.sum()):
        return page("PathwayCounter", {**facts, "pathways": "none yet: update it with pathways"})
    layout, some = counter.layout, seen > 0
    facts |= {f"{layout.unit}s": f"{layout.units:,}", "inputs by class": summary(tuple(seen.tolist()))}
    views = layout.views(counter.frequency[some.to(counter.counts.device)])
    shares = {name: 100 * float(value.double().mean()) for name, value in views.items()}
    return page("PathwayCounter", facts, bars(shares, f"{layout.unit}s kept by site, mean over the classes"))


def activations_html(title: str, activations: Mapping[str, Tensor]) -> str:
    """Write the HTML of the outputs of sites.

    Args:
        title: Heading.
        activations: Outputs (B, *site) by site.

    Returns:
        HTML: their shapes, and the share of active neurons of each site.
    """
    if not activations:
        return page(title, {"sites": "none yet: run the model inside the block"})
    count = len(next(iter(activations.values())))
    active = {name: 100 * float((value != 0).double().mean()) for name, value in activations.items()}
    rows = ((name, f"{tuple(value.shape[1:])}", f"{active[name]:.1f}") for name, value in activations.items())
    table = site_table(("site", "shape for an input", "active (%)"), rows)
    return page(title, {"inputs": str(count)}, bars(active, "neurons that are not 0 by site"), table)


def _of_both(found: Pathway | Scores) -> dict[str, str]:
    target = "unknown, or a function of the output"
    if found.target is not None:
        classes = found.target.tolist()
        target = ", ".join(map(str, classes[:12])) + (", …" if len(classes) > 12 else "")
    baseline = "zero" if found.baseline is None else "values of its own for each site"
    return {"target class": target, "baseline": baseline, "sites": ", ".join(map(str, found.sites))}


def _units_of(found: Pathway | Scores, name: str) -> str:
    return " × ".join(map(str, found.layout.shapes[name]))
