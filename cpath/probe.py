"""One batch of inputs in front of one network: everything that the methods ask of a model.

A `Probe` runs the model forwards and backwards with its sites recorded, masked or replaced. It never computes a
parameter's gradient, and leaves nothing behind in the model.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from cpath._torch import eagerly, version
from cpath.baselines import Baseline, blended, check_baseline
from cpath.checks import without_vmap_warnings
from cpath.display import Shown
from cpath.errors import CpathError, InputError, SiteError
from cpath.inputs import Given, Inputs, check_inputs, wrong_input_error
from cpath.keeping import Keeping
from cpath.layout import SiteLayout
from cpath.outputs import check_site, in_memory_of_their_own, no_gradient_error
from cpath.replay import Replay
from cpath.response import Response, Target, check_gradient, logits_of
from cpath.sites import (
    ACTIVATIONS,
    ATTENTION,
    DEFAULT_SITES,
    EVERY_SITE,
    check_sites,
    count_calls,
    intercept,
    unwrap,
)
from cpath.trial import found_in, left_out, takes_other_batches
from cpath.units import NEURONS, Units, check_units


@dataclass(frozen=True, repr=False)
class Record(Shown):
    """Results of one forward pass, and of a backward pass of the response if it was asked for.

    Attributes:
        response: Response (B,).
        activations: Output (B, *site) of every site, in call order.
        gradients: Gradient (B, *site) of the response with respect to each of them; empty if not asked for.
        class_logits: Logits (B, classes), see `cpath.response`; None if the target is a function of the output.
    """

    response: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]
    class_logits: Tensor | None = None

    @property
    def logits(self) -> Tensor:
        """Logits (B, classes); of a binary classifier with one logit z, (−z/2, z/2)."""
        if self.class_logits is None:
            raise InputError("a target that is a function of the output has no logits of classes: leave it out.")
        return self.class_logits


@dataclass
class _Lanes:
    """Properties of the model that are found by trying, and shared by the parts of a probe; None until then.

    Attributes:
        possible: `torch.vmap` can run the model.
        copies: The model writes over a site's output in place, so that each pass needs a copy of the replacement.
        uses_returned: The model uses the return values of its in-place activations, so that nothing has to be
            written back to their inputs.
        keeps: The model keeps tensors on itself that it computes, which in lanes are of no use to the next pass.
        left_out: Names of calls that do not depend on the input; see `Probe.left_out`.
    """

    possible: bool | None = None
    copies: bool = False
    uses_returned: bool | None = None
    keeps: bool | None = None
    left_out: frozenset[str] | None = None


class Probe:
    """Batch of inputs in front of a model, explained for a target.

    The model must be in eval mode while a probe is used (`cpath.score` sees to it).

    Args:
        model: A model that maps ``inputs`` to logits (B, classes), see `cpath.response`.
        inputs: Tensor (B, …) on the model's device, a tuple of positional arguments or a mapping of keyword
            arguments, see `cpath.inputs`.
        target: Class to explain: None for the predicted class, an int, or ints (B,); or a function of the model's
            output that returns the response, floats (B,).
        sites: What the sites are, see `cpath.sites`.
        unit: What is scored as one: ``"neuron"``, ``"channel"``, ``"token"``, ``"head"``, or `cpath.Units`.
        baseline: What pruned units are set to: None for zero, or tensors (B, *site), (1, *site) or (*site) by site.
        max_batch: Largest number of inputs in one forward pass, if a method runs an input more than once.

    Attributes:
        inputs: The inputs, as `cpath.inputs.Inputs`.

    Raises:
        InputError: If model, inputs or target are unusable.
        SiteError: If the model is scripted.
        UnknownNameError: If an entry of ``sites`` fits no function, module or class of the model.

    Example:
        >>> probe = cpath.Probe(model, images)
        >>> record = probe.record()
        >>> record.gradients["relu2"].shape, probe.target.shape
        (torch.Size([2, 6, 4, 4]), torch.Size([2]))
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Given | Inputs,
        target: Target = None,
        *,
        sites: Iterable[str] = DEFAULT_SITES,
        unit: str | Units = NEURONS,
        baseline: Mapping[str, Tensor] | Baseline | None = None,
        max_batch: int = 64,
    ) -> None:
        self.model = unwrap(model)
        self.inputs = check_inputs(self.model, inputs).usable_by_autograd()
        self.sites = check_sites(sites, self.model)
        self.units = check_units(unit)
        self.baseline = check_baseline(baseline, len(self.inputs), self.inputs.device)
        self.max_batch = max_batch
        self._reading = Response(target, len(self.inputs), self.inputs.device)
        self._lanes = _Lanes()
        self._replay = Replay([], len(self))

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""
        return self.inputs.device

    def part(self, rows: slice | Tensor) -> Self:
        """Select inputs, with their targets.

        Args:
            rows: A slice, or a tensor of numbers or booleans.

        Returns:
            A probe of these inputs.
        """
        part = copy.copy(self)
        part.inputs = self.inputs[rows]
        part._reading = self._reading.part(rows)
        part._replay = self._replay.part(rows)
        part.baseline = self.baseline and self.baseline.part(rows)
        return part

    def about(self, inputs: Inputs) -> Self:
        """Ask about other inputs of the same shapes, such as copies of these, with the targets of these.

        Args:
            inputs: As many others.

        Returns:
            A probe of them.
        """
        _ = self.target  # found for these inputs, not for the others
        other = copy.copy(self)
        other.inputs = inputs
        other._replay = Replay([], len(other))
        return other

    def layout(self, values: Mapping[str, Tensor]) -> SiteLayout:
        """Lay out the units of the sites.

        Args:
            values: Tensors (B, *site) by site, such as activations.

        Returns:
            The layout of their units.

        Raises:
            SiteError: If a site has no such units.
        """
        return SiteLayout.of(values, self.units)

    def above_baseline(self, site: str, activation: Tensor) -> Tensor:
        """Compute the difference of a site's output from its baseline.

        Args:
            site: Name of the site.
            activation: Its output (B, *site).

        Returns:
            z − b (B, *site); ``activation`` itself if the baseline is zero.
        """
        return activation if self.baseline is None else activation - self.baseline.at(site, activation)

    def remembering(self) -> Self:
        """Keep the results of costly operations, so that `responses` does not run those before its site again.

        They take about as much memory as the activations.

        Returns:
            A probe of the same inputs.
        """
        probe = copy.copy(self)
        probe._replay = Replay.record(lambda inputs: self._call(inputs.clone()), self.inputs)
        return probe

    @property
    def left_out(self) -> frozenset[str]:
        """Names of the calls of activation functions that do not depend on the input, and are no sites.

        The first use for a model runs it on a pair of inputs and on one (see `cpath.trial`).
        """
        if self._lanes.left_out is None:
            self._lanes.left_out = left_out(self.model, self.inputs, self.sites)
        return self._lanes.left_out

    @property
    def target(self) -> Tensor | None:
        """Class (B,) that each input is explained for: the one asked for, or the predicted one.

        None if the target is a function of the output.
        """
        if not self._reading.settled:
            _ = self.left_out  # warns of what would make the target a matter of chance
            with torch.no_grad():
                self._reading.read(self._run(), len(self))
        return self._reading.classes

    @property
    def function(self) -> Callable[[Any], Tensor] | None:
        """Function of the model's output that is the target; None if it is a class."""
        return self._reading.function

    def need_classes(self, what: str) -> None:
        """Refuse a target that is a function, for what compares classes.

        Args:
            what: Name of what needs classes.

        Raises:
            InputError: If the target is a function of the output.
        """
        self._reading.need_classes(what)

    def record(self, masks: Mapping[str, Tensor] | None = None, *, gradients: bool = True) -> Record:
        """Run one forward pass, and one backward pass to the sites.

        Args:
            masks: Masks (B, *units) of 0 and 1 by site, with which the network is the restricted one: the recorded
                outputs are those with the pruned units at their baseline, and the gradients are with respect to
                these. Masks of the images' own type are many times faster than boolean ones on a CPU.
            gradients: Run the backward pass.

        Returns:
            Responses, outputs and gradients.

        Raises:
            SiteError: If there is no site, or a site has no gradient.
            InputError: If the model's output holds no finite logits, the target is no class of the model, or the
                baseline does not fit the sites.

        Example:
            >>> record = cpath.Probe(model, images).record(gradients=False)
            >>> {name: tuple(z.shape) for name, z in record.activations.items()}
            {'relu1': (2, 4, 8, 8), 'relu2': (2, 6, 4, 4)}
        """
        record = self._record(masks, gradients, copies=False)
        if record is None:  # the model changed a site's output in place after the site: keep copies
            record = self._record(masks, gradients, copies=True)
        assert record is not None
        return record

    def _record(self, masks: Mapping[str, Tensor] | None, gradients: bool, copies: bool) -> Record | None:
        outputs: dict[str, Tensor] = {}
        versions: dict[str, int] = {}
        edges = {}
        # What is looked up by whole numbers need not be part of a graph: its sites are made the leaves of one.
        rooted = self.inputs.all_sources
        in_place = self.sites == ("relu",) and rooted and self.baseline is None

        def visit(name: str, output: Tensor) -> Tensor:
            check_site(name, output, len(self))
            baseline = None if self.baseline is None else self.baseline.at(name, output)  # fails early
            if masks is not None and in_place:
                # Hidden from autograd: ReLU's backward pass only uses the places where its output is positive, so
                # that a masked output is masked in the gradient too.
                output.data.mul_(masks[name])
            elif masks is not None:
                output = blended(output, masks[name], baseline)
            leaf = gradients and not output.requires_grad
            if leaf:
                if rooted or not torch.is_grad_enabled():
                    raise no_gradient_error(name)
                output = output.detach().requires_grad_()
            if gradients:
                edges[name] = get_gradient_edge(output)
            output = output.clone() if leaf else output  # the model may go on with it in place
            outputs[name] = output.detach().clone() if copies else output.detach()
            versions[name] = version(output)
            return output

        # A non-leaf, so that a model may change its input in place; it makes every site part of the graph
        # whether or not the parameters require gradients.
        with torch.enable_grad() if gradients else torch.no_grad():
            source = self.inputs.tracked() if gradients else self.inputs.clone()
            with intercept(
                self.model,
                visit,
                edits=() if rooted and (masks is None or in_place) else EVERY_SITE,
                sites=self.sites,
                in_place=masks is not None and in_place,
                left_out=self.left_out,
            ):
                output = self._call(source)
            if not outputs:
                raise self.no_sites_error()
            answer = self._reading.read(output, len(self), differentiable=gradients)
            if not copies and any(version(outputs[name]) != versions[name] for name in outputs):
                return None
            found: dict[str, Tensor] = {}
            if gradients:
                grads = torch.autograd.grad(answer.values.sum(), list(edges.values()), allow_unused=True)
                found = in_memory_of_their_own(dict(zip(edges, grads, strict=True)), outputs)
        logits = answer.class_logits
        return Record(answer.values.detach(), outputs, found, None if logits is None else logits.detach())

    def responses(self, site: str, values: Tensor) -> Tensor:
        """Compute the responses with the output of a site replaced.

        The part before the site is computed once, the rest in K lanes by `torch.vmap`; a model that vmap cannot run
        gets K full passes instead.

        Args:
            site: Name of the site.
            values: Replacements (K, B, *site).

        Returns:
            Responses (K, B), differentiable in ``values``.

        Example:
            >>> probe = cpath.Probe(model, images, target=3)
            >>> z = probe.record(gradients=False).activations["relu1"]
            >>> values = torch.stack([z, torch.zeros_like(z)])
            >>> torch.allclose(probe.responses("relu1", values)[0], model(images)[:, 3])
            True
        """
        _ = self.left_out, self.target  # looked at before anything is replaced
        if len(values) > 1 and self._lanes.possible is None:
            self._lanes.possible = self._survives_without_write_back()
        if len(values) > 1 and self._lanes.possible:
            found = self._tried_in_lanes(site, values)
            if found is not None:
                return found
        with torch.set_grad_enabled(values.requires_grad):
            # Copies, because the model may write over them.
            passes = (self._response(site, value.clone(), values.requires_grad, True) for value in values)
            return torch.stack(list(passes))

    def _tried_in_lanes(self, site: str, values: Tensor) -> Tensor | None:
        """Compute the responses by `torch.vmap`, of copies if need be; None if it cannot run the model."""
        # Without a graph, nothing would stop the model from writing over the caller's values.
        always = self._lanes.copies or not values.requires_grad
        for copies in (True,) if always else (False, True):
            try:
                found = self._in_lanes(site, values.clone() if copies else values)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # an operation without a batching rule, or in place into what comes before
                continue
            self._lanes.copies |= copies and values.requires_grad
            return found
        self._lanes.possible = False
        return None

    @without_vmap_warnings()
    def _in_lanes(self, site: str, values: Tensor) -> Tensor:
        differentiable = values.requires_grad  # inside vmap a lane does not say so

        def lane(value: Tensor) -> Tensor:
            return self._response(site, value, differentiable, write_back=False)

        kept = Keeping(self.model, values=False) if self._lanes.keeps is not False else None
        try:
            return torch.vmap(lane, randomness="same")(values)
        finally:
            if kept is not None:
                self._lanes.keeps = kept.restore()

    def _response(self, site: str, value: Tensor, differentiable: bool, write_back: bool) -> Tensor:
        replay = self._replay.handing_out()

        def visit(name: str, output: Tensor) -> Tensor | None:
            if name != site:
                return None
            replay.stop()
            torch.set_grad_enabled(differentiable)  # the network up to here needs no graph
            return value

        with (
            torch.no_grad(),
            replay,
            intercept(
                self.model,
                visit,
                edits={site},
                sites=self.sites,
                write_back=write_back,
                left_out=self.left_out,
            ),
        ):
            return self._reading.of(self._run())

    def no_sites_error(self) -> SiteError:
        """Make the error for a model that has none of the sites that were chosen.

        Returns:
            The error, to be raised. It names what the model does call.
        """
        wanted = ", ".join(entry for entry in self.sites if not entry.startswith("!")) or "none named"
        out = [entry for entry in self.sites if entry.startswith("!")]
        taken = f", or {' and '.join(out)} takes out all that it does" if out else ""
        _ = self.left_out  # looks at the model
        found = found_in(self.model, self.sites)
        apart = _but_at(found.constant, "where nothing depends on the input")
        apart += _but_at(
            found.outputs, "behind which no parameter takes part: it is the answer itself, unless you name it"
        )
        told = f"no site found: the model calls none of the functions looked for ({wanted}){taken}{apart}."
        calls = Counter({k: n for k, n in count_calls(self._run).items() if k not in self.sites})
        if calls:
            names = ", ".join(f"{name} ({count}×)" for name, count in calls.most_common())
            told += f" It calls {names}: pass sites={[*calls]!r}, or those of them you want."
        else:
            told += " It calls no other one that can be a site either."
        parts = Counter(type(part).__name__ for part in self.model.modules() if not list(part.children()))
        whole = Counter(type(part).__name__ for part in self.model.modules() if list(part.children()))
        whole -= Counter([type(self.model).__name__])
        classes = [f"{name} ({count}×)" for name, count in [*parts.most_common(8), *whole.most_common(4)]]
        return SiteError(
            f"{told} It is made of {', '.join(classes)}, whose outputs can be sites too: pass classes, or patterns "
            f"over names of modules. Known: {', '.join((*ACTIVATIONS, ATTENTION))}."
        )

    def _run(self) -> Any:
        """Run the model on a copy of the inputs, because a model may change its input in place."""
        return self._call(self.inputs.clone())

    def _call(self, inputs: Inputs) -> Any:
        """Run the model on ``inputs``, and add a note to an error of its own that says so."""
        try:
            with eagerly():
                return inputs.call(self.model)
        except CpathError:
            raise
        except Exception as error:
            # Behind a first answer, the inputs are right, and an error may be one that `torch.vmap` causes.
            wrong = None if self._reading.settled else wrong_input_error(self.model, inputs, error)
            if wrong is not None:
                raise wrong from error
            error.add_note(f"This is an error of the model itself, given inputs of {inputs.shapes}.")
            raise

    def gated(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Compute the logits of the network with gates λ at its sites: λ · z + (1 − λ) · b for an output z.

        Args:
            gates: Gates (B, *units) by site.

        Returns:
            Logits (B, classes), differentiable in the gates, in the caller's grad mode.

        Raises:
            SiteError: If a site has no gradient.
            InputError: If the logits have no gradient.
        """
        differentiable = torch.is_grad_enabled()

        def visit(name: str, output: Tensor) -> Tensor:
            if differentiable and not torch.is_grad_enabled():
                raise no_gradient_error(name)
            baseline = None if self.baseline is None else self.baseline.at(name, output)
            return blended(output, gates[name], baseline)

        with intercept(
            self.model,
            visit,
            edits=EVERY_SITE,
            sites=self.sites,
            write_back=not self._survives_without_write_back(),
            left_out=self.left_out,
        ):
            logits = logits_of(self._run())
        return check_gradient(logits) if differentiable else logits

    def _survives_without_write_back(self) -> bool:
        """Check that the model uses the return values of its in-place activations, not their inputs."""
        if self._lanes.uses_returned is None:
            self._lanes.uses_returned = self._try_without_write_back()
        return self._lanes.uses_returned

    def _try_without_write_back(self) -> bool:
        # One input tells, where the model takes one alone.
        some = self.part(slice(0, 1)) if takes_other_batches(self.model, self.sites) else self

        def shifted(write_back: bool) -> Tensor:
            # Shifted outputs, because those of an activation that changes nothing would prove nothing.
            with intercept(
                self.model,
                lambda name, output: output + 1,
                edits=EVERY_SITE,
                sites=self.sites,
                write_back=write_back,
                left_out=self.left_out,
            ):
                return some._reading.numbers_of(some._run())

        with torch.no_grad():
            logits = shifted(True)
            return bool(logits.isfinite().all()) and torch.allclose(shifted(False), logits, rtol=1e-4, atol=1e-6)


def _but_at(sites: frozenset[str], reason: str) -> str:
    """Say where the sites are that are none after all."""
    if not sites:
        return ""
    more = f" and {len(sites) - 1} others" if len(sites) > 1 else ""
    return f" but at {min(sites)}{more}, {reason}"
