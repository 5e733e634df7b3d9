"""Distillation guided routing: gates on the units, trained for one image (Wang et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self

import torch
from torch import Tensor

from cpath.checks import check_count, check_seed, warn
from cpath.devices import widest
from cpath.errors import InputError
from cpath.layout import SiteLayout, common_dtype
from cpath.methods.base import Method, register
from cpath.probe import Probe
from cpath.randomness import image_generators


@register("dgr")
@dataclass(frozen=True, kw_only=True)
class DGR(Method):
    """Distillation guided routing: the score is the gate λ ≥ 0 that multiplies the unit, trained from 1.

    Minimises −Σ_c p_c log q_c + γ Σ_i λ_i, where p and q are the softmax outputs of the original and of the gated
    network, by SGD with momentum. The gates are clamped after each step. Of the iterations (one step each) in which
    the predicted class is unchanged, the one of the lowest loss gives the gates; the untrained gates are no
    candidate. For an image that has none, γ is divided by 10 and the training repeated from the start, until γ is
    too small to change a bit of the network's answer. An image for which all attempts fail scores 0 everywhere, an
    empty pathway, with a warning. The target plays no part: p and the predicted class are the network's own.

    Args:
        iterations: Number of SGD steps.
        learning_rate: Learning rate.
        momentum: Momentum, in [0, 1).
        gamma: Weight γ of the gates in the loss.
        max_gate: Largest value of a gate.
        retries: Largest number of repetitions with a smaller γ.

    Raises:
        InputError: If a setting is out of range.

    Each unit has one gate. With another baseline b than zero, the gated output is λ · z + (1 − λ) · b.

    Source: Wang et al., Interpret Neural Networks by Identifying Critical Data Routing Paths, CVPR 2018, which puts
    the gates on channels (``unit="channel"``); Khakzar et al. 2021 put them on neurons (the default).

    Example:
        >>> scores = cpath.score(model, images, cpath.methods.DGR(iterations=5))
        >>> bool((scores.flat >= 0).all()), scores.flat.shape
        (True, torch.Size([2, 352]))
    """

    signed: ClassVar[bool] = False
    needs_classes: ClassVar[bool] = True
    iterations: int = 1000
    learning_rate: float = 0.01
    momentum: float = 0.9
    gamma: float = 0.01
    max_gate: float = 100.0
    retries: int = 100

    def __post_init__(self) -> None:
        check_count("iterations", self.iterations)
        if self.retries < 0:
            raise InputError(f"retries must not be negative, not {self.retries}.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum must lie in [0, 1), not {self.momentum}.")
        for setting in ("learning_rate", "gamma", "max_gate"):
            value = getattr(self, setting)
            if not 0 <= value < float("inf"):
                raise InputError(f"{setting} must be a finite number, not negative; got {value}.")

    def contributions(self, probe: Probe) -> Mapping[str, Tensor]:
        """Train the gates (B, *units) by site."""
        probe.need_classes(f"method '{self.name}'")
        record = probe.record(gradients=False)
        layout = probe.layout(record.activations)
        device = record.logits.device
        # Half precision has no room for the steps.
        dtype = torch.promote_types(common_dtype(record.activations), torch.float32)
        found = torch.zeros(len(probe), layout.units, dtype=dtype, device=device)
        unsolved = torch.arange(len(probe), device=device)
        gamma = self.gamma
        before: Tensor | None = None
        for _ in range(1 + self.retries):
            part = probe.part(unsolved)
            gates = self._start(part, layout).to(found)
            logits, rows = record.logits[unsolved], unsolved.tolist()
            solved, course = self._train(part, logits, layout, gates, gamma, found, rows)
            unsolved = unsolved[~solved]
            if not len(unsolved):
                break
            # If γ cannot move a gate by one rounding error, and the training ran as with the γ before, dividing it
            # again changes nothing. (Equal runs alone prove nothing: both γ may close every gate.)
            reach = gamma * self.learning_rate * self.iterations / (1 - self.momentum)
            if before is not None and reach < torch.finfo(dtype).eps and torch.equal(course, before):
                break
            before = course
            gamma /= 10
        if len(unsolved):
            warn(
                f"{self.name}: no gates kept the predicted class for {len(unsolved)} of {len(probe)} images; they "
                "score 0 and have empty pathways. More iterations may help.",
                RuntimeWarning,
            )
        return layout.views(found)

    def _start(self, probe: Probe, layout: SiteLayout) -> Tensor:
        """Make the gates (B, units) to start from."""
        return torch.ones(len(probe), layout.units, device=probe.device)

    def _train(
        self,
        probe: Probe,
        logits: Tensor,
        layout: SiteLayout,
        gates: Tensor,
        gamma: float,
        found: Tensor,
        rows: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Train ``gates`` in place and copy the best ones of image i to ``found[rows[i]]``.

        Returns:
            True (B,) where any were found, and the distance (iterations, B) of the outputs after each step.
        """
        teacher, predicted = logits.softmax(1), logits.argmax(1)
        lowest = torch.full((len(probe),), float("inf"), dtype=widest(gates.device), device=gates.device)
        distances = []
        with _GateSGD(layout, gates, gamma, self) as sgd:
            for iteration in range(self.iterations + 1):
                with torch.set_grad_enabled(iteration < self.iterations):
                    student = probe.gated(sgd.gates)
                log_q = student.detach().log_softmax(1)
                if iteration > 0:
                    distance = -(teacher * log_q).sum(1, dtype=lowest.dtype)
                    distances.append(distance)
                    loss = distance + gamma * gates.sum(1)
                    better = (student.argmax(1) == predicted) & (loss < lowest)
                    lowest = torch.where(better, loss, lowest)
                    for image in better.nonzero().flatten().tolist():
                        found[rows[image]] = gates[image]
                if iteration < self.iterations:
                    sgd.step(student, log_q.exp() - teacher)  # gradient of the distance at the logits
        return lowest.isfinite(), torch.stack(distances)


