"""Every torchvision classifier, by name."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

from cpath.errors import InputError, unknown_name
from cpath.optional import optional


@cache
def names() -> tuple[str, ...]:
    """List the names of all torchvision classifiers.

    Importing torchvision takes a second or more.

    Returns:
        The names, sorted.

    Raises:
        MissingPackageError: If torchvision is not installed.
    """
    models = optional("torchvision.models", "critical-pathways[experiments]", "a torchvision model")
    return tuple(sorted(models.list_models(module=models)))


def torchvision_model(
    architecture: str,
    classes: int,
    shape: tuple[int, int, int] = (3, 224, 224),
    weights: str | None = None,
    **settings: Any,
) -> nn.Module:
    """Make a torchvision classifier.

    Args:
        architecture: Name of the model, such as "resnet18".
        classes: Number of classes.
        shape: (C, H, W) of the images.
        weights: Name of a member of its weights enum ("DEFAULT", "IMAGENET1K_V1", …), downloaded unless cached, or
            None for random weights.
        settings: Further arguments of the torchvision function.

    Returns:
        The model.

    Raises:
        UnknownNameError: If there is no such model or weights.
        InputError: If the number of classes or channels differs, or the weights are not there and cannot be
            downloaded.

    Example:
        >>> cpath.models.torchvision_model("squeezenet1_1", classes=10)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 10])
    """
    if architecture not in names():
        raise unknown_name("torchvision model", architecture, names())
    from torchvision import models

    if shape[0] != 3:
        raise InputError(
            f"{architecture} takes images of 3 channels, the dataset has {shape[0]}; "
            "digits have 3 with channels=3 (dataset.channels=3)."
        )
    chosen = None
    if weights is not None:
        enum = models.get_model_weights(architecture)
        members = list(enum.__members__)
        if weights not in members:
            raise unknown_name(f"weights of {architecture}", weights, members)
        chosen = enum[weights]
        theirs = len(chosen.meta["categories"])
        if theirs != classes:
            raise InputError(
                f"{architecture}'s weights {weights} are for {theirs} classes, the dataset has {classes}: "
                "pass weights=None (model.weights=null) to train it or to load weights of yours (checkpoint=FILE)."
            )
    if architecture in ("googlenet", "inception_v3") and chosen is None:
        settings = {"init_weights": True, "aux_logits": False, **settings}
    try:
        model: nn.Module = models.get_model(architecture, weights=chosen, num_classes=classes, **settings)
    except OSError as error:
        assert chosen is not None
        raise InputError(
            f"the weights {weights} of {architecture} are not cached and could not be downloaded ({error}). Get "
            f"them from {chosen.url}, pass weights=None and load them with cpath.models.load_checkpoint "
            "(model.weights=null checkpoint=FILE)."
        ) from error
    return model
