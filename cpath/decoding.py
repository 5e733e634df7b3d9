"""Decoding: the image that makes a network, or one of its pathways, respond most. An adapter over Lucent.

Lucent (torch-lucent) optimises the image; this file gives it the restricted network. Lucent sees no module of
the model: it hooks stand-ins for the sites that an objective asks for, through which cpath's own mechanism
passes their outputs. So sites of functional and reused activations have objectives like any other, under the
names that they have everywhere.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from cpath.errors import CpathError, InputError, MaskError, unknown_name
from cpath.optional import optional
from cpath.pathway import Pathway
from cpath.probe import check_logits
from cpath.sites import DEFAULT_ACTIVATIONS, EVERY_SITE, differentiating, intercept, observe, unwrap

if TYPE_CHECKING:
    from cpath.data import Normalisation

Layer = Callable[[str], Tensor]
"""Gives the output of a site by name, (1, *site); also ``labels``, the logits, and ``input``, the image."""

Objective = Callable[[Layer], Tensor]
"""What is minimised for one image, as Lucent has it: any of ``lucent.optvis.objectives`` on names of sites."""

Parametrisation = Callable[[int, int, int], tuple[Iterable[Tensor], Callable[[], Tensor]]]
"""From channels, height and width: tensors to optimise, and what makes the image (1, C, H, W) of them."""

_NOISE = 0.01  # Lucent's own: nearly uniform grey

PARAMETRISATIONS = ("pixel", "fourier", "cppn")


@dataclass(frozen=True)
class Logit:
    """Objective: the logit of class ``target``."""

    target: int

    def __call__(self, layer: Layer) -> Tensor:
        """The loss, for Lucent to minimise."""
        return -_part(layer("labels"), (self.target,), "the model").mean()


@dataclass(frozen=True)
class Channel:
    """Objective: the mean of one channel of a site's output; of a fully connected site, one neuron."""

    site: str
    channel: int

    def __call__(self, layer: Layer) -> Tensor:
        """The loss, for Lucent to minimise."""
        return -_part(layer(self.site), (self.channel,), f"site '{self.site}'").mean()


@dataclass(frozen=True)
class Neuron:
    """Objective: one neuron of a site, such as (channel, row, column)."""

    site: str
    index: tuple[int, ...]

    def __call__(self, layer: Layer) -> Tensor:
        """The loss, for Lucent to minimise."""
        return -_part(layer(self.site), self.index, f"site '{self.site}'").mean()


def _part(values: Tensor, index: tuple[int, ...], where: str) -> Tensor:
    shape = tuple(values.shape[1:])
    inside = [0 <= place < size for place, size in zip(index, shape, strict=False)]
    if len(index) > len(shape) or not all(inside):
        raise InputError(f"the objective asks for {index} of {where}, which gives {shape} an image.")
    for place in index:
        values = values[:, place]
    return values


@dataclass(frozen=True, eq=False)
class Decoding:
    """The images that `decode` made."""

    images: Tensor
    """(B, C, H, W) pixels in [0, 1], on the CPU; NaN where ``dead``."""
    dead: Tensor
    """(B,) bool: no gradient reached the image, at whatever start, so that the optimisation could not begin."""
    attempt: Tensor
    """(B,) which start was taken: 0 the usual one, others are noisier."""

    def __len__(self) -> int:
        return len(self.images)


