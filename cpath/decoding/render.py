"""The optimisation of several images together, by Lucent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cpath.decoding.network import Broken, Network
from cpath.decoding.objectives import Layer, Task
from cpath.decoding.starts import Start, lucent, resized
from cpath.errors import InputError


def render(
    network: Network,
    tasks: list[Task],
    starts: list[Start],
    transforms: Sequence[Callable[[Tensor], Tensor]],
    steps: int,
    learning_rate: float,
    on_step: Callable[[int], object],
    *,
    resize: bool = False,
) -> None:
    """Optimise images in place, all together. Adam works element by element, so that they stay independent.

    Args:
        network: The restricted network.
        tasks: One task for each image.
        starts: The images.
        transforms: Functions applied to the pixels (B, C, H, W).
        steps: Number of steps.
        learning_rate: Adam's learning rate.
        on_step: Called after every step with the number of images.
        resize: Resize what the transforms leave to the size that the network takes.

    Raises:
        InputError: If a transform changes the size of the pixels, unless they are resized.
    """
    vis = lucent("render")
    watched = network.watched(tasks)
    size = tuple(starts[0].image().shape[-2:])
    done = 0

    def fitting(pixels: Tensor) -> Tensor:
        if resize:
            return resized(pixels, size)
        if tuple(pixels.shape[-2:]) != size:
            raise InputError(
                f"the transforms change the size from {size} to {tuple(pixels.shape[-2:])}, but a pathway's masks "
                "belong to one size: use transforms that keep it, or say with size=… from which one to resize."
            )
        return pixels

    def objective(layer: Layer) -> Tensor:
        losses = [
            task.objective(lambda name, row=row: layer(watched.key(name))[row : row + 1])  # type: ignore[misc]
            for row, task in enumerate(tasks)
        ]
        # Adam's ε would hold still what has a small gradient, as sparse pathways do: at the start the largest is 1.
        return torch.stack(
            [loss.reshape(()) / max(start.slope, 1e-30) for loss, start in zip(losses, starts, strict=True)]
        ).sum()

    def optimizer(tensors: list[Tensor]) -> torch.optim.Optimizer:
        adam = torch.optim.Adam(tensors, lr=learning_rate)
        adam.register_step_post_hook(after)
        return adam

    def after(*_: Any) -> None:
        nonlocal done
        done += 1
        on_step(len(tasks))

    try:
        vis.render_vis(
            watched,
            objective,
            lambda: (
                [tensor for start in starts for tensor in start.tensors],
                lambda: torch.cat([start.pixels() for start in starts]),
            ),
            optimizer=optimizer,
            transforms=[*transforms, fitting],
            thresholds=(steps,),
            preprocess=False,  # True would apply ImageNet's normalisation, whatever the model was trained with
            progress=False,
            show_image=False,
            fixed_image_size=size,  # the default resizes smaller images to 224
        )
    except Broken as broken:
        raise broken.error from None
    if done < steps:  # Lucent catches KeyboardInterrupt and returns the image as it is
        raise KeyboardInterrupt
