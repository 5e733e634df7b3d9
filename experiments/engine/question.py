"""The question that a job asks of its network: about which units, against which baseline, for which response.

``sites``, ``unit``, ``baseline`` and ``target`` are settings of every job. An experiment that heeds one of the last
three names it in `ExperimentSettings.asks`; elsewhere another value than the default is refused, as it would change
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from hydra.utils import get_method
from torch import Tensor, nn

import cpath
from cpath.data import ImageData
from cpath.errors import InputError
from cpath.inputs import Inputs
from cpath.randomness import seeded
from experiments.engine.config import Config, default_of
from experiments.engine.devices import device_of, dtype_of
from experiments.engine.digests import named_code
from experiments.engine.fields import keyed
from experiments.engine.images import Batch, Data
from experiments.engine.unit import units_of

QUESTIONS = ("unit", "baseline", "target")
PREDICTED, LABEL = "predicted", "label"
_BATCH = 32


def check_question(config: Config) -> None:
    """Refuse a question that the experiment does not heed, or whose target is none.

    Args:
        config: the configuration.

    Raises:
        InputError: if there is such a setting.
    """
    for setting in QUESTIONS:
        value, usual = getattr(config, setting), default_of(setting)
        if value != usual and setting not in config.experiment.asks:
            raise InputError(
                f"{setting}={value}: experiment={config.experiment.name} works with {setting}={usual} only; "
                "experiment=path_analysis takes others."
            )
    _ = function_of(config)


def check_methods(config: Config, methods: Mapping[str, cpath.Method]) -> None:
    """Refuse methods that cannot answer the question, before any other is run.

    Args:
        config: the configuration.
        methods: by name.

    Raises:
        InputError: if there is such a method.
    """
    unusable: dict[str, list[str]] = {}
    for name, method in methods.items():
        if method.needs_classes and not explains_a_class(config):
            unusable.setdefault(f"need classes, which target={config.target} does not have", []).append(name)
        for setting in ("unit", "baseline") if method.neurons_only else ():
            if (value := getattr(config, setting)) != default_of(setting):
                unusable.setdefault(f"know no {setting}={value}", []).append(name)
    if unusable:
        left = ",".join(name for name in methods if not any(name in names for names in unusable.values()))
        found = "; ".join(f"{' and '.join(names)} {problem}" for problem, names in unusable.items())
        raise InputError(f"these methods cannot answer: {found}. Name others: method=[{left or '…'}].")


def is_usual(config: Config) -> bool:
    """Tell if a job asks the paper's question: neurons against zero, for the predicted class.

    Args:
        config: the configuration.

    Returns:
        True if all settings of the question are the defaults.
    """
    return all(getattr(config, setting) == default_of(setting) for setting in QUESTIONS)


def explains_a_class(config: Config) -> bool:
    """Tell if the response is the logit of a class.

    Args:
        config: the configuration.

    Returns:
        False if it is a function of the output, for which nothing is measured that needs a class.
    """
    return function_of(config) is None


def identity_of_question(config: Config) -> dict[str, Any]:
    """The question, for keys of the cache; empty where it is the usual one.

    Args:
        config: the configuration.

    Returns:
        The settings that differ from the defaults, with the seed where a baseline is drawn, and the code of a
        function of the output.
    """
    settings = keyed(config)
    found = {name: settings[name] for name in QUESTIONS if settings[name] != default_of(name)}
    if "baseline" in found:
        found |= {"baseline_inputs": config.baseline_inputs, "seed": config.seed}
    if function_of(config) is not None:
        found["code of the target"] = named_code({"_target_": config.target})
    return found


@dataclass(frozen=True)
class Question:
    """The question of a job, for the batches of its inputs. `Job.question` is one."""

    config: Config
    """Configuration of the job."""
    data: Data
    """Its dataset."""
    model: nn.Module
    """The network that is explained."""

    def arguments(self, batch: Batch) -> dict[str, Any]:
        """Arguments of the library's functions that put the question about a batch.

        Args:
            batch: the inputs.

        Returns:
            ``target``, ``sites``, ``unit`` and ``baseline`` by name.
        """
        found: dict[str, Any] = {
            "target": self._target(batch),
            "sites": self.config.sites,
            "unit": units_of(self.config.unit),
        }
        if self.config.baseline == "mean":
            found["baseline"] = self._mean
        elif self.config.baseline == "other_class":
            found["baseline"] = self._on_other_class(batch)
        return found

    def _target(self, batch: Batch) -> Any:
        """Response that a batch is explained for: None (the predicted class), classes, or a function."""
        target = self.config.target
        if target == LABEL:
            return batch.labels
        function = function_of(self.config)
        return function if function is not None else None if target == PREDICTED else target

    @cached_property
    def _mean(self) -> dict[str, Tensor]:
        """Mean activations over training inputs, or over test inputs where there are none to train on."""
        data = self.data
        split = data.train if isinstance(data, ImageData) and data.train is not None else data.test
        indices = split.sample(min(self.config.baseline_inputs, len(split)), self.config.seed)
        batches = (self._placed(Inputs.of(split.batch(part))) for part in torch.split(indices, _BATCH))
        return cpath.mean_activations(self.model, batches, sites=self.config.sites)

    def _on_other_class(self, batch: Batch) -> dict[str, Tensor]:
        """Activations (B, *site) on test inputs of other classes than the batch's, one drawn for each."""
        labels = self.data.test.labels
        others = []
        for index in batch.indices.tolist():
            candidates = (labels != labels[index]).nonzero().flatten()
            if not len(candidates):
                raise InputError("baseline=other_class needs test inputs of at least two classes.")
            generator = seeded(self.config.seed * len(labels) + index)  # the same in any batch
            draw = torch.randint(len(candidates), (1,), generator=generator, device="cpu")
            others.append(int(candidates[draw]))
        inputs = self._placed(Inputs.of(self.data.test.batch(torch.tensor(others))))
        with torch.no_grad(), cpath.observe(self.model, sites=self.config.sites) as seen:
            inputs.clone().call(self.model)
        return seen.activations

    def _placed(self, inputs: Inputs) -> Inputs:
        return inputs.to(device_of(self.config), dtype_of(self.config))


def function_of(config: Config) -> Any:
    """Find the function of the output that a target names.

    Args:
        config: the configuration.

    Returns:
        The function; None for a class.

    Raises:
        InputError: if the target is neither a class nor the dotted path of a function.
    """
    target = config.target
    if isinstance(target, int) or target in (PREDICTED, LABEL):
        return None
    if "." not in target:
        raise InputError(
            f"target must be predicted, label, the number of a class, or the dotted path of a function of the "
            f"model's output, not '{target}'."
        )
    try:
        found = get_method(target)
    except Exception as error:  # of importing the user's module, of any kind
        raise InputError(f"target={target}: there is no such function: {error}") from error
    if isinstance(found, type):
        raise InputError(f"target={target} is a class: name a function of the model's output.")
    return found
