"""Accuracy of classifiers, by which ROAR judges a model that was retrained without some of the pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpath.data import Batches, Split
from cpath.response import check_logits, predicted


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, device: torch.device | str = "cpu", batch_size: int = 256) -> Tensor:
    """Find the images of a split that a model classifies correctly.

    The model is moved to ``device`` and put into eval mode, and stays so.

    Args:
        model: A classifier that maps images to logits, see `cpath.response`.
        split: Images and labels.
        device: Device to compute on.
        batch_size: Number of images in one forward pass.

    Returns:
        Booleans (N,), on the CPU.

    Example:
        >>> scale = cpath.data.Normalisation(mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> split = cpath.data.TensorSplit(torch.rand(6, 3, 8, 8), torch.arange(6) % 5, list("abcdef"), scale)
        >>> cpath.evaluation.accuracy(model, split).shape
        torch.Size([6])
    """
    device = torch.device(device)
    model.to(device).eval()
    batches = Batches(split.placed(device), batch_size)
    right = []
    for images, labels in batches:
        logits = check_logits(model(images.to(device)), len(images))
        right.append(predicted(logits).cpu() == labels.cpu())
    return torch.cat(right)
