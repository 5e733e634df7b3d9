"""One batch of images in front of one network: everything that the methods ask of a model.

A `Probe` runs the model forwards and backwards with its sites recorded, masked or replaced. It never computes a
parameter's gradient, and leaves nothing behind in the model.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from cpath._torch import eagerly, version
from cpath.checks import without_vmap_warnings
from cpath.errors import CpathError, InputError, SiteError, described
from cpath.keeping import Keeping
from cpath.replay import Replay
from cpath.sites import (
    ACTIVATIONS,
    DEFAULT_SITES,
    EVERY_SITE,
    check_model,
    check_sites,
    count_calls,
    intercept,
    unwrap,
)
from cpath.trial import left_out

Target = None | int | Tensor


@dataclass(frozen=True)
class Record:
    """Results of one forward pass, and of a backward pass of the response if it was asked for.

    Attributes:
        logits: Logits (B, classes).
        activations: Output (B, *site) of every site, in call order.
        gradients: Gradient (B, *site) of the response with respect to each of them; empty if not asked for.
    """

    logits: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor]


def check_images(model: nn.Module, images: object) -> Tensor:
    """Check that a model can take the images.

    Args:
        model: The model.
        images: The images.

    Returns:
        ``images``.

    Raises:
        InputError: If ``model`` is no module, or ``images`` are not a batch of finite floats of the model's dtype
            on its device.
    """
    check_model(model)
    if not isinstance(images, Tensor):
        raise InputError(f"images must be a tensor (B, C, H, W), not {described(images)}.")
    if images.layout != torch.strided:
        raise InputError(f"images must be dense, not {images.layout}: pass images.to_dense().")
    if images.dim() < 2 or images.shape[0] == 0 or images.numel() == 0:
        raise InputError(f"images must be a batch (B, C, H, W) with B ≥ 1; got shape {tuple(images.shape)}.")
    if not images.is_floating_point():
        raise InputError(f"images must be floats as the model was trained on; got {images.dtype}.")
    tensors = [p for p in model.parameters() if p.is_floating_point()]
    for attribute, remedy in (("device", "images.to('{}')"), ("dtype", "images.to({})")):
        mine, theirs = getattr(images, attribute), {getattr(p, attribute) for p in tensors}
        if theirs and mine not in theirs:
            other = next(iter(theirs))
            raise InputError(
                f"images are {mine} but the model's parameters are {other}: pass {remedy.format(other)}."
            )
    if images.is_meta:
        raise InputError("images are meta tensors, which have no values: pass real ones.")
    if not torch.isfinite(images).all():
        raise InputError("images hold NaN or infinite values.")
    return images


def check_target(target: Target, batch: int, device: torch.device) -> Tensor | None:
    """Check the classes to explain.

    Args:
        target: None, an int, or ints (B,).
        batch: Number of images B.
        device: Device of the images.

    Returns:
        Classes (B,), int64, on ``device``; None for None.

    Raises:
        InputError: If ``target`` is none of these.
    """
    if target is None:
        return None
    try:
        labels = torch.as_tensor(target, device=device)
        labels = labels.to_dense() if labels.layout != torch.strided else labels
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"target must be a class index, or (B,) of them: {error}.") from error
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(f"target must hold class indices (integers), not {labels.dtype}.")
    if labels.dim() == 0:
        labels = labels.expand(batch)
    if labels.shape != (batch,):
        raise InputError(
            f"target must be one class, or one per image: shape ({batch},), not {tuple(labels.shape)}."
        )
    return labels.to(torch.int64, copy=labels.is_inference())


def check_logits(logits: object, batch: int, *, differentiable: bool = False) -> Tensor:
    """Check that a model's output is finite logits.

    Args:
        logits: The output.
        batch: Number of images B.
        differentiable: The output must also be part of autograd's graph.

    Returns:
        ``logits`` (B, classes).

    Raises:
        InputError: If they are anything else.
    """
    if not isinstance(logits, Tensor):
        raise InputError(
            f"the model returned a {type(logits).__name__}, not logits (B, classes): "
            "wrap it in a module that returns the logits."
        )
    if logits.dim() != 2 or logits.shape[0] != batch or not logits.shape[1]:
        raise InputError(
            f"the model returned shape {tuple(logits.shape)}, not logits ({batch}, classes): "
            "wrap it in a module that returns one row of logits per image."
        )
    if not logits.is_floating_point():
        raise InputError(f"the model returned {logits.dtype}, not logits: it must return floats.")
    if differentiable:
        check_gradient(logits)
    if not torch.isfinite(logits).all():
        raise InputError("the model's logits hold NaN or infinite values for these images.")
    return logits


def check_gradient(logits: Tensor) -> Tensor:
    """Check that logits are part of autograd's graph.

    Args:
        logits: The logits.

    Returns:
        ``logits``.

    Raises:
        InputError: If they have no gradient.
    """
    if not logits.requires_grad:
        raise InputError(
            "the model's logits have no gradient: it detaches them, runs under no_grad(), or does not use the "
            "images. Change that in the model."
        )
    return logits


def gradient_at(value: Tensor, source: Tensor) -> Tensor | None:
    """Compute ∂value/∂source.

    Args:
        value: A scalar.
        source: Any tensor.

    Returns:
        The gradient; None if ``value`` does not depend on ``source``.
    """
    if not value.requires_grad:
        return None
    (found,) = torch.autograd.grad(value, source, allow_unused=True)
    return found


def check_site(name: str, output: Tensor, batch: int) -> Tensor:
    """Check that the first dimension of a site's output is the batch.

    Args:
        name: Name of the site.
        output: Its output.
        batch: Number of images B.

    Returns:
        ``output`` (B, *site).

    Raises:
        SiteError: If it is not.
    """
    if output.dim() == 0 or output.shape[0] != batch:
        raise SiteError(
            f"site '{name}' gives shape {tuple(output.shape)}, but its first dimension must be the batch "
            f"({batch}): cpath works on each image's own neurons. A single image is a batch of one: image[None]."
        )
    return output


def no_gradient_error(name: str) -> SiteError:
    """Make the error for a site that is not part of autograd's graph.

    Args:
        name: Name of the site.

    Returns:
        The error, to be raised.
    """
    return SiteError(
        f"site '{name}' runs where gradients are switched off or does not depend on the images: its neurons have "
        "no gradient. Remove the no_grad() in the model, or its checkpointing with use_reentrant=True."
    )


@dataclass
class _Lanes:
    """Properties of the model that are found by trying, and shared by the parts of a probe; None until then.

    Attributes:
        possible: `torch.vmap` can run the model.
        uses_returned: The model uses the return values of its in-place activations, so that nothing has to be
            written back to their inputs.
        keeps: The model keeps tensors on itself that it computes, which in lanes are of no use to the next pass.
        left_out: Names of calls that do not depend on the input; see `Probe.left_out`.
    """

    possible: bool | None = None
    uses_returned: bool | None = None
    keeps: bool | None = None
    left_out: frozenset[str] | None = None


class Probe:
    """Batch of images in front of a model, explained for a target.

    The model must be in eval mode while a probe is used (`cpath.score` sees to it).

    Args:
        model: A classifier that maps ``images`` to logits (B, classes).
        images: Floats (B, C, H, W) on the model's device.
        target: Class to explain: None for the predicted class, an int, or ints (B,).
        sites: Names of the activation functions whose calls are sites.
        max_batch: Largest number of images in one forward pass, if a method runs an image more than once.

    Raises:
        InputError: If model, images or target are unusable.
        SiteError: If the model is scripted.
        UnknownNameError: If there is no activation function of a given name.

    Example:
        >>> probe = cpath.Probe(model, images)
        >>> record = probe.record()
        >>> record.gradients["relu2"].shape, probe.target.shape
        (torch.Size([2, 6, 4, 4]), torch.Size([2]))
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        target: Target = None,
        *,
        sites: Iterable[str] = DEFAULT_SITES,
        max_batch: int = 64,
    ) -> None:
        self.model = unwrap(model)
        images = check_images(self.model, images)
        # Tensors made under inference_mode cannot be saved for a backward pass.
        self.images = images.clone() if images.is_inference() else images
        self.sites = check_sites(sites)
        self.max_batch = max_batch
        self._asked = check_target(target, len(images), images.device)
        self._resolved: Tensor | None = None
        self._lanes = _Lanes()
        self._replay = Replay([])

    def __len__(self) -> int:
        return len(self.images)

    def part(self, images: slice | Tensor) -> Self:
        """Select images, with their targets.

        Args:
            images: A slice, or a tensor of numbers or booleans.

        Returns:
            A probe of these images.
        """
        part = copy.copy(self)
        part.images = self.images[images]
        part._asked = None if self._asked is None else self._asked[images]
        part._resolved = None if self._resolved is None else self._resolved[images]
        part._replay = self._replay.part(images)
        return part

    def remembering(self) -> Self:
        """Keep the results of costly operations, so that `responses` does not run those before its site again.

        They take about as much memory as the activations.

        Returns:
            A probe of the same images.
        """
        probe = copy.copy(self)
        probe._replay = Replay.record(lambda images: self._call(images.clone()), self.images)
        return probe

    @property
    def left_out(self) -> frozenset[str]:
        """Names of the calls of activation functions that do not depend on the input, and are no sites.

        The first use for a model runs it on a pair of images and on one (see `cpath.trial`).
        """
        if self._lanes.left_out is None:
            self._lanes.left_out = left_out(self.model, self.images, self.sites)
        return self._lanes.left_out

    @property
    def target(self) -> Tensor:
        """Class (B,) that each image is explained for: the one asked for, or the predicted one."""
        if self._resolved is None:
            _ = self.left_out  # warns of what would make the target a matter of chance
            with torch.no_grad():
                return self._resolve_target(check_logits(self._run(), len(self)))
        return self._resolved

    def record(self, masks: Mapping[str, Tensor] | None = None, *, gradients: bool = True) -> Record:
        """Run one forward pass, and one backward pass to the sites.

        Args:
            masks: Masks (B, *site) of 0 and 1 by site, with which the network is the restricted one: the recorded
                outputs are masked, and the gradients are with respect to these. Masks of the images' own type are
                many times faster than boolean ones on a CPU.
            gradients: Run the backward pass.

        Returns:
            Logits, outputs and gradients.

        Raises:
            SiteError: If there is no site, or a site has no gradient.
            InputError: If the model's output is no finite logits, or the target no class of the model.

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
        in_place = self.sites == ("relu",)

        def visit(name: str, output: Tensor) -> Tensor:
            check_site(name, output, len(self))
            if masks is not None and in_place:
                # Hidden from autograd: ReLU's backward pass only uses the places where its output is positive, so
                # that a masked output is masked in the gradient too.
                output.data.mul_(masks[name])
            elif masks is not None:
                output = output * masks[name].to(output.dtype)
            if gradients:
                if not output.requires_grad:
                    raise no_gradient_error(name)
                edges[name] = get_gradient_edge(output)
            outputs[name] = output.detach().clone() if copies else output.detach()
            versions[name] = version(output)
            return output

        # A non-leaf, so that a model may change its input in place; it makes every site part of the graph
        # whether or not the parameters require gradients.
        with torch.enable_grad() if gradients else torch.no_grad():
            source = self.images.detach().requires_grad_().clone() if gradients else self.images.clone()
            with intercept(
                self.model,
                visit,
                edits=() if masks is None or in_place else EVERY_SITE,
                sites=self.sites,
                in_place=masks is not None and in_place,
                left_out=self.left_out,
            ):
                logits = check_logits(self._call(source), len(self), differentiable=gradients and bool(outputs))
        if not outputs:
            raise self.no_sites_error()
        if not copies and any(version(outputs[name]) != versions[name] for name in outputs):
            return None
        self._resolve_target(logits.detach())
        found: dict[str, Tensor] = {}
        if gradients:
            with torch.enable_grad():
                response = logits.gather(1, self.target.unsqueeze(1)).sum()
            grads = torch.autograd.grad(response, list(edges.values()), allow_unused=True)
            found = _in_memory_of_their_own(dict(zip(edges, grads, strict=True)), outputs)
        return Record(logits.detach(), outputs, found)

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
        _ = self.left_out  # looked at before anything is replaced
        if len(values) > 1 and self._lanes.possible is None:
            self._lanes.possible = self._survives_without_write_back()
        if len(values) > 1 and self._lanes.possible:
            try:
                return self._in_lanes(site, values)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # an operation without a batching rule, or in place into what comes before
                self._lanes.possible = False
        with torch.set_grad_enabled(values.requires_grad):
            return torch.stack([self._response(site, value, values.requires_grad, True) for value in values])

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

        def visit(name: str, output: Tensor) -> Tensor:
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
            return self._run().gather(1, self.target.unsqueeze(1)).squeeze(1)

    def no_sites_error(self) -> SiteError:
        """Make the error for a model that calls none of the activation functions that are sites.

        Returns:
            The error, to be raised. It names those that the model does call.
        """
        wanted = ", ".join(self.sites) or "none named"
        unusable = sorted(self.left_out)
        more = f" and {len(unusable) - 1} others" if len(unusable) > 1 else ""
        apart = f" but at {unusable[0]}{more}, where nothing depends on the input" if unusable else ""
        found = f"no site found: the model calls none of the activation functions looked for ({wanted}){apart}."
        calls = Counter({k: n for k, n in count_calls(self._run).items() if k not in self.sites})
        if calls:
            names = ", ".join(f"{name} ({count}×)" for name, count in calls.most_common())
            return SiteError(f"{found} It calls {names}: pass sites={[*calls]!r}, or those of them you want.")
        parts = Counter(type(part).__name__ for part in self.model.modules() if not list(part.children()))
        made_of = ", ".join(f"{name} ({count}×)" for name, count in parts.most_common(8))
        return SiteError(
            f"{found} It calls no other one that can be a site either; it is made of {made_of}. "
            f"Known: {', '.join(ACTIVATIONS)}."
        )

    def _run(self) -> Tensor:
        """Run the model on a copy of the images, because a model may change its input in place."""
        logits: Tensor = self._call(self.images.clone())
        return logits

    def _call(self, images: Tensor) -> Any:
        """Run the model on ``images``, and add a note to an error of its own that says so."""
        try:
            with eagerly():
                return self.model(images)
        except CpathError:
            raise
        except Exception as error:
            error.add_note(f"This is an error of the model itself, given images of shape {tuple(images.shape)}.")
            raise

    def gated(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Compute the logits of the network whose sites' outputs are multiplied by gates.

        Args:
            gates: Gates (B, *site) by site.

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
            return output * gates[name].to(output.dtype)

        with intercept(
            self.model,
            visit,
            edits=EVERY_SITE,
            sites=self.sites,
            write_back=not self._survives_without_write_back(),
            left_out=self.left_out,
        ):
            logits = self._run()
        return check_gradient(logits) if differentiable else logits

    def _survives_without_write_back(self) -> bool:
        """Check that the model uses the return values of its in-place activations, not their inputs."""
        if self._lanes.uses_returned is None:
            self._lanes.uses_returned = self._try_without_write_back()
        return self._lanes.uses_returned

    def _try_without_write_back(self) -> bool:
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
                return self._run()

        with torch.no_grad():
            logits = shifted(True)
            return bool(logits.isfinite().all()) and torch.allclose(shifted(False), logits, rtol=1e-4, atol=1e-6)

    def _resolve_target(self, logits: Tensor) -> Tensor:
        if self._resolved is None:
            classes = logits.shape[1]
            wrong = None if self._asked is None else self._asked[(self._asked < 0) | (self._asked >= classes)]
            if wrong is not None and len(wrong):
                raise InputError(
                    f"target {int(wrong[0])} is no class of the model: it has {classes}, 0 to {classes - 1}."
                )
            self._resolved = logits.argmax(1) if self._asked is None else self._asked
        return self._resolved


def _in_memory_of_their_own(
    gradients: Mapping[str, Tensor | None], outputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Make gradients safe to be changed in place; zeros of the shape of ``outputs`` take the place of None.

    Autograd gives several sites the same memory (both sides of an addition, the parts of a concatenation), and
    views that repeat one number (behind a sum).
    """
    taken: set[int] = set()
    owned = {}
    for name, gradient in gradients.items():
        if gradient is None:
            owned[name] = torch.zeros_like(outputs[name])
            continue
        memory = gradient.untyped_storage()
        repeats = memory.nbytes() < gradient.numel() * gradient.element_size()
        if repeats or memory.data_ptr() in taken:
            gradient = gradient.clone(memory_format=torch.contiguous_format)
        taken.add(gradient.untyped_storage().data_ptr())
        owned[name] = gradient
    return owned
