"""Probe that gives the response as a function of the input, on which Captum and gradients work."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cpath.baselines import Baseline
from cpath.devices import widest
from cpath.errors import InputError, SiteError
from cpath.inputs import Given, Inputs
from cpath.outputs import check_site
from cpath.probe import Probe
from cpath.response import Answer, Response, Target
from cpath.sites import DEFAULT_SITES, RightGradients, intercept
from cpath.trial import takes_other_batches
from cpath.units import NEURONS, Units

# On a CPU, larger batches take longer per image: their activations, some ten times the size of the input, are more
# than the allocator keeps, and fetching fresh pages costs more than the batch saves (SqueezeNet at 224 pixels: a
# third less processor time per image at 6 rows than at 64).
_CPU_INPUT_BYTES = 4 * 2**20


Maps = Tensor | tuple[Tensor, ...]
"""Map of the only tensor that has a gradient, or of each."""


def one_or_all(maps: Iterable[Tensor]) -> Maps:
    """Unpack a single map.

    Args:
        maps: The maps.

    Returns:
        The only map, or a tuple of several.
    """
    several = tuple(maps)
    return several[0] if len(several) == 1 else several


class ResponseProbe(Probe):
    """Probe whose response is a differentiable function of the inputs; see `cpath.Probe`.

    Args:
        model: A model that maps ``inputs`` to logits (B, classes), see `cpath.response`.
        inputs: Tensor (B, …) on the model's device, a tuple or a mapping, see `cpath.inputs`.
        target: Class to explain: None for the predicted class, an int, or ints (B,); or a function of the model's
            output that returns floats (B,).
        sites: Names of the activation functions whose calls are sites.
        unit: What is scored as one, for pathways; see `cpath.Probe`.
        baseline: What pruned units are set to, for pathways; see `cpath.Probe`.
        max_batch: Largest number of inputs in one forward pass, counting repetitions.

    Example:
        >>> probe = cpath.attribution.ResponseProbe(model, images, target=3)
        >>> torch.equal(probe.response(images), model(images)[:, 3])
        True
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
        super().__init__(model, inputs, target, sites=sites, unit=unit, baseline=baseline, max_batch=max_batch)
        self.inputs = self.inputs.detach()  # what is made from the user's inputs must not reach back to them
        self._sites: list[tuple[dict[str, tuple[int, ...]], list[tuple[str, ...]]]] = []  # shared by the parts

    @property
    def asked(self) -> Target:
        """Target as far as it is known: a function, or classes (B,); None while these are still to be predicted."""
        return self._reading.function or self._reading.classes

    def asking(self, target: Target) -> Self:
        """Ask another question about the same inputs.

        Args:
            target: The target, as for the constructor.

        Returns:
            A probe of the same inputs.
        """
        probe = copy.copy(self)
        probe._reading = Response(target, len(self), self.device)
        return probe

    @property
    def sources(self) -> tuple[Tensor, ...]:
        """Tensors of the inputs that have a gradient, without one of their own: the floats."""
        return tuple(self.inputs.tensors[number] for number in self.inputs.sources)

    @property
    def images(self) -> Tensor:
        """The images (B, C, H, W) among the inputs, for what needs one.

        Raises:
            InputError: If no tensor of floats has this shape, or several have.
        """
        return self.inputs.tensors[self.image_number]

    @property
    def image_number(self) -> int:
        """Number of the images' tensor among those of the inputs."""
        found = [number for number in self.inputs.sources if self.inputs.tensors[number].dim() == 4]
        if len(found) != 1:
            how_many = "several such tensors" if found else "none"
            raise InputError(
                f"this attribution needs images (B, C, H, W), of which the inputs have {how_many}: they are "
                f"{self.inputs.shapes}."
            )
        return found[0]

    @property
    def rows_at_once(self) -> int:
        """Number of inputs, counting repetitions, per pass: ``max_batch``, or fewer large ones on a CPU."""
        if self._whole_only:
            return len(self)
        if self.device.type != "cpu":
            return self.max_batch
        return min(self.max_batch, max(1, _CPU_INPUT_BYTES // self.inputs.bytes_each))

    def inputs_at_once(self, rows: int = 1) -> int:
        """Choose the number of inputs for one pass.

        Args:
            rows: Number of rows that one input takes.

        Returns:
            The number, at least 1; all inputs of a model that takes no other batch.
        """
        return len(self) if self._whole_only else max(1, self.rows_at_once // rows)

    @property
    def _whole_only(self) -> bool:
        """True for a model that takes no part of this batch, because it holds something of each input."""
        _ = self.left_out  # found by a look at the model
        return len(self) <= self.max_batch and not takes_other_batches(self.model, self.sites)

    def response(self, *versions: Tensor) -> Tensor:
        """Compute the responses to versions of the batch.

        Unless a target is given or known, the first call takes the class that it predicts as the target:
        ``versions`` must then be the inputs themselves.

        Args:
            versions: For each of `sources`, K versions of its batch (K·B, …), one whole batch after another. The
                other tensors of the inputs are repeated. None at all for the inputs themselves.

        Returns:
            Responses (K·B,).
        """
        return self._answer(versions).values

    def probability(self, *versions: Tensor) -> Tensor:
        """Compute the probability of the target class.

        It is float64, if the device has it, so that small changes near 1 are kept.

        Args:
            versions: As for `response`.

        Returns:
            Probabilities (K·B,).

        Raises:
            InputError: If the target is a function.
        """
        self.need_classes("a probability")
        logits = self._answer(versions).class_logits
        classes = self._reading.classes
        assert logits is not None
        assert classes is not None
        labels = classes.repeat(len(logits) // len(self)).unsqueeze(1)
        return logits.to(widest(logits.device)).softmax(1).gather(1, labels).squeeze(1)

    def _answer(self, versions: tuple[Tensor, ...]) -> Answer:
        _ = self.left_out
        inputs = self.inputs.versions(versions)
        # Non-leaves go in, so that a model may change its input in place.
        wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs.tensors)
        with RightGradients() if wanted else nullcontext():
            answer = self._reading.read(self._call(inputs.clone()), len(inputs), differentiable=wanted)
        if not wanted or len(versions) < 2:
            return answer
        # A tensor that the model does not use has a gradient of zero. (Zero times its values could be NaN.)
        nothing = sum(tensor.flatten()[:0].sum() for tensor in versions if tensor.requires_grad)
        return Answer(answer.values + nothing, answer.class_logits)

    def activation(self, site: str) -> Tensor:
        """Compute the output of a site. Resolves the target on the way.

        Args:
            site: Name of the site.

        Returns:
            Output (B, *site).

        Raises:
            SiteError: If the model does not reach the site for these inputs.
        """
        seen: list[Tensor] = []

        def visit(name: str, output: Tensor) -> None:
            if name == site:
                seen.append(check_site(name, output, len(self)).clone())

        left_out = self.left_out
        with torch.no_grad(), intercept(self.model, visit, sites=self.sites, left_out=left_out):
            self.response()
        if not seen:
            raise not_reached_error(site)
        return seen[-1]

    def spatial_sites(self, wanted: str | None) -> tuple[str, ...]:
        """Find the sites at which a map is taken.

        By default that is the last convolutional site: the last one whose output is (B, C, h, w) with h·w > 1. If
        its channels are concatenated with those of other sites (the branches of an inception module), it is all of
        these. A site with a single position (after a global pooling, in a squeeze-and-excitation block) is chosen
        only if there is nothing else.

        Args:
            wanted: Name of the one site to take, or None for the default.

        Returns:
            Names of the sites.

        Raises:
            SiteError: If there is no such site, or its output is not (B, C, h, w).
        """
        if not self._sites:
            self._sites.append(_look_at_sites(self))
        shapes, joined = self._sites[0]
        if wanted is not None:
            if wanted not in shapes:
                raise SiteError(f"the model has no site '{wanted}'. Its sites: {', '.join(shapes)}.")
            if len(shapes[wanted]) != 3:
                raise SiteError(
                    f"site '{wanted}' gives {shapes[wanted]} per input, but a map needs channels, height and width."
                )
            return (wanted,)
        maps = {name: shape for name, shape in shapes.items() if len(shape) == 3}
        if not maps:
            raise SiteError(
                "the model has no convolutional site, one whose output is (B, C, h, w); "
                f"its sites are {', '.join(shapes)}."
            )
        last = next((name for name in reversed(maps) if maps[name][1] * maps[name][2] > 1), list(maps)[-1])
        return max((sites for sites in joined if last in sites), key=len)


def not_reached_error(site: str) -> SiteError:
    """Make the error for a site that the model has, but does not reach for the inputs.

    Args:
        site: Name of the site.

    Returns:
        The error, to be raised.
    """
    return SiteError(
        f"the model reached site '{site}' for some inputs but not for others: pass those for which it does."
    )


def no_influence_error(site: str) -> SiteError:
    """Make the error for a site that the response does not depend on.

    Args:
        site: Name of the site.

    Returns:
        The error, to be raised.
    """
    return SiteError(
        f"the response does not depend on site '{site}' in a way that has a gradient: name another one, site='…'."
    )


class _Joins(TorchFunctionMode):
    """Record of the concatenations of channels through which the outputs of sites pass."""

    def __init__(self) -> None:
        super().__init__()
        # By identity of the tensor, which is held so that no other takes its place.
        self.sites: dict[int, tuple[Tensor, tuple[str, ...]]] = {}

    def note(self, tensor: Tensor, sites: tuple[str, ...]) -> None:
        self.sites[id(tensor)] = (tensor, sites)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func in _CONCATENATIONS:
            parts = args[0] if args else kwargs["tensors"]
            dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis", 0))
            if output.dim() == 4 and dim in (1, -3):
                self.note(output, tuple(site for part in parts for site in self.sites.get(id(part), (part, ()))[1]))
        return output


_CONCATENATIONS = (torch.cat, torch.concat, torch.concatenate)


def _look_at_sites(probe: ResponseProbe) -> tuple[dict[str, tuple[int, ...]], list[tuple[str, ...]]]:
    """Find the shape of each site without the batch, and the sites whose channels are concatenated somewhere."""
    shapes: dict[str, tuple[int, ...]] = {}
    joins = _Joins()
    inputs = probe.inputs if probe._whole_only else probe.inputs[:1]

    def visit(name: str, output: Tensor) -> None:
        shapes[name] = tuple(check_site(name, output, len(inputs)).shape[1:])
        joins.note(output, (name,))

    left_out = probe.left_out
    with (
        torch.no_grad(),
        joins,
        intercept(probe.model, visit, sites=probe.sites, left_out=left_out),
    ):
        probe._call(inputs.clone())
    if not shapes:
        raise probe.no_sites_error()
    return shapes, [(name,) for name in shapes] + [sites for _, sites in joins.sites.values()]
