"""Adversarial images, by the Adversarial Robustness Toolbox."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cpath.data import Normalisation
from cpath.optional import optional
from cpath.response import class_logits

_REQUIREMENT = "adversarial-robustness-toolbox>=1.20"


def _fgsm(library: Any, classifier: Any, epsilon: float, steps: int) -> Any:
    return library.FastGradientMethod(classifier, eps=epsilon)


def _pgd(library: Any, classifier: Any, epsilon: float, steps: int) -> Any:
    step = 2.5 * epsilon / steps  # as in Madry et al. 2018: the border can be reached and walked along
    return library.ProjectedGradientDescent(classifier, eps=epsilon, eps_step=step, max_iter=steps, verbose=False)


def _auto_pgd(library: Any, classifier: Any, epsilon: float, steps: int) -> Any:
    return library.AutoProjectedGradientDescent(
        classifier, eps=epsilon, eps_step=2 * epsilon, max_iter=steps, nb_random_init=1, verbose=False
    )


ATTACKS: Mapping[str, Callable[[Any, Any, float, int], Any]] = {"fgsm": _fgsm, "pgd": _pgd, "auto_pgd": _auto_pgd}
"""Attacks within a bound on every pixel (Goodfellow et al. 2015, Madry et al. 2018, Croce and Hein 2020)."""


def toolbox() -> Any:
    """Import the attacks of the toolbox.

    Returns:
        The module.

    Raises:
        MissingPackageError: if it is not installed.
    """
    logging.getLogger("art").setLevel(logging.WARNING)  # it tells of every batch
    return optional("art.attacks.evasion", _REQUIREMENT, "an attack (experiment.attacks.names)")


class _Logits(nn.Module):
    """A network whose output is its logits (B, classes), whatever else it returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return class_logits(self.network(images), len(images))


class Attacker:
    """Changes images so that a network predicts another class.

    Args:
        network: in eval mode; a copy of it is attacked.
        normalisation: of its images.
        shape: (C, H, W) of the images.
        classes: number of classes.
        epsilon: largest change of a pixel in [0, 1].
        steps: of iterative attacks.
        seed: of what attacks draw.
    """

    def __init__(
        self,
        network: nn.Module,
        normalisation: Normalisation,
        shape: tuple[int, int, int],
        classes: int,
        *,
        epsilon: float,
        steps: int,
        seed: int,
    ) -> None:
        estimators = optional("art.estimators.classification", _REQUIREMENT, "an attack")
        copied = copy.deepcopy(network).float().eval()  # gradients of parameters are left behind in it
        self._normalisation, self._epsilon, self._steps, self._seed = normalisation, epsilon, steps, seed
        mean, std = (
            np.array(values, dtype=np.float32).reshape(-1, 1, 1)
            for values in (normalisation.mean, normalisation.std)
        )
        self._classifier = estimators.PyTorchClassifier(
            _Logits(copied),
            nn.CrossEntropyLoss(),
            shape,
            classes,
            clip_values=(0.0, 1.0),
            preprocessing=(mean, std),
            device_type="gpu" if next(copied.parameters()).is_cuda else "cpu",
        )

    def attack(self, name: str, images: Tensor, target: Tensor) -> Tensor:
        """Attack images.

        Args:
            name: of the attack, see `ATTACKS`.
            images: (B, C, H, W), normalised.
            target: (B,) class that they are to lose.

        Returns:
            Changed images, normalised, of the same type.
        """
        pixels = self._normalisation.invert(images).clamp(0, 1).cpu().float().numpy()
        state = np.random.get_state()  # noqa: NPY002  # the toolbox draws from the global generators
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            np.random.seed(self._seed % 2**32)  # noqa: NPY002
            try:
                attack = ATTACKS[name](toolbox(), self._classifier, self._epsilon, self._steps)
                changed = attack.generate(pixels, y=target.cpu().numpy())
            finally:
                np.random.set_state(state)  # noqa: NPY002
        return self._normalisation.apply(torch.from_numpy(changed)).to(images)