class _GateSGD:
    """SGD on the flat ``gates`` (B, units), which steps each site as soon as the backward pass has its gradient.

    So the gradients of all gates never lie in memory together, and each is used while it is in the cache. It is a
    context manager: leaving it removes the hooks, whose cycle of references would keep the buffers alive.
    """

    def __init__(self, layout: SiteLayout, gates: Tensor, gamma: float, settings: DGR) -> None:
        self._gamma = gamma
        self._settings = settings
        self._velocity = layout.views(torch.zeros_like(gates))
        self._stepped: set[str] = set()
        # Leaves in the memory of `gates`. They are made by `data`, because detached tensors share one count of
        # changes, and autograd would take the step of one site for a change of all.
        self.gates = {name: view.data.requires_grad_() for name, view in layout.views(gates).items()}
        self._hooks = [
            gate.register_post_accumulate_grad_hook(partial(self._receive, name))  # type: ignore[no-untyped-call]
            for name, gate in self.gates.items()
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def step(self, logits: Tensor, gradient: Tensor) -> None:
        """Take one step down the loss whose gradient at the ``logits`` is given."""
        self._stepped.clear()
        torch.autograd.backward(logits, gradient, inputs=list(self.gates.values()))
        for name, gate in self.gates.items():
            if name not in self._stepped:  # the response does not depend on this site
                self._update(name, gate, torch.zeros_like(gate))

    def _receive(self, name: str, gate: Tensor) -> None:
        gradient, gate.grad = gate.grad, None
        assert gradient is not None
        self._stepped.add(name)
        self._update(name, gate, gradient)

    def _update(self, name: str, gate: Tensor, gradient: Tensor) -> None:
        velocity, settings = self._velocity[name], self._settings
        with torch.no_grad():
            velocity.mul_(settings.momentum).add_(gradient.add_(self._gamma))
            gate.add_(velocity, alpha=-settings.learning_rate).clamp_(0, settings.max_gate)


@register("dgr_random_init")
@dataclass(frozen=True, kw_only=True)
class DGRRandomInit(DGR):
    """`DGR` with gates that start at U(0, 1), drawn from the seed and the image itself.

    Args:
        seed: Seed of the first gates.

    Source: Khakzar et al. 2021, DGR with random initialisation.

    Example:
        >>> method = cpath.methods.DGRRandomInit(iterations=20, learning_rate=3.0, seed=1)
        >>> cpath.score(model, images, method).method
        'dgr_random_init'
    """

    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seed(self.seed)

    def _start(self, probe: Probe, layout: SiteLayout) -> Tensor:
        """Draw the gates from U(0, 1), the same at every attempt."""
        return torch.stack(
            [
                torch.rand(layout.units, generator=g, device="cpu")
                for g in image_generators(probe.inputs, self.seed, self.name)
            ]
        )