def decode(
    model: nn.Module,
    pathways: Pathway | Sequence[Pathway | None] | None,
    objectives: Objective | Sequence[Objective] | None = None,
    *,
    shape: tuple[int, int, int],
    normalisation: Normalisation | None = None,
    parametrisation: str | Parametrisation = "pixel",
    transforms: Sequence[Callable[[Tensor], Tensor]] = (),
    steps: int = 256,
    learning_rate: float = 0.05,
    tries: int = 8,
    seed: int = 0,
    activations: Iterable[str] = DEFAULT_ACTIVATIONS,
    max_batch: int = 16,
    on_step: Callable[[int], object] | None = None,
) -> Decoding:
    """The images for which the restricted networks respond most: activation maximisation with Lucent.

    >>> cpath.decode(model, pathway, shape=(3, 224, 224), normalisation=data.normalisation)       # its class
    >>> cpath.decode(model, [None, pathway], Channel("features.29", 7), shape=(3, 224, 224))

    ``pathways``: one image is made for every image of every pathway, and for None, the unrestricted network.
    ``objectives``: what to maximise, one for all or one for each; default: the logit of the pathway's target.
    ``shape``: (C, H, W) of the images that the pathways belong to. ``normalisation`` comes between the pixels in
    [0, 1] and the model. ``parametrisation``: pixel (as published), fourier or cppn (for square images), or a
    function. ``transforms``: of Lucent's or others, applied to the pixels (B, C, H, W); they must keep the size.
    ``activations`` counts where no pathway tells. All images start from the same noise, drawn by ``seed``; one
    whose objective has no gradient there, all of its neurons being dead, tries others, up to ``tries`` of them,
    which for pixel and fourier are also stronger. They are optimised by Adam, each objective scaled to a largest
    gradient of 1 at the start, at most ``max_batch`` together, which does not change them up to rounding.
    ``on_step(images)`` is called after every step of that many images.

    The model itself is not run but a copy of it, and the global random states are restored. An objective
    without a gradient gives no image: see `Decoding.dead`; a warning says so. Raises `MaskError` for a pathway
    of another model or input size, `InputError` for unusable settings, `UnknownNameError` for an unknown site,
    `MissingPackageError` without torch-lucent.
    """
    if min(steps, max_batch, tries) < 1 or not 0 < learning_rate < float("inf") or not 0 <= seed < 2**32:
        raise InputError(
            "decoding needs steps, max_batch and tries ≥ 1, learning_rate > 0 and 0 ≤ seed < 2³²; got "
            f"{steps}, {max_batch}, {tries}, {learning_rate} and {seed}."
        )
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape must be (channels, height, width), not {tuple(shape)}.")
    tasks = _tasks(pathways, objectives)
    with differentiating(), _seeded(seed) as reseed:
        network = _Network(model, tasks, activations, normalisation)
        first_starts = []
        for task in tasks:
            reseed(0)
            first_starts.append(_Start(parametrisation, shape, 0))
            network.check(task, first_starts[-1])
        starts = [network.start(task, s, tries, reseed) for task, s in zip(tasks, first_starts, strict=True)]
        alive = [row for row, start in enumerate(starts) if start.slope > 0]
        for first in range(0, len(alive), max_batch):
            rows = alive[first : first + max_batch]
            reseed(0)
            _render(
                network,
                [tasks[row] for row in rows],
                [starts[row] for row in rows],
                transforms,
                steps,
                learning_rate,
                on_step,
            )
        images = torch.cat([start.image() for start in starts]).detach().cpu().float()
    if not torch.isfinite(images).all():
        raise InputError("the optimisation diverged to NaN: lower the learning rate.")
    dead = torch.tensor([start.unmoved() for start in starts])
    if dead.any():
        images[dead] = float("nan")
        warnings.warn(
            f"{int(dead.sum())} of {len(dead)} objectives have no gradient at any of {tries} start images, so that "
            "there is no image of them: nothing of the pathway leads to the objective, or all of it is dead there.",
            RuntimeWarning,
            stacklevel=2,
        )
    return Decoding(images, dead, torch.tensor([start.attempt for start in starts]))


@dataclass(frozen=True)
class _Task:
    """One image to make."""

    pathway: Pathway | None  # of one image
    objective: Objective


