"""How well a model classifies, which is what retraining without some of the pixels is judged by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cpath.data import Batches, Split


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, device: torch.device | str = "cpu", batch_size: int = 256) -> Tensor:
    """(N,) bool: whether each image of ``split`` is classified correctly.

    The model runs on ``device``, in eval mode: it is moved there, and stays there and in eval mode.
    """
    device = torch.device(device)
    model.to(device).eval()
    batches = Batches(split.placed(device), batch_size)
    return torch.cat([model(images.to(device)).argmax(1).cpu() == labels.cpu() for images, labels in batches])
