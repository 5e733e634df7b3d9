"""The memory that a training takes, estimated from below before it begins."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cpath.data import ImageData
from cpath.errors import InputError

_TRIED = 2  # images that the estimate is made with: batch normalisation refuses a single one


def saved_for_backward(model: nn.Module, shape: Sequence[int]) -> float:
    """Measure what autograd keeps of an image until the backward pass.

    Args:
        model: The network, which is left as it is.
        shape: (C, H, W) of the images.

    Returns:
        Bytes for one image, in float32.

    Example:
        >>> layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4), torch.nn.Sigmoid())
        >>> cpath.training_memory.saved_for_backward(layers, (1, 4, 4))  # 16 inputs and 4 outputs, 4 bytes each
        80.0
    """
    model = copy.deepcopy(model).cpu().float().train()
    owned = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    held: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    noting = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with torch.random.fork_rng(devices=()), torch.enable_grad(), noting:
        _ = model(torch.zeros(_TRIED, *shape))  # held until here, so that no memory counts twice
    return sum(held.values()) / _TRIED


def memory_of(device: torch.device) -> int | None:
    """Ask for the whole memory of a device, used or not.

    Args:
        device: The device.

    Returns:
        Bytes; None where the device does not say.

    Example:
        >>> from cpath.training_memory import memory_of
        >>> memory_of(torch.device("cpu")) > 1e6
        True
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "cpu" and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def check_memory(
    model: nn.Module,
    data: ImageData,
    batch_size: int,
    device: torch.device,
    *,
    at_once: int = 1,
    memory_gb: float = 8.0,
    in_16_bits: bool = False,
) -> None:
    """Refuse trainings that cannot fit the memory of a device.

    Weights, their gradients, the images that lie on the device and what the backward pass needs are counted; the
    state of the optimizer and intermediate results are not, so that nothing is refused that would fit.

    Args:
        model: The network.
        data: Images, with training and validation splits.
        batch_size: Number of images in a step.
        device: The device.
        at_once: Number of trainings on it at a time.
        memory_gb: Largest split, in gigabytes, that is moved to the device as a whole.
        in_16_bits: The layers compute in 16 bits.

    Raises:
        InputError: If they need more than the device has.

    Example:
        >>> data = cpath.data.digits(size=8)
        >>> network = cpath.models.resnet8_narrow(10, data.shape, width=2)
        >>> cpath.training_memory.check_memory(network, data, 64, torch.device("cpu"))
    """
    there = memory_of(device)
    if there is None:
        return
    weights = sum(tensor.nbytes * (2 if tensor.requires_grad else 1) for tensor in model.parameters())
    steps = saved_for_backward(model, data.shape) * batch_size * (0.5 if in_16_bits else 1)
    sizes = (split.bytes for split in data.training_splits())
    images = sum(size for size in sizes if size is not None and size <= memory_gb * 1e9)
    needed = at_once * (weights + steps + images)
    if needed > there:
        several = at_once > 1
        fewer = (
            ", the number of trainings at a time (experiment.stacked, experiment.side_by_side)" if several else ""
        )
        raise InputError(
            f"{f'{at_once} trainings at a time need' if several else 'the training needs'} at least "
            f"{needed / 1e9:.3g} GB on {device}, which has {there / 1e9:.3g} GB: {weights / 1e9:.2g} GB for the "
            f"weights and their gradients, {steps / 1e9:.2g} GB for a batch, {images / 1e9:.2g} GB for the images"
            f"{' of each' if several else ''}. Lower recipe.batch_size{fewer} or trainer.memory_gb, above which "
            "images stay where they are."
        )