def _tasks(
    pathways: Pathway | Sequence[Pathway | None] | None, objectives: Objective | Sequence[Objective] | None
) -> list[_Task]:
    given = [pathways] if pathways is None or isinstance(pathways, Pathway) else list(pathways)
    single: list[Pathway | None] = []
    for pathway in given:
        single += [None] if pathway is None else [pathway[row : row + 1] for row in range(len(pathway))]
    if not single:
        raise InputError("nothing to decode: pass a pathway, or None for the unrestricted network.")
    if objectives is None:
        return [_Task(pathway, _default_objective(pathway)) for pathway in single]
    several = [objectives] * len(single) if callable(objectives) else list(objectives)
    if len(several) != len(single):
        raise InputError(f"{len(several)} objectives for {len(single)} images: pass one, or one for each.")
    return [_Task(*task) for task in zip(single, several, strict=True)]


def _default_objective(pathway: Pathway | None) -> Objective:
    if pathway is None or pathway.target is None:
        raise InputError("no pathway says which class to maximise: pass objectives, such as Logit(281).")
    return Logit(int(pathway.target[0]))


class _Start:
    """One image as tensors to optimise."""

    slope = 0.0
    """Largest gradient of the objective at the image; 0 where it has none."""

    def __init__(self, parametrisation: str | Parametrisation, shape: tuple[int, int, int], attempt: int) -> None:
        tensors, self.image = _parametrisation(parametrisation, attempt)(*shape)
        self.tensors = list(tensors)
        self.attempt = attempt
        self._made_from = parametrisation, shape
        found = tuple(self.image().shape)
        if found != (1, *shape):
            raise InputError(f"the parametrisation makes images {found}, but {(1, *shape)} is wanted.")
        self._before = [tensor.detach().clone() for tensor in self.tensors]

    def again(self, attempt: int) -> _Start:
        """Another start of the same form."""
        return _Start(*self._made_from, attempt)

    def unmoved(self) -> bool:
        """Whether the optimisation changed nothing: every gradient was 0."""
        return all(torch.equal(old, new.detach()) for old, new in zip(self._before, self.tensors, strict=True))


_Runner = Callable[[Tensor, Mapping[str, Callable[[Tensor], object]]], Tensor]
"""Logits of pixels (B, C, H, W); shows the functions, by site, what passes there."""


