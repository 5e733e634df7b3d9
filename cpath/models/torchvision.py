"""Every torchvision classifier, by name."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from cpath.errors import InputError, unknown_name

_REGISTERED = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


@cache
def names() -> tuple[str, ...]:
    """Names of all torchvision classifiers.

    They are read off torchvision's files: every command asks for them, and to import them takes seconds.
    """
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise InputError("torchvision is not installed: pip install 'critical-pathways[experiments]'.")
    files = Path(spec.origin).with_name("models").glob("*.py")
    return tuple(sorted(name for file in files for name in _REGISTERED.findall(file.read_text("utf-8"))))


def torchvision_model(
    architecture: str,
    classes: int,
    shape: tuple[int, int, int] = (3, 224, 224),
    weights: str | None = None,
    **settings: Any,
) -> nn.Module:
    """The torchvision classifier ``architecture`` with ``classes`` logits.

    ``weights`` is the name of a member of its weights enum (``DEFAULT``, ``IMAGENET1K_V1``, …), downloaded
    unless cached, or None for random ones. Raises `UnknownNameError` for an unknown name, `InputError` where
    the classes or channels differ or the weights cannot be had.
    """
    import torchvision.models

    if architecture not in names():
        raise unknown_name("torchvision model", architecture, names())
    if shape[0] != 3:
        raise InputError(
            f"{architecture} takes images of 3 channels, the dataset has {shape[0]}; "
            "digits have 3 with channels=3 (dataset.channels=3)."
        )
    chosen = None
    if weights is not None:
        enum = torchvision.models.get_model_weights(architecture)
        members = list(enum.__members__)
        if weights not in members:
            raise unknown_name(f"weights of {architecture}", weights, members)
        chosen = enum[weights]
        theirs = len(chosen.meta["categories"])
        if theirs != classes:
            raise InputError(
                f"{architecture}'s weights {weights} tell {theirs} classes apart, the dataset has {classes}: "
                "pass weights=None (model.weights=null) to train it or to load weights of yours (checkpoint=FILE)."
            )
    if architecture in ("googlenet", "inception_v3") and chosen is None:
        settings = {"init_weights": True, "aux_logits": False, **settings}
    try:
        model: nn.Module = torchvision.models.get_model(
            architecture, weights=chosen, num_classes=classes, **settings
        )
    except OSError as error:
        assert chosen is not None
        raise InputError(
            f"the weights {weights} of {architecture} are not cached and could not be downloaded ({error}). Get "
            f"them from {chosen.url}, pass weights=None and load them with cpath.models.load_checkpoint "
            "(model.weights=null checkpoint=FILE)."
        ) from error
    return model
