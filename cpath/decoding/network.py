"""The restricted network in the form that Lucent runs.

Lucent sees no module of the model: it sets its hooks on stand-ins for the sites that an objective asks for, through
which cpath's own mechanism passes their outputs. So sites of functional and reused activations have objectives
like any other, under the names that they have everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from cpath.baselines import blended
from cpath.checks import copied
from cpath.decoding.objectives import Task
from cpath.decoding.starts import Start
from cpath.errors import CpathError, InputError, MaskError, unknown_name
from cpath.response import class_logits, logits_of
from cpath.sites import EVERY_SITE, check_sites, intercept, observe, unwrap

if TYPE_CHECKING:
    from cpath.data import Normalisation

Runner = Callable[[Tensor, Mapping[str, Callable[[Tensor], object]]], Tensor]
"""Function from pixels (B, C, H, W) to logits, which calls the functions, by site, with the site's output."""


class Network:
    """Copy of the model, restricted, with inputs in [0, 1].

    Args:
        model: The model, which is not changed.
        tasks: Images to make.
        sites: Names of the activation functions whose calls are sites, if no pathway tells.
        normalisation: Normalisation between the pixels and the model, if any.
    """

    def __init__(
        self, model: nn.Module, tasks: list[Task], sites: Iterable[str], normalisation: Normalisation | None
    ) -> None:
        # The renderer differentiates a copy, so that nothing of the user's model can change.
        self._model = copied(unwrap(model), "decoding").requires_grad_(False).eval()
        first = next((p for p in self._model.parameters() if p.is_floating_point()), torch.empty(0, device="cpu"))
        self.device, self._dtype = first.device, first.dtype
        self._normalisation = normalisation
        self._sites = check_sites(sites, self._model)
        kinds = {task.pathway.sites for task in tasks if task.pathway is not None}
        if len(kinds) > 1:
            raise MaskError(f"the pathways are of different activation functions: {sorted(kinds)}.")
        self._sites = next(iter(kinds), self._sites)
        self._asked: dict[str, None] = {}

    def _prepare(self, pixels: Tensor) -> Tensor:
        # Lucent puts its images on the first GPU, whatever the model is on.
        images = pixels.to(self.device, self._dtype)
        # A copy: a model may change its input in place.
        return images.clone() if self._normalisation is None else self._normalisation.apply(images)

    def check(self, task: Task, start: Start) -> None:
        """Run one task once, to report errors before the optimisation.

        Args:
            task: The task.
            start: An image.

        Raises:
            CpathError: If mask, size, site or index do not fit, an error of the class that tells which.
        """
        with torch.no_grad(), ExitStack() as stack:
            if task.pathway is not None:
                stack.enter_context(task.pathway.to(self.device).restrict(self._model))
            seen = stack.enter_context(observe(self._model, sites=self._sites))
            pixels = start.image()
            try:
                logits = class_logits(self._model(self._prepare(pixels)), 1)
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
            raise InputError("an objective must return a tensor with one number.")

    def start(self, task: Task, first: Start, tries: int, reseed: Callable[[int], None]) -> Start:
        """Find the first start at which a task has a gradient.

        Args:
            task: The task.
            first: The first start.
            tries: Largest number of starts.
            reseed: Function that seeds the random generators for an attempt.

        Returns:
            That start; ``first`` if no start has a gradient.
        """
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

    def _slope(self, task: Task, start: Start, run: Runner) -> float:
        pixels = start.image()
        seen: dict[str, Tensor] = {"input": pixels}
        taps = {name: partial(seen.__setitem__, name) for name in self._asked}
        seen["labels"] = run(pixels, taps)
        loss = task.objective(seen.__getitem__)
        if not loss.requires_grad:
            return 0.0
        gradients = torch.autograd.grad(loss.sum(), start.tensors, allow_unused=True)
        return max((float(g.abs().max()) for g in gradients if g is not None), default=0.0)

    def watched(self, tasks: list[Task]) -> Watched:
        """Make the network that Lucent runs.

        Args:
            tasks: Images that are made together.

        Returns:
            The network.
        """
        sites = [name for name in self._asked if name not in ("input", "labels")]
        return Watched(self._runner(tasks), sites)

    def _runner(self, tasks: list[Task]) -> Runner:
        """Make a function that runs image i through pathway i and passes the outputs of sites on."""
        reference = next((task.pathway for task in tasks if task.pathway is not None), None)
        masks = None
        if reference is not None:
            rows = [
                torch.ones_like(reference.flat) if task.pathway is None else reference.aligned(task.pathway)
                for task in tasks
            ]
            # Masks of the images' own type are many times faster than boolean ones on a CPU.
            masks = reference.layout.views(torch.cat([row.to(self.device) for row in rows]).to(self._dtype))
        baselines = self._baselines(tasks)

        def run(pixels: Tensor, taps: Mapping[str, Callable[[Tensor], object]]) -> Tensor:
            def visit(name: str, output: Tensor) -> Tensor:
                kept = output if masks is None else blended(output, masks[name], baselines.get(name))
                if name in taps:
                    taps[name](kept.clone())  # a copy: the model may go on with it in place
                return kept

            edits = () if masks is None else EVERY_SITE
            left_out = () if reference is None else reference.left_out
            with intercept(self._model, visit, edits=edits, sites=self._sites, left_out=left_out):
                output = self._model(self._prepare(pixels))
            return logits_of(output)

        return run

    def _baselines(self, tasks: list[Task]) -> dict[str, Tensor]:
        """Join the baselines of the tasks' pathways, (tasks, *site) by site; empty if all are zero."""
        of_tasks = [None if task.pathway is None else task.pathway.baseline for task in tasks]
        first = next((baseline for baseline in of_tasks if baseline is not None), None)
        if first is None:
            return {}
        return {
            name: torch.cat(
                [
                    (torch.zeros_like(zero) if one is None else one[name]).to(self.device, self._dtype)
                    for one in of_tasks
                ]
            )
            for name, zero in first.items()
        }


class Broken(Exception):
    """Carrier of a RuntimeError of the model past Lucent, which would go on without the forward pass.

    Args:
        error: The error.
    """

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(str(error))
        self.error = error


class Watched(nn.Module):
    """Module that Lucent takes for the model, with one child for each site, through which the site's output passes.

    Args:
        run: Function that runs the restricted network.
        sites: Names of the sites that objectives ask for.
    """

    def __init__(self, run: Runner, sites: Sequence[str]) -> None:
        super().__init__()
        self._run = run
        # A site's name holds dots, which no child's may. Lucent takes the last child for the logits.
        self._keys = {name: f"tap{number}" for number, name in enumerate((*sites, "labels"))}
        for key in self._keys.values():
            self.add_module(key, nn.Identity())

    def key(self, name: str) -> str:
        """Translate a site's name into Lucent's.

        Args:
            name: Name of the site.

        Returns:
            Name of the child.
        """
        return self._keys.get(name, name)

    def forward(self, pixels: Tensor) -> Tensor:
        """Compute the logits (B, classes)."""
        taps = {name: self.get_submodule(key) for name, key in self._keys.items()}
        try:
            logits = self._run(pixels, taps)
        except RuntimeError as error:
            raise Broken(error) from error
        taps["labels"](logits)
        return logits