class _Network:
    """A copy of the model, restricted, with inputs in [0, 1]."""

    def __init__(
        self, model: nn.Module, tasks: list[_Task], activations: Iterable[str], normalisation: Normalisation | None
    ) -> None:
        self._model = _frozen_copy(unwrap(model))
        first = next((p for p in self._model.parameters() if p.is_floating_point()), torch.empty(0))
        self.device, self._dtype = first.device, first.dtype
        self._normalisation = normalisation
        self._activations = (activations,) if isinstance(activations, str) else tuple(activations)
        kinds = {task.pathway.activations for task in tasks if task.pathway is not None}
        if len(kinds) > 1:
            raise MaskError(f"the pathways are of different activation functions: {sorted(kinds)}.")
        self._activations = next(iter(kinds), self._activations)
        self._asked: dict[str, None] = {}

    def _prepare(self, pixels: Tensor) -> Tensor:
        # Lucent puts its images on the first GPU, whatever the model is on.
        images = pixels.to(self.device, self._dtype)
        # A copy: a model may change its input in place.
        return images.clone() if self._normalisation is None else self._normalisation.apply(images)

    def check(self, task: _Task, start: _Start) -> None:
        """Runs one task once; raises the library's errors where mask, size, site or index do not fit."""
        with torch.no_grad(), ExitStack() as stack:
            if task.pathway is not None:
                stack.enter_context(task.pathway.to(self.device).restrict(self._model))
            seen = stack.enter_context(observe(self._model, activations=self._activations))
            pixels = start.image()
            try:
                logits = check_logits(self._model(self._prepare(pixels)), 1)
            except CpathError:
                raise
            except (RuntimeError, ValueError) as error:
                raise InputError(f"the model cannot take images {tuple(pixels.shape[1:])}: {error}") from error
        known = {"input": pixels.detach(), **seen.activations, "labels": logits}

        def layer(name: str) -> Tensor:
            if name not in known:
                raise unknown_name("site", name, known)
            self._asked[name] = None
            return known[name]

        loss = task.objective(layer)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise InputError("an objective must return one number a call, as a tensor.")

    def start(self, task: _Task, first: _Start, tries: int, reseed: Callable[[int], None]) -> _Start:
        """The first of ``tries`` starts at which the task has a gradient; ``first`` where none has."""
        run = self._runner([task])
        start = first
        for attempt in range(tries):
            if attempt > 0:
                reseed(attempt)
                start = first.again(attempt)
            start.slope = self._slope(task, start, run)
            if start.slope > 0:
                return start
        return first

    def _slope(self, task: _Task, start: _Start, run: _Runner) -> float:
        pixels = start.image()
        seen: dict[str, Tensor] = {"input": pixels}
        taps = {name: partial(seen.__setitem__, name) for name in self._asked}
        seen["labels"] = run(pixels, taps)
        loss = task.objective(seen.__getitem__)
        if not loss.requires_grad:
            return 0.0
        gradients = torch.autograd.grad(loss.sum(), start.tensors, allow_unused=True)
        return max((float(g.abs().max()) for g in gradients if g is not None), default=0.0)

    def watched(self, tasks: list[_Task]) -> _Watched:
        """The network that Lucent runs for ``tasks`` together."""
        sites = [name for name in self._asked if name not in ("input", "labels")]
        return _Watched(self._runner(tasks), sites)

    def _runner(self, tasks: list[_Task]) -> _Runner:
        """Runs image i through pathway i, showing each site that is asked for what passes it."""
        reference = next((task.pathway for task in tasks if task.pathway is not None), None)
        masks = None
        if reference is not None:
            rows = [
                torch.ones_like(reference.flat) if task.pathway is None else reference.aligned(task.pathway)
                for task in tasks
            ]
            # Masks of the images' own type are many times faster than boolean ones on a CPU.
            masks = reference.layout.views(torch.cat([row.to(self.device) for row in rows]).to(self._dtype))

        def run(pixels: Tensor, taps: Mapping[str, Callable[[Tensor], object]]) -> Tensor:
            def visit(name: str, output: Tensor) -> Tensor:
                kept = output if masks is None else output * masks[name]
                if name in taps:
                    taps[name](kept.clone())  # a copy: the model may go on with it in place
                return kept

            edits = () if masks is None else EVERY_SITE
            with intercept(self._model, visit, edits=edits, activations=self._activations):
                logits: Tensor = self._model(self._prepare(pixels))
            return logits

        return run


class _Broken(Exception):
    """Carries a RuntimeError of the model past Lucent, which would go on without the forward pass."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(str(error))
        self.error = error


class _Watched(nn.Module):
    """What Lucent takes for the model: one child for every site asked for, through which its output passes."""

    def __init__(self, run: _Runner, sites: Sequence[str]) -> None:
        super().__init__()
        self._run = run
        # A site's name holds dots, which no child's may. Lucent takes the last child for the logits.
        self._keys = {name: f"tap{number}" for number, name in enumerate((*sites, "labels"))}
        for key in self._keys.values():
            self.add_module(key, nn.Identity())

    def key(self, name: str) -> str:
        """What Lucent calls the site."""
        return self._keys.get(name, name)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits, (B, classes)."""
        taps = {name: self.get_submodule(key) for name, key in self._keys.items()}
        try:
            logits = self._run(pixels, taps)
        except RuntimeError as error:
            raise _Broken(error) from error
        taps["labels"](logits)
        return logits


