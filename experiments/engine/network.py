"""The network that is explained: built as configured, trained or loaded, and identified by its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import cpath
from cpath.attribution import ResponseProbe
from cpath.data import ImageData
from cpath.errors import CpathError, InputError
from cpath.models import load_checkpoint
from cpath.response import class_logits
from experiments.engine.cache import Cache, digest
from experiments.engine.config import Config, default_of
from experiments.engine.devices import device_of, dtype_of
from experiments.engine.digests import code_digest, named_code
from experiments.engine.images import Data, example
from experiments.engine.instantiate import instantiated
from experiments.engine.question import function_of
from experiments.engine.training import MODEL_FILE, pretrained_weights, trained_entry
from experiments.engine.unit import units_of


def build_model(config: Config, data: Data) -> nn.Module:
    """Build the model of a configuration for a dataset.

    Args:
        config: names the model, its weights or a checkpoint, and the seed of initial weights.
        data: number of classes and shape of the images.

    Returns:
        The model in eval mode, with pretrained weights or those of a checkpoint if the configuration names any,
        else not trained yet.

    Raises:
        InputError: if it cannot be made, or is no module.
    """
    shape = data.shape if isinstance(data, ImageData) else None
    fixed: dict[str, Any] = {"classes": len(data.classes), "shape": shape}
    if "weights" in config.model:
        fixed["weights"] = pretrained_weights(config, data)
    torch.manual_seed(config.seed)  # the initial weights
    model = instantiated(config.model, "model", leave_out=("name",), **fixed)
    if not isinstance(model, nn.Module):
        raise InputError(f"model._target_ must return a torch.nn.Module, not {type(model).__name__}.")
    if config.checkpoint is not None:
        load_checkpoint(model, config.checkpoint)
    return model.eval()


def trained_model(config: Config, data: Data, cache: Cache) -> nn.Module:
    """The model of a configuration with weights: those of a checkpoint, pretrained ones, or trained now.

    Args:
        config: the configuration.
        data: its dataset.
        cache: holds the networks that were trained before.

    Returns:
        The model in eval mode, on the configured device, in the configured type.

    Raises:
        SiteError: if the model has no site, before any training.
        InputError: likewise, if it has another number of classes than the dataset.
    """
    model = build_model(config, data)
    check_model(model, data, config)
    if isinstance(data, ImageData) and config.checkpoint is None and pretrained_weights(config, data) is None:
        load_checkpoint(model, trained_entry(config, data, cache, model) / MODEL_FILE)
    return model.eval().to(device_of(config), dtype_of(config))


def check_model(model: nn.Module, data: Data, config: Config) -> None:
    """Refuse a model without sites or units, or one that does not fit the dataset.

    Args:
        model: on the CPU.
        data: the dataset.
        config: names the sites and the units.

    Raises:
        SiteError: if no site is found, or one has no such units.
        InputError: if the model has not one logit for each class of the dataset, unless the target is a function
            of its output; or if the target is no class of the model, or a function that fails.
    """
    try:
        with cpath.sites.evaluating(model):
            function = function_of(config)
            target = config.target if isinstance(config.target, int) else function and _reporting(function, config)
            probe = cpath.Probe(model, example(data), target, sites=config.sites, unit=units_of(config.unit))
            record = probe.record(gradients=function is not None)
            probe.layout(record.activations)  # raises where a site has no such units
    except cpath.SiteError as error:
        asked = "sites=[…]" if config.unit == default_of("unit") else "sites=[…] and unit='{kind: …, axis: …}'"
        raise cpath.SiteError(f"model '{config.model_name}': {error} ({asked} on the command line)") from error
    if function is None:  # whose output need not be logits
        _compare_classes(record.logits.shape[1], data, config)


def _reporting(function: Callable[[Any], Any], config: Config) -> Callable[[Any], Any]:
    """The function that is the target, with errors that name the setting."""

    def asked(output: Any) -> Any:
        try:
            return function(output)
        except CpathError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise InputError(f"target={config.target} fails on the output of the model: {said}.") from error

    return asked


def check_classes(model: nn.Module, data: Data, config: Config) -> None:
    """Refuse a model for another number of classes than the dataset's; whether it has sites does not matter.

    Args:
        model: on the CPU, in eval mode.
        data: the dataset.
        config: names the model.

    Raises:
        InputError: if the model has not one logit for each class of the dataset; one logit is for two.
    """
    with torch.no_grad():
        logits = class_logits(example(data).call(model), 1)
    _compare_classes(logits.shape[1], data, config)


def _compare_classes(theirs: int, data: Data, config: Config) -> None:
    classes = len(data.classes)
    if theirs != classes:
        raise InputError(
            f"model '{config.model_name}' is for {theirs} classes, dataset '{data.name}' has {classes}: its logits "
            "would be taken for other classes. Use the dataset that the model was trained on, or a model with "
            f"{classes} logits."
        )


def check_site(site: str | None, model: nn.Module, data: Data, config: Config) -> None:
    """Refuse the name of a site at which no map can be taken.

    Args:
        site: name that a setting gives; None for the last convolutional one.
        model: on the CPU; it need not be trained.
        data: the dataset.
        config: names the activation functions that are sites.

    Raises:
        SiteError: if the model has no such site, or its output has no height and width.
    """
    with cpath.sites.evaluating(model):
        ResponseProbe(model, example(data), sites=config.sites).spatial_sites(site)


def fingerprint(model: nn.Module, config: Config) -> str:
    """Hash of everything that makes a model what it is: settings, code, and weights wherever they came from.

    Args:
        model: with its weights. All of them are read: hash a model once, and keep the hash.
        config: names the settings that the model was made with.

    Returns:
        16 hexadecimal digits.
    """
    classes = sorted({type(part) for part in model.modules()}, key=lambda cls: (cls.__module__, cls.__qualname__))
    made_by = {
        "class": [type(model).__module__, type(model).__qualname__],
        "settings": {name: value for name, value in config.model.items() if name not in ("name", "weights")},
        "code": [named_code(config.model), code_digest(*classes)],
    }
    hasher = hashlib.sha256(digest(made_by).encode())
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return hasher.hexdigest()[:16]
