"""`explore`: everything about the pathways of some images in one page."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from cpath.baselines import check_baseline
from cpath.checks import within_memory
from cpath.errors import EmptyPathwayWarning, InputError, described
from cpath.inputs import check_images
from cpath.progress import steps
from cpath.response import Response, Target
from cpath.sites import DEFAULT_SITES
from cpath.storage import replacing
from cpath.units import NEURONS, Units
from cpath.viz.explorer.examine import Answers, examine
from cpath.viz.explorer.page import Shown, write_page
from cpath.viz.explorer.plan import METHODS, SPARSITY, Plan, SomeMethods
from cpath.viz.pixels import Labels, Scale, captions, pixels_of

_UNITS_AT_ONCE = 24_000_000  # of which each method holds scores and masks


@dataclass(frozen=True, eq=False)
class Explorer:
    """A page in which pathways are picked and seen. Made by `explore`.

    Attributes:
        html: The page, which needs nothing from elsewhere.
        inputs: Number of inputs.
        methods: Names of the methods.

    Example:
        >>> explorer = cpath.explore(model, images, "neuron_mct", sparsity=[50, 90])
        >>> explorer.save(folder / "explorer.html").name
        'explorer.html'
    """

    html: str
    inputs: int
    methods: tuple[str, ...]

    def __repr__(self) -> str:
        size = len(self.html.encode()) / 1e6
        return f"Explorer(inputs={self.inputs}, methods={len(self.methods)}, {size:.1f} MB)"

    def _repr_html_(self) -> str:
        frame = "width:100%;height:900px;border:1px solid #8884;border-radius:6px"
        return f'<iframe title="Explorer" style="{frame}" srcdoc="{escape(self.html)}"></iframe>'

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, which appears whole or not at all.

        Args:
            path: The file to write, such as ``explorer.html``.

        Returns:
            The file.

        Raises:
            StorageError: If it cannot be written.
        """
        path = Path(path)
        with replacing(path) as partial:
            partial.write_text(self.html, encoding="utf-8")
        return path


def explore(
    model: nn.Module,
    inputs: Tensor,
    methods: SomeMethods = METHODS,
    target: Target = None,
    *,
    sparsity: float | Iterable[float] = SPARSITY,
    sites: str | Iterable[str] = DEFAULT_SITES,
    unit: str | Units | Sequence[str | Units] = NEURONS,
    baseline: Mapping[str, Tensor] | None = None,
    normalisation: Scale = None,
    names: Sequence[str] | None = None,
    true: Labels = None,
    classes: Sequence[str] | None = None,
    title: str | None = None,
    channels: int = 6,
    max_batch: int = 64,
) -> Explorer:
    """Compute everything about the pathways of some images, and write a page in which it is picked and seen.

    For every input, method and sparsity the page shows the kept share of each site, where in the input the units of
    a site are kept, the site's strongest channels, the map of the pathway, the classes of the whole and of the
    restricted network, sufficiency and necessity, and the overlap with the other methods.

    Takes one scoring of each method, and for each sparsity two forward passes, a backward pass, and those of
    `faithfulness`. A progress bar shows once this takes more than a few seconds.

    Args:
        model: A model that maps images to logits (B, classes), see `cpath.response`.
        inputs: Images (B, C, H, W) as the model expects them, on its device.
        methods: Extraction methods: names, or `Method` objects; a mapping gives them names of their own.
        target: Response that is explained, as for `score`.
        sparsity: Stops of the page's slider, ascending per cents of all units to prune; at most 16.
        sites: What is a site, as for `score`.
        unit: What is kept and pruned as one, as for `score`; of several kinds, the page lets one be picked.
        baseline: What pruned units are set to, as for `score`.
        normalisation: Undoes the normalisation of the inputs where they are shown, as for `show`.
        names: A name for each input.
        true: True class of each input, numbers or names.
        classes: Names of the classes, by number.
        title: Heading of the page.
        channels: Number of channels of each site that are shown one by one, those with the highest sum of scores.
        max_batch: Largest number of inputs in one forward pass, counting repetitions.

    Returns:
        The page; in a notebook it shows itself.

    Raises:
        InputError: If an argument is unusable; the arguments are checked before any method runs.
        SiteError: If the model has no site, or a site has no such units.
        UnknownNameError: If there is no such method or unit.
        OutOfMemoryError: If a pass of ``max_batch`` inputs does not fit into the device's memory.

    Example:
        >>> explorer = cpath.explore(
        ...     model, images, ["neuron_mct", "random"], sparsity=[50, 90], normalisation=((0.5,) * 3, (0.25,) * 3)
        ... )
        >>> explorer.inputs, explorer.methods
        (2, ('neuron_mct', 'random'))
        >>> "https:" in explorer.html  # no request to any host
        False
    """
    pixels = pixels_of(inputs, normalisation)
    check_images(model, inputs)
    shown = Shown(
        pixels,
        _check_names(names, len(pixels)),
        _check_classes(classes),
        _check_true(true, len(pixels), classes),
        _check_title(title, model),
    )
    settings: dict[str, Any] = {"sparsity": sparsity, "sites": sites, "unit": unit, "channels": channels}
    remedy = f"pass a smaller max_batch than {max_batch}, or fewer inputs at once"
    with within_memory(remedy), warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyPathwayWarning)  # the page says which are empty
        plan = Plan.of(model, inputs, methods, target, count=len(pixels), max_batch=max_batch, **settings)
        answers = _all_answers(model, inputs, plan, target, baseline)
    return Explorer(write_page(plan, answers, shown), len(pixels), tuple(plan.methods))


def _all_answers(
    model: nn.Module, inputs: Tensor, plan: Plan, target: Target, baseline: Mapping[str, Tensor] | None
) -> Answers:
    """Examine as many inputs at once as leave room for the masks of all methods."""
    asked = Response(target, len(inputs), inputs.device)
    values = check_baseline(baseline, len(inputs), inputs.device)
    at_once = max(1, min(plan.max_batch, _UNITS_AT_ONCE // max(unit.layout.units for unit in plan.units)))
    parts = []
    for number in steps(-(-len(inputs) // at_once), "exploring"):
        rows = slice(number * at_once, (number + 1) * at_once)
        of_part = asked.function or (None if asked.classes is None else asked.classes[rows])
        parts.append(examine(model, inputs[rows], plan, of_part, None if values is None else values.part(rows)))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _check_names(names: object, count: int) -> list[str]:
    if names is None:
        return [f"input {number}" for number in range(count)]
    if isinstance(names, str) or not isinstance(names, Sequence) or len(names) != count:
        raise InputError(f"names= must be a name for each of the {count} inputs, not {described(names)}.")
    return [str(name) for name in names]


def _check_classes(classes: object) -> list[str]:
    if classes is None:
        return []
    if isinstance(classes, str) or not isinstance(classes, Sequence):
        raise InputError(f"classes= are names in the order of the classes' numbers, not {described(classes)}.")
    return [str(name) for name in classes]


def _check_true(true: Labels, count: int, classes: Sequence[str] | None) -> list[int | str] | None:
    if true is None:
        return None
    captions(count, None, true, classes)  # raises where there is not one for each input, or one without a name
    return true.tolist() if isinstance(true, Tensor) else list(true)


def _check_title(title: object, model: nn.Module) -> str:
    if title is None:
        return f"Critical pathways of {type(model).__name__}"
    if not isinstance(title, str):
        raise InputError(f"title= must be text, not {described(title)}.")
    return title