def _render(
    network: _Network,
    tasks: list[_Task],
    starts: list[_Start],
    transforms: Sequence[Callable[[Tensor], Tensor]],
    steps: int,
    learning_rate: float,
    on_step: Callable[[int], object] | None,
) -> None:
    """Optimises ``starts`` in place, all together; Adam works element by element, so that they stay independent."""
    render = _lucent("render")
    watched = network.watched(tasks)
    size = tuple(starts[0].image().shape[-2:])
    done = 0

    def keeps_size(pixels: Tensor) -> Tensor:
        if tuple(pixels.shape[-2:]) != size:
            raise InputError(
                f"the transforms change the size from {size} to {tuple(pixels.shape[-2:])}, but a pathway's masks "
                "belong to one size: use transforms that keep it, such as Lucent's jitter."
            )
        return pixels

    def objective(layer: Layer) -> Tensor:
        losses = [
            task.objective(lambda name, row=row: layer(watched.key(name))[row : row + 1])  # type: ignore[misc]
            for row, task in enumerate(tasks)
        ]
        # Adam's ε would hold still what has a small gradient, as sparse pathways do: at the start the largest is 1.
        return torch.stack(
            [loss.reshape(()) / max(start.slope, 1e-30) for loss, start in zip(losses, starts, strict=True)]
        ).sum()

    def optimizer(tensors: list[Tensor]) -> torch.optim.Optimizer:
        adam = torch.optim.Adam(tensors, lr=learning_rate)
        adam.register_step_post_hook(after)
        return adam

    def after(*_: Any) -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(len(tasks))

    try:
        render.render_vis(
            watched,
            objective,
            lambda: (
                [tensor for start in starts for tensor in start.tensors],
                lambda: torch.cat([start.image() for start in starts]),
            ),
            optimizer=optimizer,
            transforms=[*transforms, keeps_size],
            thresholds=(steps,),
            preprocess=False,  # would be ImageNet's normalisation, whatever the model was trained with
            progress=False,
            show_image=False,
            fixed_image_size=size,  # would be 224 for all smaller images
        )
    except _Broken as broken:
        raise broken.error from None
    if done < steps:  # Lucent takes Ctrl-C for a wish to see the image as it is
        raise KeyboardInterrupt


def _frozen_copy(model: nn.Module) -> nn.Module:
    """The renderer runs backwards through a copy: nothing of the user's model can change."""
    try:
        copied = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"the model cannot be copied (copy.deepcopy), which decoding needs: {error}") from error
    return copied.requires_grad_(False).eval()


def _parametrisation(wanted: str | Parametrisation, attempt: int) -> Parametrisation:
    if callable(wanted):
        return wanted
    if wanted not in PARAMETRISATIONS:
        raise unknown_name("parametrisation", wanted, PARAMETRISATIONS)
    if wanted == "cppn":
        return _cppn
    image = _lucent("param.images").image

    def make(channels: int, height: int, width: int) -> tuple[Iterable[Tensor], Callable[[], Tensor]]:
        # Asked for no number of channels, Lucent makes three with the correlation of natural colours.
        made: tuple[Iterable[Tensor], Callable[[], Tensor]] = image(
            width,
            height,
            sd=_NOISE * 10 ** min(attempt, 2),
            fft=wanted == "fourier",
            channels=None if channels == 3 else channels,
        )
        return made

    return make


def _cppn(channels: int, height: int, width: int) -> tuple[Iterable[Tensor], Callable[[], Tensor]]:
    if height != width:
        raise InputError(f"Lucent's cppn makes square images only, not {height}×{width}.")
    made: tuple[Iterable[Tensor], Callable[[], Tensor]] = _lucent("param.cppn").cppn(height, channels)
    return made


def _lucent(module: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the old kornia that it needs
        return optional(f"lucent.optvis.{module}", "torch-lucent>=0.1.8", "decoding")


@contextmanager
def _seeded(seed: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that seeds torch and numpy, of both of which Lucent draws; restores both afterwards."""
    gpus = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    before = np.random.get_state()  # noqa: NPY002 (Lucent draws from numpy's global state)

    def reseed(attempt: int) -> None:
        torch.manual_seed(seed + attempt)
        np.random.seed((seed + attempt) % 2**32)  # noqa: NPY002

    with torch.random.fork_rng(gpus):
        try:
            yield reseed
        finally:
            np.random.set_state(before)  # noqa: NPY002
